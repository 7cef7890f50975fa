"""The loader's database connections: kept while they are of use, and no longer."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from django.db import DataError, OperationalError, connections

from pgobserve.hub.hub import Hub
from pgobserve.load.loader import Loader, Unreachable
from pgobserve.workers import thread_pool
from tests.rows import Rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.conftest import Writer


@pytest.fixture
async def loader(writer: Writer) -> AsyncIterator[Loader]:
    """A loader with one thread, which has ended afterwards, and its connection with it."""
    before = set(threading.enumerate())
    each = Loader("default", Hub(), Rows(lambda _: []), 1)
    yield each
    each.stop()
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("pgobserve-loader"):
            await asyncio.to_thread(thread.join, 60)
            assert not thread.is_alive()


def ask(query: str) -> Any:
    """Run a query in this thread, as Django does."""
    with connections["default"].cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchone()[0]


def backend() -> int:
    """Return the backend of this thread's connection."""
    return int(ask("SELECT pg_backend_pid()"))


def until_gone(writer: Writer, pid: int) -> None:
    """Wait until a backend has ended."""
    deadline = time.monotonic() + 60
    while writer.rows("SELECT 1 FROM pg_stat_activity WHERE pid = %s", pid):
        assert time.monotonic() < deadline, "the connection is still there"
        time.sleep(0.01)


@pytest.mark.parametrize("age", [0, 600, None])
async def test_kept_while_busy(
    loader: Loader, monkeypatch: pytest.MonkeyPatch, age: int | None
) -> None:
    """A connection serves one call after another, also where a request's would end with it."""
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", age)
    pids = {await loader.call(backend) for _ in range(5)}

    assert len(pids) == 1


async def test_closed_when_idle(
    loader: Loader, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With CONN_MAX_AGE 0 a connection ends when nothing was to do for a while."""
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 0)
    monkeypatch.setattr(thread_pool, "IDLE", 0.05)
    await asyncio.to_thread(until_gone, writer, await loader.call(backend))

    assert await loader.call(backend) > 0


async def test_closed_at_the_end(loader: Loader, writer: Writer) -> None:
    """A loader that is stopped closes its connection."""
    pid = await loader.call(backend)
    loader.stop()

    await asyncio.to_thread(until_gone, writer, pid)


async def test_kept_connection_had_ended(loader: Loader, writer: Writer) -> None:
    """A call that meets a connection that ended meanwhile is made again, on a new one."""
    pid = await loader.call(backend)
    assert writer.rows("SELECT pg_terminate_backend(%s, 20000)", pid) == [(True,)]

    assert await loader.call(backend) != pid


async def test_ends_again_and_again(loader: Loader) -> None:
    """A connection that ends in each attempt is an Unreachable, and the thread serves on."""
    with pytest.raises(Unreachable, match="terminat"):
        await loader.call(lambda: ask("SELECT pg_terminate_backend(pg_backend_pid())::int"))

    assert await loader.call(backend) > 0


async def test_not_there(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that can't be reached is an Unreachable; once it is back, calls work."""
    with monkeypatch.context() as patch:
        patch.setitem(connections.settings["default"], "HOST", "127.0.0.1")
        patch.setitem(connections.settings["default"], "PORT", "1")
        with pytest.raises(Unreachable, match="refused"):
            await loader.call(backend)

    assert await loader.call(backend) > 0


async def test_error_of_a_statement(loader: Loader) -> None:
    """An error of a statement is no matter of the connection, which is kept."""
    pid = await loader.call(backend)
    with pytest.raises(DataError):
        await loader.call(lambda: ask("SELECT 1 / 0"))

    assert await loader.call(backend) == pid


async def test_timeout_of_a_statement(loader: Loader) -> None:
    """That a statement takes too long does not mean that the database is away."""
    pid = await loader.call(backend)

    def too_long() -> None:
        ask("SELECT set_config('statement_timeout', '1', false)")
        ask("SELECT pg_sleep(20)::text")

    with pytest.raises(OperationalError, match="statement timeout"):
        await loader.call(too_long)

    assert await loader.call(backend) == pid
