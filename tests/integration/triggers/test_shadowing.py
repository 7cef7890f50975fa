"""Commands run no operator of a role that may create in ``public``, and leave the path as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.core import checks
from django.db import DatabaseError, connection, transaction

from pgobserve.testing import capture_changes
from pgobserve.triggers import muting
from pgobserve.triggers.server import catalog, pinned_search_path
from pgobserve.wire import TRANSPORTS
from tests.integration.shadowing import ran, shadowed
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest, settings: Any) -> str:
    """How changes travel."""
    settings.PGOBSERVE = {"MODELS": ["project.Item"], "TRANSPORT": request.param}
    return str(request.param)


@pytest.fixture
def shadows(transactional_db: None, transport: str) -> Iterator[None]:
    """Operators of another role's."""
    yield from shadowed()


def path() -> str:
    """Return the path of Django's session."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_catalog.current_setting('search_path')")
        (found,) = cursor.fetchone()
    return str(found)


@pytest.fixture
def odd(transactional_db: None) -> Iterator[str]:
    """Return the path that the session has, another one than at first."""
    with connection.cursor() as cursor:
        cursor.execute('SET search_path = "$user", public, pg_temp')
    yield '"$user", public, pg_temp'
    connection.close()


@pytest.mark.usefixtures("shadows")
def test_commands(command: Callable[..., tuple[int, str, str]], run: Callable[..., Any]) -> None:
    """No command runs them, before or after an installation; a query of mixed types does."""
    run("SELECT count(*) FROM pg_catalog.pg_class c WHERE c.oid = 'pg_class'::regclass")
    assert [what for _, what in ran()] == ["oid and regclass to bool"]

    for arguments in (
        ("status",),
        ("install",),
        ("install",),
        ("status",),
        ("doctor",),
        ("prune",),
        ("sql",),
        ("why", "project.Item"),
        ("uninstall", "--all"),
    ):
        command(*arguments)

        assert ran() == [], arguments


@pytest.mark.usefixtures("shadows", "clean")
def test_in_process(install: Callable[..., Any]) -> None:
    """Nor does the system check, a muted block, or a test that captures changes."""
    install(Item)
    checks.run_checks(databases=["default"])
    with muting.muted(Item):
        Item.objects.create(name="a")
    with capture_changes(Item) as changes:
        Item.objects.create(name="b")

    assert len(changes) == 1
    assert ran() == []


def test_path_of_commands(odd: str, command: Callable[..., tuple[int, str, str]]) -> None:
    """The session has its path after each command."""
    for arguments in (("install",), ("status",), ("doctor",), ("uninstall", "--all")):
        command(*arguments)

        assert path() == odd, arguments


@pytest.mark.usefixtures("clean")
def test_path_of_queries(odd: str) -> None:
    """A query has the pinned path, and what follows it in the transaction has the one before."""
    query = "SELECT pg_catalog.current_setting('search_path')"
    with transaction.atomic():
        assert pinned_search_path.fetch(connection, query) == [("pg_catalog, pg_temp",)]
        assert path() == odd
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL search_path = project")
        catalog.relations(connection, ['"public"."project_item"'])
        assert path() == "project"
    assert path() == odd
    assert pinned_search_path.fetch(connection, query) == [("pg_catalog, pg_temp",)]
    assert path() == odd


@pytest.mark.usefixtures("clean")
def test_path_after_errors(odd: str) -> None:
    """An error restores the path, in a transaction, in a savepoint, and without either."""
    with pytest.raises(DatabaseError):
        pinned_search_path.fetch(connection, "SELECT 1 / 0")
    assert path() == odd
    with transaction.atomic():
        with pytest.raises(DatabaseError), transaction.atomic():
            pinned_search_path.fetch(connection, "SELECT 1 / 0")
        assert path() == odd
        with pytest.raises(DatabaseError):
            pinned_search_path.fetch(connection, "SELECT %s", [])
        assert path() == odd
    assert path() == odd


@pytest.mark.usefixtures("clean")
def test_path_without_django(odd: str, run: Callable[..., Any]) -> None:
    """A transaction that Django does not know of goes on."""
    run("BEGIN")
    found = pinned_search_path.fetch(connection, "SELECT pg_catalog.current_setting('search_path')")

    assert found == [("pg_catalog, pg_temp",)]
    assert path() == odd
    run("ROLLBACK")
