"""What the server has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import Group
from django.db import connection

from pgobserve.triggers.server import catalog
from pgobserve.wire import ALONE
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Callable


def test_relations(run: Callable[..., Any]) -> None:
    """Tables are found by quoted names, in the search_path or in the schema named."""
    run('CREATE SCHEMA "Else" CREATE VIEW "V" AS SELECT 1 AS "A b" CREATE TABLE auth_group (x int)')
    try:
        asked = ['"auth_group"', '"Else"."V"', '"Else"."auth_group"', '"nope"', '"no"."pe"']
        found = catalog.relations(connection, asked)
        run('SET search_path = "Else", public')
        first = catalog.relations(connection, ['"auth_group"'])
    finally:
        run("RESET search_path")
        run('DROP SCHEMA "Else" CASCADE')

    assert {name: (str(each), each.kind) for name, each in found.items()} == {
        '"auth_group"': ("public.auth_group", "r"),
        '"Else"."V"': ("Else.V", "v"),
        '"Else"."auth_group"': ("Else.auth_group", "r"),
    }
    assert found['"Else"."V"'].columns == {"A b"}
    assert str(first['"auth_group"']) == "Else.auth_group"


def test_columns_that_were_dropped(run: Callable[..., Any]) -> None:
    """Neither dropped columns nor PostgreSQL's own are columns."""
    run("CREATE TABLE shrunk (a int, b int)")
    run("ALTER TABLE shrunk DROP b")
    try:
        assert catalog.relations(connection, ['"shrunk"'])['"shrunk"'].columns == {"a"}
    finally:
        run("DROP TABLE shrunk")


def test_triggers_of_some_tables(install: Callable[..., Any]) -> None:
    """All of our triggers are found, or those of some tables."""
    install(Item, Group)
    tables = catalog.relations(connection, ['"project_item"', '"auth_user"'])

    assert len(catalog.triggers(connection, ALONE)) == 2
    found = catalog.triggers(connection, ALONE, [tables['"project_item"']])
    assert list(found) == [tables['"project_item"'].oid]
    assert set(found[tables['"project_item"'].oid]) == set(ALONE.triggers)
    assert catalog.triggers(connection, ALONE, [tables['"auth_user"']]) == {}


def test_functions(install: Callable[..., Any]) -> None:
    """Our functions are named once each."""
    install(Item)

    assert len(catalog.functions(catalog.triggers(connection, ALONE), ALONE)) == 4
