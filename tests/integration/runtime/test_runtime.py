"""The read side as a whole: when it starts, what it survives, what is left when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
import time
import warnings
import weakref
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections

from pgobserve.database import statement_limits
from pgobserve.deliver.send_queue import SendQueue
from pgobserve.errors import FeedUnavailable
from pgobserve.hub.hub import TableDependencies
from pgobserve.hub.load_requests import LoadResult
from pgobserve.hub.outcome import ABSENT, FrameAction, Outcome, View
from pgobserve.hub.subscriptions import RowSubscription
from pgobserve.runtime import runtime
from pgobserve.runtime.feed import Feed
from pgobserve.runtime.runtime import Runtime
from pgobserve.runtime.stages import Options
from pgobserve.sql.keyed_query import KeyedQuery
from pgobserve.triggers import registry, trigger_statements
from pgobserve.triggers.trigger_values import TableInfo
from tests.installing import install
from tests.integration.conftest import CHANNEL, parameters
from tests.project.models import Item
from tests.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pgobserve.hub.load_requests import LoadRequest
    from tests.integration.conftest import Writer
    from tests.proxy import Proxy

SUBJECT = TableDependencies((Item._meta.db_table,))
UPDATE = "UPDATE project_item SET name = %s WHERE id = %s"


def load(alias: str, jobs: Sequence[LoadRequest]) -> list[LoadResult]:
    """Read rows; a row is shown by its name."""
    connection = connections[alias]
    statement = KeyedQuery(Item.objects.all(), connection)
    snapshot, rows = statement.fetch([job.row.key for job in jobs], connection)
    return [
        LoadResult(
            job, snapshot, View.of(rows[job.row.key].name) if job.row.key in rows else ABSENT
        )
        for job in jobs
    ]


def options(alias: str = "default", **other: Any) -> Options:
    """Return options of a feed that ends at once after its last subscription."""
    given = Options(
        alias=alias,
        channel=CHANNEL,
        parameters=parameters,
        reader=lambda check: Rows(partial(load, alias)),
        threads=2,
        linger=0.0,
    )
    return replace(given, **other)


class Client:
    """A socket that reads as soon as there is something."""

    def __init__(self) -> None:
        self.frames: list[tuple[FrameAction, str | None]] = []
        self._news = asyncio.Event()
        self.send_queue = SendQueue(self._read)

    async def begin(self, feed: Feed, key: int) -> tuple[RowSubscription, Outcome]:
        """Subscribe to a row."""
        first: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        watch = RowSubscription(self.send_queue, str(key), 1, None, first.set_result)
        async with feed.subscribing() as hub:
            hub.add(watch, SUBJECT)
        return watch, await asyncio.wait_for(first, 60)

    async def until(self, *frames: tuple[FrameAction, str | None]) -> None:
        """Wait until exactly these frames have come."""
        async with asyncio.timeout(60):
            while len(self.frames) < len(frames):
                self._news.clear()
                await self._news.wait()
        assert self.frames == list(frames)

    def _read(self) -> None:
        while (item := self.send_queue.take()) is not None:
            outcome = item[1]
            assert isinstance(outcome, View)
            self.frames.append((item[2], outcome.body))
            self._news.set()


def threads() -> set[threading.Thread]:
    """Return the loaders' threads that are alive."""
    return {t for t in threading.enumerate() if t.name.startswith("pgobserve-loader")}


class Leftovers:
    """What there was before the test, to find what is left after it."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._pids = self._backends()
        self._threads = threads()

    def check(self) -> None:
        """Wait until no connection and no thread of ours is left."""
        for thread in threads() - self._threads:
            thread.join(60)
        assert threads() <= self._threads
        deadline = time.monotonic() + 60
        while self._backends() - self._pids:
            assert time.monotonic() < deadline, "a connection is left"
            time.sleep(0.01)

    def _backends(self) -> set[int]:
        query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        return {row[0] for row in self._writer.rows(query)}


@pytest.fixture
def leftovers(writer: Writer) -> Leftovers:
    install("project.Item")
    writer.rows("INSERT INTO project_item (id, name, rank) VALUES (1, 'one', 0), (2, 'two', 0)")
    return Leftovers(writer)


@pytest.fixture
def feed(leftovers: Leftovers) -> Any:
    """Return a function that makes a feed; when all are closed nothing is left."""

    @contextlib.asynccontextmanager
    async def make(**other: Any) -> Any:
        feed = Feed(options(**other))
        try:
            yield feed
        finally:
            await feed.aclose()
            assert not tasks()
            await asyncio.to_thread(leftovers.check)

    return make


def tasks() -> set[str]:
    """Return the names of the feed's tasks that are not done."""
    return {t.get_name() for t in asyncio.all_tasks() if t.get_name().startswith("pgobserve")}


async def until_stopped(feed: Feed) -> None:
    """Wait until it has decided to end; it may be busy with that."""
    async with asyncio.timeout(60):
        while feed.running:  # noqa: ASYNC110 (nothing tells)
            await asyncio.sleep(0)


async def test_change_arrives(feed: Any, writer: Writer) -> None:
    """A watched row's change is told, and nobody else's."""
    async with feed() as each:
        client = Client()
        assert (await client.begin(each, 1))[1] == View.of("one")
        assert (await client.begin(each, 3))[1] == ABSENT
        writer.rows(UPDATE, "other", 2)
        writer.rows(UPDATE, "new", 1)
        await client.until(("update", "new"))
        writer.rows("INSERT INTO project_item (id, name, rank) VALUES (3, 'three', 0)")
        await client.until(("update", "new"), ("create", "three"))
        writer.rows("DELETE FROM project_item WHERE id = 1")
        await client.until(("update", "new"), ("create", "three"), ("delete", None))


async def test_starts_and_ends(feed: Any, leftovers: Leftovers, writer: Writer) -> None:
    """It runs from the first subscription to the last, and again from the next."""
    async with feed() as each:
        assert not each.running
        for _ in range(2):
            one, other = Client(), Client()
            first, second = (await one.begin(each, 1))[0], (await other.begin(each, 1))[0]
            assert len(writer.listeners()) == 1
            each.unsubscribe(first)
            await asyncio.sleep(0)
            assert each.running
            each.unsubscribe(second)
            each.unsubscribe(second)
            await asyncio.to_thread(leftovers.check)
            assert not each.running


async def test_lingers(feed: Any, writer: Writer) -> None:
    """A subscription soon after the last finds the same connection."""
    async with feed(linger=20.0) as each:
        watch, _ = await Client().begin(each, 1)
        pids = writer.listeners()
        each.unsubscribe(watch)
        await Client().begin(each, 1)

        assert writer.listeners() == pids


async def test_close_waits_for_what_is_ending(feed: Any) -> None:
    """Closed while it ends by itself, it has ended when the close returns."""
    async with feed() as each:
        watch, _ = await Client().begin(each, 1)
        each.unsubscribe(watch)
        await until_stopped(each)
        await each.aclose()

        assert not tasks()


async def test_close_before_the_first_turn(feed: Any) -> None:
    """Closed right after its start it leaves no thread."""
    async with feed() as each:
        begin = asyncio.create_task(Client().begin(each, 1))
        await asyncio.sleep(0)
        await each.aclose()
        begin.cancel()
        await asyncio.gather(begin, return_exceptions=True)
        await each.aclose()


async def test_reads_again_after_a_gap(feed: Any, writer: Writer) -> None:
    """What was changed while nobody listened is told once it listens again; the rest is not."""
    async with feed() as each:
        client = Client()
        await client.begin(each, 1)
        await client.begin(each, 2)
        assert writer.terminate() == 1
        writer.rows("SET pgobserve.mute = 'on'")
        writer.rows(UPDATE, "missed", 1)
        await client.until(("update", "missed"))


async def test_reads_again_after_it_was_closed(feed: Any, writer: Writer) -> None:
    """Subscriptions that outlive a close are read again at the next start."""
    async with feed() as each:
        client = Client()
        await client.begin(each, 1)
        await each.aclose()
        writer.rows(UPDATE, "missed", 1)
        await Client().begin(each, 2)

        await client.until(("update", "missed"))


async def test_failure_is_healed(
    feed: Any, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    """If our own code fails it is logged, and it starts again, reading what it missed."""
    async with feed() as each:
        client = Client()
        await client.begin(each, 1)

        def fail(*_: Any) -> None:
            del each.hub.publish
            raise ValueError("a bug")

        each.hub.publish = fail
        writer.rows(UPDATE, "new", 1)
        await client.until(("update", "new"))

        assert "starts again" in caplog.text
        assert "a bug" in caplog.text
        writer.rows(UPDATE, "newer", 1)
        await client.until(("update", "new"), ("update", "newer"))


async def test_missed_during_a_restart(feed: Any, writer: Writer) -> None:
    """What changes after a restart's first read and before its LISTEN is told as well."""
    async with feed() as each:
        client = Client()
        await client.begin(each, 1)
        listening = asyncio.Event()
        await each.aclose()
        plain, each._on_live = each._on_live, lambda gap: listening.set()
        writer.rows("SET pgobserve.mute = 'on'")
        each._start()
        await asyncio.wait_for(listening.wait(), 60)
        writer.rows(UPDATE, "missed", 1)
        plain(False)

        await client.until(("update", "missed"))


async def test_close_ends_a_failed_one(feed: Any, writer: Writer, leftovers: Leftovers) -> None:
    """Closed after a failure it does not start again."""
    async with feed() as each:
        await Client().begin(each, 1)
        failed = asyncio.Event()

        def fail(*_: Any) -> None:
            failed.set()
            raise ValueError("a bug")

        each.hub.publish = fail
        writer.rows(UPDATE, "new", 1)
        await asyncio.wait_for(failed.wait(), 60)
        await each.aclose()
        loop = asyncio.get_running_loop()
        pending = [h for h in loop._scheduled if not h.cancelled()]  # type: ignore[attr-defined]

        assert not [handle for handle in pending if "Feed" in repr(handle)]


FORGED = [
    '{"v":1,"t":"no.model","o":"U","x":"9","k":[1]}',
    '{"v":1,"t":"project.item","o":"U","x":"9","k":["x",[1],"1.5"]}',
    '{"v":1,"t":"project.item","o":"U","x":"9","k":[1e1000000]}',
    '{"v":1,"t":"project.item","o":"U","x":"9","k":[1e30,99999999999999999999]}',
]


@pytest.mark.parametrize("text", FORGED)
async def test_forged(feed: Any, writer: Writer, text: str) -> None:
    """A forged notification changes nothing, and is counted unless it names a table."""
    async with feed() as each:
        client = Client()
        await client.begin(each, 1)
        listener = each.listener
        writer.notify(text)
        writer.rows(UPDATE, "new", 1)
        await client.until(("update", "new"))

        assert each.listener is listener
        assert listener.state.ignored == ("no.model" in text)


async def test_forged_old_news(feed: Any, writer: Writer) -> None:
    """A forged notification about a transaction long seen costs no query."""
    async with feed() as each:
        client = Client()
        await client.begin(each, 1)
        batches = each.loader.state.batches
        writer.notify('{"v":1,"t":"project.item","o":"U","x":"3","k":[1]}')
        writer.rows(UPDATE, "new", 1)
        await client.until(("update", "new"))

        assert each.loader.state.batches == batches + 1


async def test_database_away(feed: Any, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A subscription that can't begin in time is an error that says why."""
    monkeypatch.setattr("pgobserve.runtime.feed.LIVE_TIMEOUT", 0.5)
    await proxy.stop()
    through = {**parameters(), "host": "127.0.0.1", "port": proxy.port}
    async with feed(parameters=lambda: through) as each:
        with pytest.raises(FeedUnavailable, match=r"can't be followed now: .*refused"):
            await Client().begin(each, 1)

        assert len(each.hub) == 0


async def test_is_observed(feed: Any, writer: Writer) -> None:
    """That a table has its triggers is believed for a while, not across an interruption."""
    async with feed() as each:
        client = Client()
        await client.begin(each, 1)
        assert await each.triggers.pass_for(["project_item"])
        assert not await each.triggers.pass_for(["project_item", "django_session"])
        writer.rows("DROP TRIGGER pgobserve_u ON project_item")
        assert await each.triggers.pass_for(["project_item"])

        writer.terminate()
        writer.rows(UPDATE, "after", 1)
        await client.until(("update", "after"))
        assert not await each.triggers.pass_for(["project_item"])


DISABLED = """
    ALTER TABLE project_item DISABLE TRIGGER ALL;
    UPDATE project_item SET name = 'missed' WHERE id = 1;
    ALTER TABLE project_item ENABLE TRIGGER ALL
"""
SWAPPED = """
    CREATE TABLE swap (LIKE project_item INCLUDING ALL);
    INSERT INTO swap SELECT id, 'missed', rank FROM project_item;
    ALTER TABLE project_item RENAME TO old;
    ALTER TABLE swap RENAME TO project_item;
"""


@pytest.mark.parametrize("unseen", [DISABLED, SWAPPED], ids=["disabled", "swapped"])
async def test_triggers_away_between_two_checks(
    feed: Any, writer: Writer, unseen: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The monitor notices triggers that were away and came back before it looked."""
    async with feed() as each:
        client = Client()
        await client.begin(each, 1)
        assert await each.triggers.pass_for(["project_item"])
        await each.trigger_monitor.check()
        assert "was replaced" not in caplog.text
        with contextlib.ExitStack() as stack:
            if unseen is SWAPPED:
                stack.callback(writer.rows, "ALTER TABLE old RENAME TO project_item")
                stack.callback(writer.rows, "DROP TABLE project_item")
            with writer.connection.transaction():
                for statement in (unseen, *(_installation() if unseen is SWAPPED else ())):
                    writer.rows(statement)
            await each.trigger_monitor.check()
            await client.until(("update", "missed"))
        assert caplog.text.count("Table project_item (project.Item) in database 'default' was") == 1


def _installation() -> Iterator[str]:
    """Yield the statements that install the triggers of a table, without their announcement."""
    (registration,) = registry.build([Item])
    return trigger_statements.install_statements(
        registration, TableInfo("public", "project_item"), always=False
    )


def test_loops_one_after_another(leftovers: Leftovers, writer: Writer) -> None:
    """Each event loop has a runtime of its own, which ends with it, close or no close."""

    async def main(*, close: bool) -> tuple[Runtime, Any]:
        found = runtime.current()
        client = Client()
        await client.begin(found.feed("default", options), 1)
        name = f"name {close}"
        await asyncio.to_thread(writer.rows, UPDATE, name, 1)
        await client.until(("update", name))
        if close:
            await found.aclose()
        return found, weakref.ref(asyncio.get_running_loop())

    first, _ = asyncio.run(main(close=True))
    leftovers.check()
    second, _ = asyncio.run(main(close=False))
    leftovers.check()

    assert first is not second


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_loops_closed_without_an_end(leftovers: Leftovers) -> None:
    """Event loops that are closed with all of ours in them leave no thread, connection or runtime."""
    before = len(runtime.runtimes())
    for _ in range(3):
        loop = asyncio.new_event_loop()

        async def main() -> None:
            await Client().begin(runtime.current().feed("default", options), 1)

        loop.run_until_complete(main())
        loop.close()
        del loop, main
        gc.collect()  # what Python says of tasks that can't end now belongs to this test
    leftovers.check()
    gc.collect()  # of the last loop: its threads have ended only now
    assert len(runtime.runtimes()) == before


async def test_forked(feed: Any) -> None:
    """A forked process has runtimes of its own, and none of its parent's."""
    mine = runtime.current()

    def child() -> bool:
        async def main() -> Runtime:
            return runtime.current()

        found = asyncio.run(main())
        return found is not mine and mine not in runtime.runtimes()

    with warnings.catch_warnings():
        # Of Python 3.12: the child has locks of threads that it has not.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:  # pragma: no cover (the child)
        code = 1
        try:
            asyncio.events._set_running_loop(None)
            code = 0 if child() else 2
        finally:
            os._exit(code)
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert runtime.current() is mine


async def test_forked_loop(feed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event loop that goes on in a forked process gets another runtime."""
    mine = runtime.current()
    monkeypatch.setattr(runtime.os, "getpid", lambda: -1)
    assert runtime.current() is not mine
    assert mine not in runtime.runtimes()


async def test_row_that_nobody_watches(
    feed: Any, writer: Writer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The query for a row is cancelled with its last subscription; other rows go on."""
    monkeypatch.setattr(statement_limits, "_PRESENCE", "")  # the server notices nothing by itself
    slow = "SELECT pg_sleep(600) AS unwatched"
    active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = %s"

    def read(jobs: Sequence[LoadRequest]) -> list[LoadResult]:
        if any(job.row.key == "2" for job in jobs):
            connections["default"].cursor().execute(slow)
        return load("default", jobs)

    async def until(count: int) -> None:
        async with asyncio.timeout(60):
            while writer.rows(active, slow) != [(count,)]:  # noqa: ASYNC110 (nothing tells)
                await asyncio.sleep(0.01)

    async with feed(reader=lambda check: Rows(read)) as each:
        client, leaving = Client(), Client()
        await client.begin(each, 1)
        begins = asyncio.create_task(leaving.begin(each, 2))
        await until(1)
        begins.cancel()
        (watch,) = [w for w in each.hub._watches if w.key == "2"]
        each.unsubscribe(watch)
        await until(0)

        writer.rows(UPDATE, "new", 1)
        await client.until(("update", "new"))
    assert "Reading " not in caplog.text


def test_loop_is_forgotten(leftovers: Leftovers) -> None:
    """Nothing of ours keeps an event loop that is closed."""

    async def main() -> Any:
        feed = runtime.current().feed("default", options)
        watch, _ = await Client().begin(feed, 1)
        feed.unsubscribe(watch)
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(main())
    leftovers.check()
    deadline = time.monotonic() + 60
    # Once is not enough: a thread that ends has a frame for a moment more, and while the collector runs in
    # another thread, a call of it does nothing.
    while loop() is not None:
        assert time.monotonic() < deadline, gc.get_referrers(loop())
        gc.collect()
        time.sleep(0.01)


@pytest.fixture
def second(leftovers: Leftovers) -> Iterator[str]:
    """A second alias, of the same database."""
    connections.settings["second"] = dict(connections["default"].settings_dict)
    yield "second"
    del connections.settings["second"]


async def test_two_aliases(second: str, leftovers: Leftovers, writer: Writer) -> None:
    """Each alias has a listener and a loader of its own; closed, both are gone."""

    def made(alias: str) -> Options:
        # Read as the first: a test may not connect to an alias that it was not declared with.
        return options(alias, reader=lambda check: Rows(partial(load, "default")))

    both = Runtime()
    clients = [Client(), Client()]
    for alias, client in zip(("default", second), clients, strict=True):
        await client.begin(both.feed(alias, made), 1)
    assert both.feed(second, made) is both.feed(second, made)
    assert len(writer.listeners()) == 2

    writer.rows(UPDATE, "new", 1)
    for client in clients:
        await client.until(("update", "new"))
    await both.aclose()
    assert not tasks()
    await asyncio.to_thread(leftovers.check)
