"""From registrations to SQL."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from pgobserve.triggers import compiler, registry
from pgobserve.triggers.trigger_values import TableInfo
from pgobserve.wire import ALONE, TRANSPORTS, Operation
from tests.project import shapes
from tests.project.models import Item

TABLE = TableInfo("public", "project_item")
ELSEWHERE = TableInfo("tenant", "project_item")


def _registration(model: Any = Item, **changes: Any) -> registry.Registration:
    return replace(registry.build([model])[0], **changes)


def _install(**options: Any) -> list[str]:
    return list(compiler.install_statements(_registration(), TABLE, always=False, **options))


def test_wanted() -> None:
    """There are four triggers, with the transition tables that their events have."""
    wanted = compiler.wanted(_registration(), TABLE, always=False)

    assert {name: (t.type, t.old_table, t.new_table) for name, t in wanted.items()} == {
        "pgobserve_i": (4, None, "pgobserve_new"),
        "pgobserve_u": (16, "pgobserve_old", "pgobserve_new"),
        "pgobserve_d": (8, "pgobserve_old", None),
        "pgobserve_t": (32, None, None),
    }


def test_always() -> None:
    """``always`` is part of what is wanted, and one more statement for each trigger."""
    wanted = compiler.wanted(_registration(), TABLE, always=True)
    plain, always = (
        list(compiler.install_statements(_registration(), TABLE, always=each))
        for each in (False, True)
    )

    assert {trigger.enabled for trigger in wanted.values()} == {"A"}
    assert len(always) == len(plain) + 4
    assert sum("ENABLE ALWAYS TRIGGER" in statement for statement in always) == 4


@pytest.mark.parametrize("operation", list(Operation))
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("routes", [(), ("name", "right")])
@pytest.mark.parametrize("table", [TABLE, ELSEWHERE])
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


@pytest.mark.parametrize("routes", [(), ("name",)])
def test_no_inner_join(routes: tuple[str, ...]) -> None:
    """The update's two transition tables are joined in the one way that no cached plan can ruin."""
    body = compiler.body(_registration(routes=routes), Operation.UPDATE, TABLE)

    assert "FULL JOIN" in body
    assert "INNER JOIN" not in body
    assert "IS DISTINCT FROM" not in body


def test_one_row() -> None:
    """An update of one row is read first, without a join of many; the key must be the same."""
    registration = _registration(shapes.PairKey, transport="outbox")
    body = compiler.body(registration, Operation.UPDATE, TABLE)
    first, _, rest = body.partition("IF images IS NULL")

    assert "FULL JOIN" not in first
    assert "json_agg" not in first
    assert '"o"."left" OPERATOR(pg_catalog.=) "n"."left" AND "o"."right"' in first
    for table in ("old", "new"):
        assert f"NOT EXISTS (SELECT FROM pgobserve_{table} OFFSET 1)" in first
    assert "FULL JOIN" in rest


def test_composite_key() -> None:
    """All parts of a composite key are joined on and told."""
    body = compiler.body(_registration(shapes.PairKey), Operation.UPDATE, TABLE)

    assert (
        'json_build_array(coalesce("n"."left", "o"."left"), coalesce("n"."right", "o"."right"))'
        in body
    )
    assert '"o"."left" OPERATOR(pg_catalog.=) "n"."left" AND "o"."right"' in body


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
    assert f"IS NULL OR {condition} LIMIT" in compiler.body(
        _registration(columns=columns), Operation.UPDATE, TABLE
    )


def test_payload_leaves_room() -> None:
    """Header, the longest transaction id and the keys together never exceed the limit."""
    body = compiler.body(_registration(), Operation.INSERT, TABLE)
    (head,) = re.findall(r"concat\('(\{[^']*)'", body)
    (room,) = set(re.findall(r"ELSIF .*<=\) (\d+) THEN", body))

    assert head == '{"v":1,"t":"project.item","o":"I","x":"'
    assert len(head) + 20 + len('","k":[]}') + int(room) == 7999


@pytest.mark.parametrize("routes", [(), ("name",)])
def test_schema_leaves_room(routes: tuple[str, ...]) -> None:
    """The longest name of a schema is counted with a header that names it, as JSON escapes it."""
    here, elsewhere = (
        compiler.body(_registration(routes=routes), Operation.INSERT, each)
        for each in (TABLE, ELSEWHERE)
    )
    rooms = [
        int(re.findall(r"\((\d+) OPERATOR\(pg_catalog.-\) longest", body)[0])
        for body in (here, elsewhere)
    ]

    assert "TG_TABLE_SCHEMA::" not in here
    assert rooms[0] - rooms[1] == len(',"s":' + json.dumps("\1" * 63))


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


def test_statements_in_order() -> None:
    """Another installation is waited for, then come schema, functions, triggers and comments."""
    kinds = [statement.split("(")[0].split()[0] for statement in _install()]

    assert kinds == ["DO", "DO", *["CREATE"] * 4, *["CREATE", "COMMENT"] * 4]
    assert not any("DROP" in statement for statement in _install())
    assert _install(unused=["old"])[-1] == 'DROP FUNCTION IF EXISTS pgobserve."old"() CASCADE'


def test_partitions() -> None:
    """Of a partitioned table the partitions are looked up when the statement runs."""
    table = TableInfo("public", 'odd % "name"', kind="p")
    statements = list(compiler.install_statements(_registration(), table, always=False))
    loops = [statement for statement in statements if "pg_partition_tree" in statement]

    assert len(loops) == 8
    assert all("""'"public"."odd % ""name\"""'""" in statement for statement in loops)
    assert all(statement.count("%s") == 1 for statement in loops)


def test_dollar_quotes() -> None:
    """A column that looks like the end of the body does not end it."""
    registration = _registration(columns=("$pgobserve$",))
    statements = list(compiler.install_statements(registration, TABLE, always=False))
    (update,) = (
        s for s in statements if s.startswith("CREATE OR REPLACE FUNCTION") and '"$pgobserve$"' in s
    )

    assert update.endswith("$pgobserve_$")
    assert update.count("$pgobserve_$") == 2


def test_uninstall() -> None:
    """All triggers and functions are named, then the outbox and the schema go if nobody uses them."""
    statements = list(compiler.uninstall_statements([TABLE], ["f"], ALONE))

    assert [s.split(" ON ")[0] for s in statements[1:8]] == [
        f'DROP TRIGGER IF EXISTS "{name}"' for name in ALONE.all_triggers
    ]
    assert statements[8] == 'DROP FUNCTION IF EXISTS pgobserve."f"() CASCADE'
    assert "DROP TABLE IF EXISTS pgobserve.outbox" in statements[9]
    assert "DROP SCHEMA IF EXISTS pgobserve RESTRICT" in statements[10]
