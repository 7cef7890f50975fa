"""Events in a server's process: who follows hears of everything, whatever happens to connections."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import pytest
from django.db import OperationalError

from pgobserve.errors import FeedUnavailable
from pgobserve.hub.snapshot import Snapshot
from pgobserve.outbox import outbox_page, outbox_pages, outbox_reader
from pgobserve.outbox.cursor import GapReason
from pgobserve.outbox.event import Event, Reset
from pgobserve.runtime.runtime import Feed
from pgobserve.wire import ALONE
from tests.integration.conftest import Writer, bouncer, parameters
from tests.integration.outbox.conftest import DELETE, INSERT, UPDATE
from tests.integration.runtime.test_runtime import Client, options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from tests.integration.outbox.conftest import Session

ITEM = "project.item"

__all__ = ["bouncer"]  # a fixture


class Hearer:
    """One who follows, and notes what he hears."""

    def __init__(self) -> None:
        self.heard: list[Event | Reset] = []
        self.batches: list[Sequence[Event | Reset]] = []
        self._news = asyncio.Event()

    def __call__(self, events: Sequence[Event | Reset]) -> None:
        self.batches.append(events)
        self.heard += events
        self._news.set()

    @property
    def names(self) -> list[Any]:
        """Action, and name of the row as it is or was; or why there is a reset."""
        return [
            each.why if isinstance(each, Reset) else (str(each.action), each.instance.name)  # type: ignore[attr-defined]
            for each in self.heard
        ]

    async def until(self, count: int) -> None:
        """Wait until so many have come."""
        async with asyncio.timeout(60):
            while len(self.heard) < count:
                self._news.clear()
                await self._news.wait()


@pytest.fixture
def writer(boxed: None) -> Iterator[Writer]:
    """A connection of somebody's."""
    each = Writer(parameters())
    yield each
    each.connection.close()


@pytest.fixture
async def feed(boxed: None) -> AsyncIterator[Callable[..., Feed]]:
    """Return a function that makes a feed; all are closed at the end."""
    async with contextlib.AsyncExitStack() as stack:

        def make(**other: Any) -> Feed:
            made = Feed(options(**{"outbox": True, **other}))
            stack.push_async_callback(made.aclose)
            return made

        yield make


async def test_hears(feed: Callable[..., Feed], writer: Writer) -> None:
    """What is written after it began is heard, in order, once; what was before is not."""
    writer.rows(INSERT, 1, "before")
    hear = Hearer()
    follow = await feed().subscribe_events([ITEM], hear)
    writer.rows(INSERT, 2, "a")
    writer.rows(UPDATE, "b", 2)
    writer.rows(DELETE, 2)
    await hear.until(3)
    follow.close()

    assert hear.names == [("create", "a"), ("update", "b"), ("delete", "b")]


async def test_begins_at_a_snapshot(
    feed: Callable[..., Feed], session: Callable[[], Session]
) -> None:
    """It begins at its snapshot: what is not visible in it is heard of when it has ended."""
    one = session()
    one.run(INSERT, 1, "open")
    hear = Hearer()
    follow = await feed().subscribe_events([ITEM], hear)
    row = one.connection.execute("SELECT pg_current_snapshot()::text").fetchone()
    one.commit()
    await hear.until(1)
    (event,) = hear.heard

    assert isinstance(event, Event)
    assert follow.since is not None
    assert not follow.since.sees(event.xid)
    assert row is not None
    assert Snapshot.parse(row[0]).covers(follow.since)
    follow.close()


async def test_transaction_comes_together(
    feed: Callable[..., Feed], session: Callable[[], Session]
) -> None:
    """All that a transaction did comes in one batch."""
    hear, one = Hearer(), session()
    follow = await feed().subscribe_events([ITEM], hear)
    for key in range(50):
        one.run(INSERT, key, "x")
    one.commit()
    await hear.until(50)
    follow.close()

    assert [len(batch) for batch in hear.batches] == [50]


async def test_several_follow(feed: Callable[..., Feed], writer: Writer) -> None:
    """Each hears what concerns him; one who raises keeps it from nobody; who has left hears none."""
    shared = feed()
    one, other, left = Hearer(), Hearer(), Hearer()

    def fails(events: object) -> None:
        raise RuntimeError("This one fails.")

    follows = [
        await shared.subscribe_events([ITEM], fails),
        await shared.subscribe_events([ITEM, "auth.user"], one),
        await shared.subscribe_events(["auth.user"], other),
    ]
    (await shared.subscribe_events([ITEM], left)).close()
    writer.rows(INSERT, 1, "a")
    await one.until(1)

    assert one.names == [("create", "a")]
    assert (other.heard, left.heard) == ([], [])
    for follow in follows:
        follow.close()


async def test_connections_are_terminated(feed: Callable[..., Feed], writer: Writer) -> None:
    """What is written while no connection is there is heard afterwards, and nothing twice."""
    hear = Hearer()
    follow = await feed().subscribe_events([ITEM], hear)
    for number in range(5):
        writer.rows(INSERT, number * 2, "a")
        writer.terminate()
        writer.rows(INSERT, number * 2 + 1, "a")
    await hear.until(10)
    follow.close()

    assert [event.key for event in hear.heard if isinstance(event, Event)] == [*range(10)]


async def _until_the_reader_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    async with asyncio.timeout(60):
        while "The task pgobserve-reader of the feed" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_reader_fails(
    feed: Callable[..., Feed], writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    """A reader that failed by what it holds is started anew: followers miss nothing afterwards."""
    caplog.set_level(logging.CRITICAL)
    hear, made = Hearer(), feed()
    follow = await made.subscribe_events([ITEM], hear)
    assert made.reader is not None
    assert made.reader._rotation is not None
    made.reader._rotation.turn = None  # type: ignore[method-assign, assignment]
    made.reader.wake()
    await _until_the_reader_has_failed(caplog)
    for key in (1, 2):
        writer.rows(INSERT, key, "a")
        await hear.until(key)
    follow.close()

    assert hear.names == [("create", "a")] * 2
    assert caplog.text.count("which must not happen") == 1


@pytest.mark.parametrize("outbox", [True, False], ids=["at once", "woken"])
async def test_read_fails(
    feed: Callable[..., Feed],
    writer: Writer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    outbox: bool,
) -> None:
    """Followers receive what the failed read had found, without another wake-up."""
    caplog.set_level(logging.CRITICAL)
    hear, client, made = Hearer(), Client(), feed(outbox=outbox)
    writer.rows(INSERT, 1, "one")
    watch, _ = await client.begin(made, 1)
    follow = await made.subscribe_events([ITEM], hear)
    made.unsubscribe(watch)
    real, failures = outbox_page.page, 0

    def fails_once(rows: Any, cursor: Any, **options: Any) -> Any:
        nonlocal failures
        page = real(rows, cursor, **options)
        if page.entries and not failures:
            failures += 1
            raise RuntimeError("The page can't be taken.")
        return page

    monkeypatch.setattr(outbox_page, "page", fails_once)
    monkeypatch.setattr(outbox_pages, "FALLBACK", 0.05)
    monkeypatch.setattr(outbox_reader.OutboxReader, "wake", lambda self: None)
    writer.rows(UPDATE, "two", 1)
    await hear.until(1)
    follow.close()

    assert hear.names == [("update", "two")]
    assert "The task pgobserve-reader of the feed" in caplog.text


async def test_build_fails(
    feed: Callable[..., Feed],
    writer: Writer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where events can't be made of what was read there is a reset, and it goes on."""
    hear = Hearer()
    follow = await feed().subscribe_events([ITEM], hear)
    with monkeypatch.context() as patched:
        patched.setattr("pgobserve.outbox.outbox_reader.events_of", lambda *_: 1 / 0)
        writer.rows(INSERT, 1, "a")
        await hear.until(1)
    writer.rows(INSERT, 2, "b")
    await hear.until(2)
    follow.close()

    assert hear.names == [GapReason.UNREADABLE, ("create", "b")]
    assert "Making events of project.item failed" in caplog.text


async def test_database_is_away_while_events_are_made(
    feed: Callable[..., Feed],
    writer: Writer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What was read is read again when it can be made into events; the log has loss and recovery."""
    attempts: list[int] = []
    real = outbox_reader.events_of

    def fails_at_first(entries: Any, labels: Any, connection: Any) -> Any:
        attempts.append(1)
        if len(attempts) <= 3:
            connection.close()
            raise OperationalError("The database is away.")
        return real(entries, labels, connection)

    hear = Hearer()
    follow = await feed().subscribe_events([ITEM], hear)
    monkeypatch.setattr(outbox_reader, "events_of", fails_at_first)
    writer.rows(INSERT, 1, "a")
    await hear.until(1)
    async with asyncio.timeout(60):
        while "is read again after" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    follow.close()

    assert hear.names == [("create", "a")]
    lost, again = (r for r in caplog.records if r.name == outbox_pages.__name__)
    assert lost.levelname == again.levelname == "WARNING"
    assert lost.getMessage().startswith("Reading the outbox of database 'default' failed: ")


async def test_wakes_up(
    feed: Callable[..., Feed], writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit wakes the reader, however long it would have waited."""
    monkeypatch.setattr(outbox_pages, "SETTLE", 600.0)
    monkeypatch.setattr(outbox_pages, "FALLBACK", 600.0)
    hear = Hearer()
    follow = await feed().subscribe_events([ITEM], hear)
    for number in range(3):
        writer.rows(INSERT, number, "a")
        await hear.until(number + 1)
    follow.close()


async def test_wake_up_is_left_to_another(
    feed: Callable[..., Feed],
    writer: Writer,
    session: Callable[[], Session],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A commit that left the wake-up to a transaction that is still open is found soon, too."""
    monkeypatch.setattr(outbox_pages, "FALLBACK", 600.0)
    hear, holder = Hearer(), session()
    follow = await feed().subscribe_events([ITEM], hear)
    holder.run(
        "SELECT pg_advisory_xact_lock(%s, n) FROM generate_series(0, 3) n", ALONE.outbox_lock
    )
    holder.run(INSERT, 1, "open")
    for number in range(2, 5):
        writer.rows(INSERT, number, "a")
    await hear.until(3)
    holder.commit()
    await hear.until(4)
    follow.close()


async def test_looks_now_and_then(
    feed: Callable[..., Feed], writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody wakes it for, ever, is found all the same."""
    monkeypatch.setattr(outbox_pages, "FALLBACK", 0.05)
    hear = Hearer()
    follow = await feed().subscribe_events([ITEM], hear)
    monkeypatch.setattr("pgobserve.outbox.outbox_reader.OutboxReader.wake", lambda self: None)
    writer.rows(INSERT, 1, "a")
    await hear.until(1)
    follow.close()


async def test_resets(feed: Callable[..., Feed], writer: Writer) -> None:
    """Who follows hears when something may be missing, and what comes after."""
    hear = Hearer()
    follow = await feed().subscribe_events([ITEM], hear)
    writer.rows("SELECT setval('pgobserve.outbox_gate', 3)")
    writer.rows(INSERT, 1, "not written")
    writer.rows("SELECT setval('pgobserve.outbox_gate', 0)")
    await hear.until(1)
    writer.rows(INSERT, 2, "b")
    await hear.until(2)
    follow.close()

    assert hear.names == [GapReason.NOT_WRITTEN, ("create", "b")]


async def test_without_an_outbox(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no outbox nothing can be followed, and the error says so."""
    monkeypatch.setattr("pgobserve.runtime.feed.LIVE_TIMEOUT", 1.0)
    made = Feed(options(outbox=True))

    with pytest.raises(FeedUnavailable, match="no outbox"):
        await made.subscribe_events([ITEM], Hearer())
    await made.aclose()


async def test_ends_with_the_last(feed: Callable[..., Feed], writer: Writer) -> None:
    """When nobody follows any more the connections are closed, and who comes begins anew."""
    made, hear = feed(), Hearer()
    follow = await made.subscribe_events([ITEM], hear)
    assert writer.listeners()
    follow.close()
    await asyncio.to_thread(writer.until_alone)
    # Its connections close before the feed has ended.
    await asyncio.gather(*made._ending, return_exceptions=True)
    writer.rows(INSERT, 1, "nobody follows")
    follow = await made.subscribe_events([ITEM], hear)
    writer.rows(INSERT, 2, "b")
    await hear.until(1)
    follow.close()

    assert hear.names == [("create", "b")]


async def test_row_is_watched_by_polling_alone(feed: Callable[..., Feed], writer: Writer) -> None:
    """Where nobody can LISTEN changes of watched rows are found by looking."""
    writer.rows(INSERT, 1, "one")
    made, client = feed(listens=False), Client()
    watch, _ = await client.begin(made, 1)
    assert len(writer.rows("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN%%'")) == 0
    writer.rows(UPDATE, "two", 1)
    await client.until(("update", "two"))
    made.unsubscribe(watch)


async def test_transaction_pool(
    feed: Callable[..., Feed], writer: Writer, bouncer: Callable[[str], dict[str, Any]]
) -> None:
    """Through a proxy that pools transactions rows are watched, and events followed, by polling."""
    through = await asyncio.to_thread(bouncer, "transaction")
    writer.rows(INSERT, 1, "one")
    made, client, hear = feed(listens=False, parameters=lambda: through), Client(), Hearer()
    watch, _ = await client.begin(made, 1)
    follow = await made.subscribe_events([ITEM], hear)
    names = [str(number) for number in range(10)]
    for number, name in enumerate(names):
        writer.rows(UPDATE, name, 1)
        await hear.until(number + 1)
    async with asyncio.timeout(60):
        while client.frames[-1:] != [("update", names[-1])]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    made.unsubscribe(watch)
    follow.close()


async def test_transport_is_switched_while_watched(
    feed: Callable[..., Feed], writer: Writer
) -> None:
    """A process that was told of no outbox reads it from the first wake-up on."""
    writer.rows(INSERT, 1, "one")
    made, client = feed(outbox=False), Client()
    watch, _ = await client.begin(made, 1)
    for name in ("two", "three", "four"):
        writer.rows(UPDATE, name, 1)
        await client.until(
            *(("update", each) for each in ("two", "three", "four")[: len(client.frames) + 1])
        )
    made.unsubscribe(watch)


async def test_hundred_thousand_rows(feed: Callable[..., Feed], writer: Writer) -> None:
    """A statement that changes very many rows reads what is watched, once."""
    writer.rows(
        "INSERT INTO project_item (id, name, rank) SELECT n, 'x', 0 FROM generate_series(1, 20000) n"
    )
    made, client = feed(), Client()
    watch, _ = await client.begin(made, 7)
    writer.rows("UPDATE project_item SET name = 'y'")
    await client.until(("update", "y"))
    made.unsubscribe(watch)
