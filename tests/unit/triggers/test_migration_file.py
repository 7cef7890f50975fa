"""The text of a migration."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from django.db.migrations import RunSQL

from pgobserve.triggers import compiler, migration_file, registry, trigger_statements
from pgobserve.triggers.trigger_values import TableInfo
from pgobserve.wire import ALONE
from tests.project.models import Item
from tests.project.shapes import MixedCase


@pytest.mark.parametrize("model", [Item, MixedCase])
def test_migration_holds_the_statements(model: Any) -> None:
    """The migration is Python that holds the statements, letter for letter."""
    (registration,) = registry.build([model])
    table = TableInfo("odd \\ {schema}", 'ta"""ble', kind="p")
    text = migration_file.write("shop", [("shop", "0001_initial")], [(registration, table, True)])
    namespace: dict[str, Any] = {}
    exec(compile(text, "0002", "exec"), namespace)
    made = namespace["Migration"]

    assert made.dependencies == [("shop", "0001_initial")]
    (operation,) = made.operations
    assert isinstance(operation, RunSQL)
    assert operation.sql == [
        *trigger_statements.install_statements(registration, table, always=True),
        *trigger_statements.announcements(registration),
    ]
    wanted = compiler.wanted(registration, table, always=True)
    functions = [trigger.function for trigger in wanted.values()]
    assert operation.reverse_sql == list(
        trigger_statements.uninstall_statements([table], functions, ALONE)
    )


@pytest.mark.parametrize(
    "statement",
    [
        "plain",
        "it's",
        'ends with "',
        "back\\slash",
        'three """ quotes',
        "ends with \\",
        "a\r\nb",
        "a\nb",
        "\\N{DASH}",
    ],
)
def test_literal(statement: str) -> None:
    """Any statement becomes a literal that means it."""
    assert ast.literal_eval(migration_file._literal(statement)) == statement
