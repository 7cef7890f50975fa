"""Statements of the loader end at a limit, and by a cancel request."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.db import OperationalError, connection, connections

from pgobserve.database import statement_limits
from pgobserve.database.connection_watchdog import ConnectionWatchdog, Unreachable
from pgobserve.database.statement_limits import cut, limit
from pgobserve.hub.hub import Hub
from pgobserve.load.loader import Loader
from tests.integration.conftest import parameters
from tests.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Writer

#: What the tests look for.
SLOW = "SELECT pg_sleep(600) AS slow"


class Server:
    """What the server works on."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def works(self) -> bool:
        query = "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query = %s"
        return bool(self._writer.rows(query, SLOW))

    async def until(self, works: bool) -> None:
        async with asyncio.timeout(60):
            while self.works() is not works:  # noqa: ASYNC110 (nothing tells)
                await asyncio.sleep(0.01)


@pytest.fixture
def server(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, which by itself does not notice that a client has gone."""
    monkeypatch.setattr(statement_limits, "_PRESENCE", "")
    return Server(writer)


def slow() -> None:
    with connections["default"].cursor() as cursor:
        cursor.execute(SLOW)


@pytest.fixture
def upkeep() -> Iterator[ConnectionWatchdog]:
    """An upkeep in whose thread such a query runs until it is ended."""
    upkeep = ConnectionWatchdog("default")
    errors: list[Exception] = []

    def work() -> None:
        try:
            upkeep.run(slow)
        except Unreachable as error:
            errors.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    yield upkeep
    thread.join(60)
    assert not thread.is_alive()
    assert errors


async def test_end_cancels(server: Server, upkeep: ConnectionWatchdog) -> None:
    """When a loader ends the server works on none of its queries."""
    await server.until(works=True)
    upkeep.end()
    await server.until(works=False)


async def test_old_libpq(server: Server, upkeep: ConnectionWatchdog) -> None:
    """So it is with a libpq that can cancel queries in one way only."""
    await server.until(works=True)

    def unknown(*_: Any) -> None:
        raise psycopg.NotSupportedError

    (work,) = upkeep._working.values()
    raw: Any = work.connection.connection
    pgconn = SimpleNamespace(cancel_conn=unknown, get_cancel=raw.pgconn.get_cancel)
    cut(SimpleNamespace(pgconn=pgconn, fileno=raw.fileno))
    await server.until(works=False)


async def test_cancelled_call(server: Server) -> None:
    """A query that a cancelled task waited for is cancelled; the loader goes on."""
    loader = Loader("default", Hub(), Rows(lambda _: []), 1)
    call = asyncio.create_task(loader.call(slow))
    await server.until(works=True)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await server.until(works=False)
    async with asyncio.timeout(60):
        assert await loader.call(lambda: 1) == 1
        running = asyncio.create_task(loader.run())
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


KILLED = f"""
import django
django.setup()
from django.db import connections
from pgobserve.database.connection_watchdog import ConnectionWatchdog
ConnectionWatchdog("default").run(lambda: connections["default"].cursor().execute({SLOW!r}))
"""


async def test_process_that_is_killed(writer: Writer) -> None:
    """The server notices a process that was killed, and ends its query."""
    environ = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.project.settings",
        "PGOBSERVE_TEST_DATABASE": parameters()["dbname"],
    }
    server = Server(writer)
    command = [sys.executable, "-c", KILLED]
    with subprocess.Popen(command, env=environ) as process:  # noqa: ASYNC220 (it takes no time)
        await server.until(works=True)
        process.send_signal(signal.SIGKILL)
    await server.until(works=False)


def test_hooks_can_not_end_that(transactional_db: None) -> None:
    """What a hook does to the setting for it ends with the hook's work."""

    def interval(text: str) -> object:
        with connections["default"].cursor() as cursor:
            cursor.execute(text)
            return cursor.fetchone() if cursor.description else None

    show = "SHOW client_connection_check_interval"
    connections["default"].close()
    try:
        upkeep = ConnectionWatchdog("default")
        assert upkeep.run(lambda: interval(show)) == ("1s",)
        upkeep.run(lambda: interval("SET client_connection_check_interval = 0"))
        assert upkeep.run(lambda: interval(show)) == ("1s",)
    finally:
        statement_limits.limit(None)
        connections["default"].close()


pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Make the connection anew, and leave nothing to other tests."""
    connection.close()
    yield
    limit(None)
    connection.close()


def run(sql: str) -> object:
    with connections["default"].cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0] if cursor.description else None


def timeout() -> object:
    return run("SHOW statement_timeout")


def test_cancelled() -> None:
    """A statement that takes too long is cancelled by the server; the connection goes on."""
    upkeep = ConnectionWatchdog("default", timeout=0.2)
    with pytest.raises(OperationalError, match="statement timeout"):
        upkeep.run(lambda: run("SELECT pg_sleep(600)"))

    assert upkeep.run(lambda: run("SELECT 1")) == 1


def test_hooks_can_not_lift_it() -> None:
    """A setting of a hook ends with its work."""
    upkeep = ConnectionWatchdog("default", timeout=5)
    assert upkeep.run(timeout) == "5s"
    upkeep.run(lambda: run("SET statement_timeout = 0"))
    assert upkeep.run(timeout) == "5s"


def test_other_threads() -> None:
    """Connections that are made elsewhere are as they were."""
    before = timeout()
    connection.close()
    assert timeout() == before


@pytest.mark.parametrize(("own", "expected"), [("0", "5s"), ("2s", "2s"), ("1h", "5s")])
def test_shorter_one_stays(own: str, expected: str) -> None:
    """What the project sets holds if it is less."""
    settings = connections["default"].settings_dict
    before = settings["OPTIONS"]
    settings["OPTIONS"] = {**before, "options": f"-c statement_timeout={own}"}
    try:
        assert ConnectionWatchdog("default", timeout=5).run(timeout) == expected
    finally:
        settings["OPTIONS"] = before


def test_behind_a_pool_of_transactions() -> None:
    """Nothing is set on a session that others are given."""
    settings = connections["default"].settings_dict
    before = settings.get("DISABLE_SERVER_SIDE_CURSORS", False)
    settings["DISABLE_SERVER_SIDE_CURSORS"] = True
    try:
        assert ConnectionWatchdog("default", timeout=5).run(timeout) == "0"
    finally:
        settings["DISABLE_SERVER_SIDE_CURSORS"] = before
