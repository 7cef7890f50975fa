"""The connections of the loader's threads, when the server falls silent."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections

from pgobserve.database.connection_watchdog import ConnectionWatchdog, Unreachable
from pgobserve.hub.hub import Hub
from pgobserve.load.loader import Loader
from tests.rows import Rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.proxy import Proxy

ALIAS = "default"


@pytest.fixture
def proxied(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """A proxy through which new threads connect."""
    changes = {"HOST": "127.0.0.1", "PORT": str(proxy.port)}
    given = connections[ALIAS].settings_dict
    monkeypatch.setitem(connections.settings, ALIAS, {**given, **changes})
    return proxy


def ask(seconds: float = 0.0) -> tuple[Any, ...]:
    """Run a query that takes a while."""
    with connections[ALIAS].cursor() as cursor:
        cursor.execute("SELECT 'answer', pg_sleep(%s)", [seconds])
        row: tuple[Any, ...] = cursor.fetchone()
        return row


class Threaded:
    """An upkeep that is at work, and a thread to run things in."""

    def __init__(self, patience: float) -> None:
        self.upkeep = ConnectionWatchdog(ALIAS, patience)
        self.watch = asyncio.create_task(self.upkeep.watch())

    async def run(self, seconds: float = 0.0) -> Any:
        """Ask in a thread of its own, and close its connection."""

        def work() -> Any:
            try:
                return self.upkeep.run(lambda: ask(seconds))
            finally:
                connections.close_all()

        return (await asyncio.wait_for(asyncio.to_thread(work), 60))[0]


@pytest.fixture
async def threaded() -> AsyncIterator[Any]:
    """Return a function that starts an upkeep; its watch ends with the test."""
    async with contextlib.AsyncExitStack() as stack:

        def start(patience: float) -> Threaded:
            made = Threaded(patience)
            stack.callback(made.watch.cancel)
            return made

        yield start


async def test_silence_is_cut(
    proxied: Proxy, threaded: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A query that never gets its answer is asked again over a new connection."""
    each = threaded(0.2)
    proxied.freeze_at(b"pg_sleep")
    asked = asyncio.create_task(each.run())
    await asyncio.wait_for(proxied.frozen.wait(), 60)
    proxied.frozen.clear()  # new connections are served, the silent one is not

    with contextlib.suppress(Unreachable):  # the first attempt: no connection was kept
        await asked
    assert await each.run() == "answer"
    assert "has not answered" in caplog.text


async def test_slow_answer_comes_in_the_end(proxied: Proxy, threaded: Any) -> None:
    """What takes longer than the patience by nature is not cut for ever."""
    each = threaded(0.1)
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(Unreachable):
                assert await each.run(0.5) == "answer"
                return


async def test_end_of_a_loader_that_waits(proxied: Proxy) -> None:
    """A loader that is ended leaves no thread behind that waits for a silent server."""
    loader = Loader(ALIAS, Hub(), Rows(lambda _: []), 1)
    running = asyncio.create_task(loader.run())
    await loader.call(ask)
    thread = next(t for t in threading.enumerate() if t.name.startswith("pgobserve-loader"))
    proxied.freeze_at(b"pg_sleep")
    call = asyncio.create_task(loader.call(ask))
    await asyncio.wait_for(proxied.frozen.wait(), 60)

    running.cancel()
    await asyncio.gather(running, call, return_exceptions=True)
    await asyncio.to_thread(thread.join, 60)
    assert not thread.is_alive()
