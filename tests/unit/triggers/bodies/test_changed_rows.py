"""Which rows count as changed, and how their keys are read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pgobserve.triggers import registry
from pgobserve.triggers.bodies import trigger_body
from pgobserve.triggers.trigger_values import TableInfo
from pgobserve.wire import Operation
from tests.project import shapes
from tests.project.models import Item

TABLE = TableInfo("public", "project_item")


def _registration(model: Any = Item, **changes: Any) -> registry.Registration:
    return replace(registry.build([model])[0], **changes)


@pytest.mark.parametrize("routes", [(), ("name",)])
def test_no_inner_join(routes: tuple[str, ...]) -> None:
    """The update's two transition tables are joined in the one way that no cached plan can ruin."""
    body = trigger_body.first_body(_registration(routes=routes), Operation.UPDATE, TABLE)

    assert "FULL JOIN" in body
    assert "INNER JOIN" not in body
    assert "IS DISTINCT FROM o" not in body


def test_one_row() -> None:
    """An update of one row is read first, without a join of many; the key must be the same."""
    registration = _registration(shapes.PairKey, transport="outbox")
    body = trigger_body.first_body(registration, Operation.UPDATE, TABLE)
    first, _, rest = body.partition("IF images IS NULL")

    assert "FULL JOIN" not in first
    assert "json_agg" not in first
    assert '"o"."right" OPERATOR(pg_catalog.=) "n"."right"' in first
    for table in ("old", "new"):
        assert f"NOT EXISTS (SELECT FROM pgobserve_{table} OFFSET 1)" in first
    assert "FULL JOIN" in rest


def test_composite_key() -> None:
    """All parts of a composite key are joined on and sent."""
    body = trigger_body.first_body(_registration(shapes.PairKey), Operation.UPDATE, TABLE)

    new, old = (
        f'CASE WHEN "{alias}"."left" IS DISTINCT FROM NULL THEN '
        f'pg_catalog.concat("{alias}"."left") COLLATE pg_catalog."C" END'
        for alias in "no"
    )
    assert f'json_build_array(coalesce({new}, {old}), coalesce("n"."right", "o"."right"))' in body
    assert f'{old} OPERATOR(pg_catalog.=) {new} AND "o"."right"' in body


@pytest.mark.parametrize(
    ("columns", "condition"),
    [
        (None, "n.* OPERATOR(pg_catalog.*<>) o.*"),
        ((), "false"),
        (
            ("name", "Ra nk"),
            'ROW("n"."name", "n"."Ra nk")::pg_catalog.record OPERATOR(pg_catalog.*<>) {}'.format(
                'ROW("o"."name", "o"."Ra nk")::pg_catalog.record'
            ),
        ),
    ],
)
def test_columns(columns: tuple[str, ...] | None, condition: str) -> None:
    """``columns`` decides what counts as a change."""
    assert f"IS NULL OR {condition} LIMIT" in trigger_body.first_body(
        _registration(columns=columns), Operation.UPDATE, TABLE
    )
