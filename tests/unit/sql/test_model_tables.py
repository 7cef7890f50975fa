"""Which tables hold a model's rows, and which model a payload speaks of."""

from __future__ import annotations

import pytest

from pgobserve.sql.model_tables import model_of, tables_of
from tests.project import shapes
from tests.project.models import Item


def test_model_of() -> None:
    """A label is the model's."""
    assert model_of("project.item") is Item


@pytest.mark.parametrize(
    "label",
    ["", "project", "project.", ".item", "project.item.x", "nope.item", "project.x", "\x00"],
)
def test_no_model(label: str) -> None:
    """A label that is no model's is none: it may be forged."""
    assert model_of(label) is None


def test_own_table() -> None:
    """A plain model's rows are in its table; a proxy's are in the same."""
    assert tables_of(Item) == (("project_item",), ())
    assert tables_of(shapes.ItemProxy) == (("project_item",), ())


def test_parents() -> None:
    """With inheritance a row is in the parents' tables as well, under the same key."""
    keyed = ("project_pizzeria", "project_restaurant", "project_place")

    assert tables_of(shapes.Pizzeria) == (keyed, ())


def test_parent_with_its_own_key() -> None:
    """A parent whose key is not the child's is followed widely, and so are the parent's parents."""
    assert tables_of(shapes.Kiosk) == (
        ("project_kiosk", "project_tag"),
        ("project_restaurant", "project_place"),
    )
