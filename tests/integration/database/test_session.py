"""After each piece of work a database session is what it was when it was new."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, transaction
from django.db.backends.signals import connection_created

from pgobserve.database.connection_watchdog import ConnectionWatchdog
from pgobserve.database.session import applied, held, isolate, restore, session_of
from pgobserve.database.tracked_session import SessionSettings
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.django_db(transaction=True)

STATE = """
SELECT current_user, session_user, current_setting('search_path'), current_setting('TimeZone'),
       current_setting('statement_timeout'), current_setting('default_transaction_read_only'),
       coalesce(current_setting('app.tenant', true), ''), to_regclass('pg_temp.project_item'),
       (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
       (SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM pg_cursors),
       pg_backend_pid()
"""


def run(sql: str) -> None:
    """Do what a hook does."""
    with connection.cursor() as cursor:
        cursor.execute(sql)


def state() -> tuple[Any, ...]:
    """Return all of the session that the loader must not inherit, by a statement of its own."""
    with session_of(connection), connection.cursor() as cursor:
        cursor.execute(STATE)
        found: tuple[Any, ...] = cursor.fetchone()
        return found


@pytest.fixture(autouse=True)
def role() -> Iterator[None]:
    """Have a role to become, and a new connection."""
    run("CREATE ROLE session_joe")
    connection.close()
    yield
    connection.close()
    run("DROP ROLE session_joe")
    connection.close()


def atomic() -> None:
    """Leave a block open, as a hook does that never leaves its context manager."""
    transaction.atomic().__enter__()
    run("SAVEPOINT mine")


CHANGES: dict[str, Callable[[], object]] = {
    "role": lambda: run("SET ROLE session_joe"),
    "session authorization": lambda: run("SET SESSION AUTHORIZATION session_joe"),
    "search path": lambda: run("SET search_path = pg_temp, public"),
    "time zone": lambda: run("SET TimeZone = 'Asia/Tokyo'"),
    "time-out": lambda: run("SET statement_timeout = '7s'"),
    "characteristics": lambda: run("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"),
    "a project's setting": lambda: run("SELECT set_config('app.tenant', '7', false)"),
    "past Django": lambda: connection.connection.execute("SET app.tenant = '7'"),
    "in a query": lambda: Item.objects.extra(
        select={"x": "set_config('app.tenant', '7', false)"}
    ).first(),
    "temporary table": lambda: run("CREATE TEMP TABLE project_item (id int)"),
    "advisory lock": lambda: run("SELECT pg_advisory_lock(7)"),
    "listening": lambda: run("LISTEN something"),
    "cursor": lambda: run("DECLARE c CURSOR WITH HOLD FOR SELECT 1"),
}

OPEN: dict[str, Callable[[], object]] = {
    "transaction": lambda: run("BEGIN ISOLATION LEVEL REPEATABLE READ"),
    "atomic": atomic,
    "failed transaction": lambda: connection.connection.execute("BEGIN; SELECT 1/0"),
    "autocommit": lambda: connection.set_autocommit(False),
    "isolation": lambda: connection.connection.set_isolation_level(2),
    "read only": lambda: connection.connection.set_read_only(True),
}


@pytest.mark.parametrize("what", CHANGES)
def test_changes_are_undone(what: str) -> None:
    """Whatever a hook set, made or took is gone; the connection stays."""
    Item.objects.create(name="one")
    before = state()

    ConnectionWatchdog("default").run(CHANGES[what])

    assert state() == before


@pytest.mark.parametrize("what", OPEN)
def test_what_is_open_ends(what: str) -> None:
    """A transaction that a hook left open ends, with its connection."""
    before = state()

    def hook() -> None:
        with suppress(Exception):
            OPEN[what]()

    ConnectionWatchdog("default").run(hook)

    assert not connection.in_atomic_block
    assert state()[:-1] == before[:-1]
    assert connection.get_autocommit()
    assert not connection.connection.read_only


def test_a_connection_made_by_a_hook() -> None:
    """A hook may be the first to use a connection, or make another one."""

    def hook() -> None:
        connection.close()
        run("SET app.tenant = '7'")

    ConnectionWatchdog("default").run(hook)

    assert state()[6] == ""


def test_what_the_project_sets_up_stays() -> None:
    """What a project does with each new connection holds again after a reset."""

    def set_up(connection: Any, **kwargs: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET app.tenant = 'usual'")

    connection_created.connect(set_up)
    try:
        assert state()[6] == "usual"
        ConnectionWatchdog("default").run(lambda: run("SET app.tenant = '7'"))
        assert state()[6] == "usual"
    finally:
        connection_created.disconnect(set_up)


def test_own_statements_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is reset while only the loader's own statements run."""
    monkeypatch.setattr("pgobserve.database.session._reset", lambda *_: pytest.fail("reset"))

    ConnectionWatchdog("default").run(state)


def test_between_two_hooks() -> None:
    """A query of the ORM is left alone between two hooks; what may have changed the session is not."""
    before = state()
    session = session_of(connection)

    Item.objects.filter(name="one").first()
    assert not session.changed

    run("SET app.tenant = '7'")
    isolate(connection)
    assert state() == before


def test_settings_hold_within() -> None:
    """Settings hold for what runs within, whatever hooks do to them, and are undone afterwards."""
    before = state()
    settings = SessionSettings.of(
        {"role": "session_joe", "app.tenant": 7, "search_path": "pg_temp, public"}
    )

    with applied(connection, settings):
        during = state()
        run("SET app.tenant = '8'")
        isolate(connection)
        again = state()

    assert (during[0], during[2], during[6]) == ("session_joe", "pg_temp, public", "7")
    assert again == during
    assert state() == before


def test_settings_behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each transaction may have another session, settings are those of one transaction."""
    monkeypatch.setitem(connection.settings_dict, "DISABLE_SERVER_SIDE_CURSORS", True)
    before = state()

    with applied(connection, SessionSettings.of({"app.tenant": "7"})):
        assert connection.in_atomic_block
        assert state()[6] == "7"

    assert not connection.in_atomic_block
    assert state() == before


def test_settings_are_undone_after_an_error() -> None:
    """What fails within leaves nothing behind."""
    before = state()

    with (
        pytest.raises(ZeroDivisionError),
        applied(connection, SessionSettings.of({"app.tenant": "7"})),
    ):
        raise ZeroDivisionError

    assert state() == before


def test_a_change_is_held() -> None:
    """What hooks change for the rows that are read next stays until those are read."""
    before = state()
    session_of(connection)
    run("SET app.tenant = '7'")

    with held():
        isolate(connection)
        assert state()[6] == "7"

    assert state() == before


def test_restoring_twice() -> None:
    """What was restored is not touched again."""
    session_of(connection)
    run("SET app.tenant = '7'")
    restore(connection)

    assert not session_of(connection).touched
