"""Whether a table has its triggers, asked of the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command
from django.db import connection, models

from pgobserve.sql.installed import triggers_of
from pgobserve.triggers import installer, registry
from pgobserve.wire import ALONE
from tests.project import shapes
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TABLE = "project_item"


@pytest.fixture
def clean(transactional_db: None) -> Iterator[Callable[[str], Any]]:
    """Return a function that runs SQL; the triggers are gone afterwards."""

    def run(statement: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement)

    yield run
    run("DROP SCHEMA IF EXISTS pgobserve CASCADE")


def install(*made: type[models.Model]) -> None:
    """Install the triggers of models."""
    for each in registry.build(made, {}):
        installer.install(each, using="default")


@pytest.mark.usefixtures("clean")
def test_absent() -> None:
    """A table without triggers is not observed; nor is one that is not there."""
    assert not triggers_of(TABLE, connection, namespace=ALONE)
    assert not triggers_of("no_such_table", connection, namespace=ALONE)


@pytest.mark.usefixtures("clean")
def test_installed() -> None:
    """An installed table is observed, and its neighbour is not."""
    install(Item)

    assert triggers_of(TABLE, connection, namespace=ALONE)
    assert not triggers_of("auth_user", connection, namespace=ALONE)


@pytest.mark.parametrize("name", ALONE.triggers)
def test_one_missing(clean: Callable[[str], Any], name: str) -> None:
    """If any one of the triggers is missing, the table is not observed."""
    install(Item)
    clean(f"DROP TRIGGER {name} ON {TABLE}")

    assert not triggers_of(TABLE, connection, namespace=ALONE)


@pytest.mark.parametrize(
    ("state", "observed"),
    [("DISABLE", False), ("ENABLE REPLICA", False), ("ENABLE ALWAYS", True), ("ENABLE", True)],
)
@pytest.mark.parametrize("name", ALONE.triggers)
def test_disabled(clean: Callable[[str], Any], name: str, state: str, observed: bool) -> None:
    """A trigger that does not fire for us counts as missing."""
    install(Item)
    clean(f"ALTER TABLE {TABLE} DISABLE TRIGGER {name}")
    clean(f"ALTER TABLE {TABLE} {state} TRIGGER {name}")

    assert bool(triggers_of(TABLE, connection, namespace=ALONE)) is observed


def test_uninstalled(clean: Callable[[str], Any]) -> None:
    """After uninstall it is not observed."""
    install(Item)
    call_command("pgobserve", "uninstall", "project.Item", verbosity=0)

    assert not triggers_of(TABLE, connection, namespace=ALONE)


@pytest.mark.parametrize("model", [shapes.MixedCase, shapes.Quoted, shapes.LongName])
@pytest.mark.usefixtures("clean")
def test_names(model: type[models.Model]) -> None:
    """Names are quoted as Django quotes them."""
    with connection.schema_editor() as editor:
        editor.create_model(model)
    try:
        assert not triggers_of(model._meta.db_table, connection, namespace=ALONE)
        install(model)
        assert triggers_of(model._meta.db_table, connection, namespace=ALONE)
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(model)


def test_other_schema(clean: Callable[[str], Any]) -> None:
    """A table of another schema is found by its name there, not by its namesake's."""
    clean("CREATE SCHEMA elsewhere")
    try:
        clean("CREATE TABLE elsewhere.thing (id bigint PRIMARY KEY, name text NOT NULL)")
        clean("CREATE TABLE elsewhere.project_item (id bigint PRIMARY KEY)")
        install(shapes.Elsewhere, Item)

        assert triggers_of(shapes.Elsewhere._meta.db_table, connection, namespace=ALONE)
        assert not triggers_of('"elsewhere"."project_item"', connection, namespace=ALONE)
        assert not triggers_of("thing", connection, namespace=ALONE)
    finally:
        clean("DROP SCHEMA elsewhere CASCADE")


@pytest.mark.parametrize("name", ["a.b.c.d", "%s", "x'; DROP TABLE project_item; --"])
@pytest.mark.usefixtures("clean")
def test_odd_names(name: str) -> None:
    """A name that no table has is not observed, and never run."""
    assert not triggers_of(name, connection, namespace=ALONE)
    assert not Item.objects.exists()
