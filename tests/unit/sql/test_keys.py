"""From the keys of clients to texts for PostgreSQL, and back to what frames show."""

from __future__ import annotations

import datetime
import json
import uuid
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from pgobserve.sql.keys import arrays, as_json, identity, identity_for, key_fields, key_of, shown
from tests.project import keys as more
from tests.project import shapes
from tests.project.models import Item

if TYPE_CHECKING:
    from pgobserve.sql.keys import Model

UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")

MODELS: list[Model] = [
    *(Item, more.TinyKey, more.ItemKey, more.FloatKey, more.AddressKey),
    *(shapes.SmallKey, shapes.UuidKey, shapes.TextKey, shapes.DateKey, shapes.MomentKey),
    *(shapes.TimeKey, shapes.AmountKey, shapes.PairKey, shapes.Pizzeria),
]


@pytest.mark.parametrize(
    ("model", "given", "text"),
    [
        (Item, 7, "7"),
        (Item, "7", "7"),
        (Item, " -7 ", "-7"),
        (Item, 7.0, "7"),
        (Item, 2**63 - 1, str(2**63 - 1)),
        (Item, 2**70, str(2**70)),
        (more.ItemKey, "7", "7"),
        (shapes.Pizzeria, "7", "7"),
        (shapes.UuidKey, str(UUID), str(UUID)),
        (shapes.UuidKey, UUID.hex.upper(), str(UUID)),
        (shapes.TextKey, "", ""),
        (shapes.TextKey, "\U0001f600é\"\\' %s \n", "\U0001f600é\"\\' %s \n"),
        (shapes.DateKey, "2024-02-29", "2024-02-29"),
        (shapes.DateKey, datetime.date(2024, 2, 29), "2024-02-29"),
        (shapes.MomentKey, "2024-07-01T14:00:00+02:00", "2024-07-01 14:00:00+02:00"),
        (shapes.AmountKey, "1.5", "1.5"),
        (shapes.PairKey, ["a", 1], '["a", "1"]'),
    ],
)
def test_identity_for(model: Model, given: Any, text: str) -> None:
    """A key has the text that it would have as a parameter of the ORM's query."""
    assert identity_for(model, given, connection) == text


@pytest.mark.parametrize(
    ("model", "given"),
    [
        *((model, None) for model in MODELS),
        *((model, {}) for model in MODELS),
        *((model, []) for model in MODELS),
        (Item, True),
        (Item, ""),
        (Item, "x"),
        (Item, "1.5"),
        (Item, 1.5),
        (Item, float("inf")),
        (Item, float("nan")),
        (Item, "9" * 5000),
        (Item, [1]),
        (shapes.UuidKey, "x"),
        (shapes.TextKey, "a\x00b"),
        (shapes.TextKey, "\ud800"),
        (shapes.DateKey, "2024-02-30"),
        (shapes.DateKey, 1),
        (shapes.MomentKey, "2024-01-01T25:00:00Z"),
        (shapes.TimeKey, "24:00:01"),
        (shapes.AmountKey, "x"),
        (shapes.PairKey, ["a"]),
        (shapes.PairKey, ["a", 1, 2]),
        (shapes.PairKey, ["a", None]),
        (shapes.PairKey, ["a", ["b"]]),
        (shapes.PairKey, "a1"),
    ],
)
def test_no_key(model: Model, given: Any) -> None:
    """What the ORM can't make a parameter of is a ValueError."""
    with pytest.raises(ValueError, match=r"."):
        identity_for(model, given, connection)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.decimals()
    | st.text(st.characters())
    | st.from_regex(r"\A[-+0-9eET:. naif]{0,30}\Z")
)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.filterwarnings("ignore:.*received a naive datetime")
@given(given=SCALARS | st.lists(SCALARS, min_size=2, max_size=2))
def test_raises_nothing_else(model: Model, given: Any) -> None:
    """Any value has a text that PostgreSQL can receive, or is a ValueError."""
    with suppress(ValueError):
        text = identity_for(model, given, connection)
        assert "\0" not in text
        text.encode()


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=3))
def test_composite(texts: list[str]) -> None:
    """The identity of a composite key contains the texts of its columns."""
    assert arrays([identity(texts)], len(texts)) == [[text] for text in texts]


@pytest.mark.parametrize("text", ["", "x", "{}", '["1"]', '["1", "2", "3"]'])
def test_no_composite(text: str) -> None:
    """Any other text is none."""
    with pytest.raises(ValueError, match=r"."):
        arrays([text], 2)


def test_key_of() -> None:
    """An instance has the same identity, whether it was loaded or built."""
    assert key_of(shapes.UuidKey(id=str(UUID)), connection) == str(UUID)
    assert key_of(shapes.PairKey(left="a", right=1), connection) == '["a", "1"]'
    assert key_of(more.ItemKey(item_id="7"), connection) == "7"


def test_key_fields() -> None:
    """The primary key's fields are one, those of a composite key, or a parent's link."""
    assert [f.attname for f in key_fields(Item)] == ["id"]
    assert [f.attname for f in key_fields(shapes.PairKey)] == ["left", "right"]
    assert [f.attname for f in key_fields(shapes.Pizzeria)] == ["restaurant_ptr_id"]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (7, 7),
        ("a", "a"),
        (1.5, 1.5),
        (float("inf"), "inf"),
        (UUID, str(UUID)),
        (Decimal("1.50"), "1.50"),
        (b"\x01\xff", "\\x01ff"),
        ([1, None], [1, None]),
        (datetime.date(2024, 2, 29), "2024-02-29"),
        (("a", UUID), ["a", str(UUID)]),
    ],
)
def test_as_json(key: Any, expected: Any) -> None:
    """A frame shows a key as JSON has it, else as text."""
    assert as_json(key) == expected
    assert json.loads(json.dumps(as_json(key))) == expected


def test_shown_before_its_table_is_read() -> None:
    """The key of a table whose columns are not known is shown as its text."""
    assert shown(shapes.SmallKey, "7", "no alias") == "7"
    assert shown(shapes.SmallKey, None, "no alias") is None
