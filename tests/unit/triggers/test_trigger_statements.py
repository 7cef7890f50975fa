"""The statements that install and remove triggers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pgobserve.triggers import compiler, registry, trigger_statements
from pgobserve.triggers.trigger_values import TableInfo
from pgobserve.wire import ALONE
from tests.project.models import Item

TABLE = TableInfo("public", "project_item")


def _registration(model: Any = Item, **changes: Any) -> registry.Registration:
    return replace(registry.build([model])[0], **changes)


def _install(**options: Any) -> list[str]:
    return list(
        trigger_statements.install_statements(_registration(), TABLE, always=False, **options)
    )


def test_always() -> None:
    """``always`` is part of what is wanted, and one more statement for each trigger."""
    wanted = compiler.wanted(_registration(), TABLE, always=True)
    plain, always = (
        list(trigger_statements.install_statements(_registration(), TABLE, always=each))
        for each in (False, True)
    )

    assert {trigger.enabled for trigger in wanted.values()} == {"A"}
    assert len(always) == len(plain) + 4
    assert sum("ENABLE ALWAYS TRIGGER" in statement for statement in always) == 4


def test_statements_in_order() -> None:
    """Another installation is waited for, then come schema, functions, triggers and comments."""
    kinds = [statement.split("(")[0].split()[0] for statement in _install()]

    assert kinds == ["DO", "DO", *["CREATE"] * 4, *["CREATE", "COMMENT"] * 4]
    assert not any("DROP" in statement for statement in _install())
    assert _install(unused=["old"])[-1] == 'DROP FUNCTION IF EXISTS pgobserve."old"() CASCADE'


def test_partitions() -> None:
    """Of a partitioned table the partitions are looked up when the statement runs."""
    table = TableInfo("public", 'odd % "name"', kind="p")
    statements = list(trigger_statements.install_statements(_registration(), table, always=False))
    loops = [statement for statement in statements if "pg_partition_tree" in statement]

    assert len(loops) == 8
    assert all("""'"public"."odd % ""name\"""'""" in statement for statement in loops)
    assert all(statement.count("%s") == 1 for statement in loops)


def test_dollar_quotes() -> None:
    """A column that looks like the end of the body does not end it."""
    registration = _registration(columns=("$pgobserve$",))
    statements = list(trigger_statements.install_statements(registration, TABLE, always=False))
    (update,) = (
        s for s in statements if s.startswith("CREATE OR REPLACE FUNCTION") and '"$pgobserve$"' in s
    )

    assert update.endswith("$pgobserve_$")
    assert update.count("$pgobserve_$") == 2


def test_uninstall() -> None:
    """All triggers and functions are dropped, then the outbox and the schema if they are unused."""
    statements = list(trigger_statements.uninstall_statements([TABLE], ["f"], ALONE))

    assert [s.split(" ON ")[0] for s in statements[1:8]] == [
        f'DROP TRIGGER IF EXISTS "{name}"' for name in ALONE.all_triggers
    ]
    assert statements[8] == 'DROP FUNCTION IF EXISTS pgobserve."f"() CASCADE'
    assert "DROP TABLE IF EXISTS pgobserve.outbox" in statements[9]
    assert "DROP SCHEMA IF EXISTS pgobserve RESTRICT" in statements[10]
