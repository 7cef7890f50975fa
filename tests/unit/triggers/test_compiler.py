"""From a registration to the triggers that its table should have."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from pgobserve.triggers import compiler, registry
from pgobserve.triggers.trigger_values import ColumnInfo, TableInfo
from pgobserve.wire import ALONE, TRANSPORTS, Operation
from tests.project import shapes
from tests.project.models import Item

TABLE = TableInfo("public", "project_item")
ELSEWHERE = TableInfo("tenant", "project_item")
#: Its images name the columns, and obey all settings.
TYPED = replace(
    TABLE,
    types=(
        ColumnInfo("left", frozenset({"money", "regclass", "other"})),
        ColumnInfo("facts", frozenset({"json"})),
        ColumnInfo("sum", is_virtual=True),
    ),
)


def _registration(model: Any = Item, **changes: Any) -> registry.Registration:
    return replace(registry.build([model])[0], **changes)


def test_wanted() -> None:
    """There are four triggers, with the transition tables that their events have."""
    wanted = compiler.wanted(_registration(), TABLE, always=False)

    assert {name: (t.type, t.old_table, t.new_table) for name, t in wanted.items()} == {
        "pgobserve_i": (4, None, "pgobserve_new"),
        "pgobserve_u": (16, "pgobserve_old", "pgobserve_new"),
        "pgobserve_d": (8, "pgobserve_old", None),
        "pgobserve_t": (32, None, None),
    }


@pytest.mark.parametrize("options", [{"columns": ("left", "sum")}, {"routes": ("sum",)}])
def test_virtual_column(options: dict[str, Any]) -> None:
    """Of a virtual column the trigger sees nothing, so it compares all columns, and names no value of it."""
    (_, update, *_) = compiler.wanted(_registration(**options), TYPED, always=False).values()

    assert "n.* OPERATOR(pg_catalog.*<>) o.*" in update.source
    assert '"sum"' not in update.source


@pytest.mark.parametrize("operation", list(Operation))
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("routes", [(), ("name", "right")])
@pytest.mark.parametrize("table", [TABLE, ELSEWHERE, TYPED])
def test_names_are_qualified(
    operation: Operation, transport: str, routes: tuple[str, ...], table: TableInfo
) -> None:
    """No function, type or operator is left to the writer's search_path."""
    registration = _registration(
        shapes.PairKey, columns=("left",), transport=transport, routes=routes
    )
    wanted = compiler.wanted(registration, table, always=False)
    two = (ALONE.trigger(operation), ALONE.writer(operation))
    body = "\n".join(wanted[name].source for name in two if name in wanted)
    code = re.sub(r"--.*|E?'(?:[^']|'')*'", "", body)
    called = set(re.findall(r"([\w.]+)\(", code))

    assert all(
        name.startswith(("pg_catalog.", "pgobserve."))
        for name in called
        - {"coalesce", "GREATEST", "ROW", "AND", "p", "u", "k", "r"}
        - _keywords()
    )
    assert re.findall(r"::(?!pg_catalog\.)", code) == []
    assert (
        re.findall(
            r"(?<!pg_catalog\.)[=<>+/|]|(?<![\w.(*-])-(?!-)",
            re.sub(r":=|HINT =|OPERATOR\(pg_catalog\.[^)]*\)", "", code),
        )
        == []
    )


def _keywords() -> set[str]:
    return {"FROM", "OPERATOR", "OVER", "IN", "AS", "NOT", "EXISTS", "LATERAL", "types", "c"}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_partitions_name_no_schema(transport: str) -> None:
    """Partitions may be in another schema than their table, so its payloads name none."""
    partitioned = replace(ELSEWHERE, kind="p")
    here, there, elsewhere = (
        [t.source for t in compiler.wanted(registration, each, always=False).values()]
        for registration in [_registration(transport=transport)]
        for each in (TABLE, partitioned, ELSEWHERE)
    )

    assert here == there
    assert sum(a != b for a, b in zip(here, elsewhere, strict=True)) == 4
