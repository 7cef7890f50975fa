"""``pgobserve.events``: a worker misses nothing, over restarts, and of two with one name one works."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.db import connection

import pgobserve
from pgobserve.errors import ConfigurationError, TriggerError
from pgobserve.outbox import event_stream, outbox_pages
from pgobserve.outbox import outbox_page as feed_outbox
from pgobserve.outbox.cursor import GapReason
from pgobserve.triggers import outbox_statements
from pgobserve.wire import ALONE
from tests.integration.conftest import Writer, parameters
from tests.integration.outbox.conftest import INSERT, UPDATE, execute

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def writer(boxed: None) -> Iterator[Writer]:
    """A connection of somebody's."""
    each = Writer(parameters())
    yield each
    each.connection.close()


@pytest.fixture
async def place(writer: Writer) -> None:
    """A named cursor that begins here."""
    await make_place("worker")


async def make_place(name: str) -> None:
    """Let a worker begin, and end at once."""
    async with aclosing(pgobserve.events("project.Item", cursor=name)) as events:
        first = asyncio.ensure_future(anext(events))
        async with asyncio.timeout(60):
            while not await exists(name):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first


async def exists(name: str) -> bool:
    """Tell whether a cursor has been kept."""
    async with await psycopg.AsyncConnection.connect(**parameters()) as other:
        query = "SELECT 1 FROM pgobserve.outbox_cursor WHERE name = %s"
        return await (await other.execute(query, [name])).fetchone() is not None


def what(event: Any) -> Any:
    """Return the name of a row, or why there is a reset."""
    return event.why if isinstance(event, pgobserve.Reset) else event.instance.name


async def take(count: int, name: str | None = "worker", *, leave: bool = False) -> list[Any]:
    """
    Handle so many events and end.

    Args:
        count: How many.
        name: Of the cursor.
        leave: Leave the loop at the last one, so that it does not count as handled.
    """
    found: list[Any] = []
    async with asyncio.timeout(60), aclosing(pgobserve.events("project.Item", cursor=name)) as all_:
        async for event in all_:
            found.append(what(event))
            if leave and len(found) == count:
                return found
            if len(found) > count:
                break
            if len(found) == count and not leave:
                waits = asyncio.ensure_future(anext(all_))
                done, _ = await asyncio.wait({waits}, timeout=0.3)
                assert not done, "there is more"
                waits.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await waits
                return found
    return found


async def test_goes_on_where_it_was(place: None, writer: Writer) -> None:
    """What is written while no worker runs is handled by the next one."""
    writer.rows(INSERT, 1, "a")
    assert await take(1) == ["a"]
    writer.rows(INSERT, 2, "b")
    writer.rows(UPDATE, "c", 2)

    assert await take(2) == ["b", "c"]


async def test_what_was_not_handled_comes_again(place: None, writer: Writer) -> None:
    """The event at which a worker ended comes again, those before it do not."""
    for key, name in enumerate("abc"):
        writer.rows(INSERT, key, name)
    assert await take(2, leave=True) == ["a", "b"]

    assert await take(2) == ["b", "c"]


async def test_is_killed(place: None, writer: Writer, caplog: pytest.LogCaptureFixture) -> None:
    """A worker whose connection is cut while it handles an event gets that one again."""
    writer.rows(INSERT, 1, "a")
    writer.rows(INSERT, 2, "b")
    found = []
    async with (
        asyncio.timeout(60),
        aclosing(pgobserve.events("project.Item", cursor="worker")) as events,
    ):
        async for event in events:
            found.append(what(event))
            if len(found) == 2:
                writer.terminate()
                writer.rows(INSERT, 3, "c")
            if found[-1] == "c":
                break

    assert found == ["a", "b", "b", "c"]
    lost, again = (r for r in caplog.records if r.name == outbox_pages.__name__)
    assert lost.levelname == again.levelname == "WARNING"
    assert "The outbox of database 'default' is read again after" in again.getMessage()


async def test_one_works(place: None, writer: Writer) -> None:
    """Of two with one name one works; when it ends the other takes over where it was."""
    writer.rows(INSERT, 1, "a")
    first = pgobserve.events("project.Item", cursor="worker")
    second = pgobserve.events("project.Item", cursor="worker")
    assert what(await anext(first)) == "a"
    waits = asyncio.ensure_future(anext(second))
    done, _ = await asyncio.wait({waits}, timeout=2 * event_stream.CLAIM_EVERY)
    assert not done
    third = asyncio.ensure_future(anext(first))
    writer.rows(INSERT, 2, "b")
    assert what(await third) == "b"
    await first.aclose()

    assert what(await asyncio.wait_for(waits, 60)) == "b"
    await second.aclose()


async def test_advisory_locks_are_nothing(place: None, writer: Writer) -> None:
    """A role that may only connect keeps no worker from its cursor, whatever locks it holds."""
    writer.rows(INSERT, 1, "a")
    with psycopg.connect(**parameters()) as stranger:
        stranger.execute(
            "SELECT pg_advisory_lock(hashtextextended('pgobserve.outbox_cursor worker', 0))"
        )
        assert await take(1) == ["a"]


async def test_end_of_session(place: None, writer: Writer) -> None:
    """A cursor is free when its session has ended, and the same process id counts only with its start."""
    writer.rows(
        "UPDATE pgobserve.outbox_cursor SET pid = pg_backend_pid(), connected_at = now() - interval '1 day', "
        "role = (SELECT usesysid FROM pg_stat_activity WHERE pid = pg_backend_pid())"
    )
    writer.rows(INSERT, 1, "a")

    assert await take(1) == ["a"]


async def test_other_names_do_not_wait(place: None, writer: Writer) -> None:
    """Workers with different names, or none, each get everything."""
    await make_place("other")
    writer.rows(INSERT, 1, "a")
    async with aclosing(pgobserve.events("project.Item", cursor="worker")) as one:
        assert what(await anext(one)) == "a"
        assert await take(1, "other") == ["a"]


async def test_without_a_name(writer: Writer) -> None:
    """Without a name a worker begins now, and leaves nothing behind."""
    writer.rows(INSERT, 1, "before")
    async with aclosing(pgobserve.events("project.Item")) as events:
        waits = asyncio.ensure_future(anext(events))
        async with asyncio.timeout(60):
            number = 1
            while not waits.done():
                number += 1
                writer.rows(INSERT, number, f"after {number}")
                await asyncio.sleep(0.05)
        assert what(await waits).startswith("after")

    assert writer.rows("SELECT count(*) FROM pgobserve.outbox_cursor") == [(0,)]


async def test_backlog(place: None, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Much more than a page is handled in order, and a restart in the middle goes on there."""
    real = feed_outbox.page
    small = functools.partial(feed_outbox.parameters, limit=10)
    monkeypatch.setattr(feed_outbox, "parameters", small)
    monkeypatch.setattr(feed_outbox, "page", functools.partial(real, limit=10))
    monkeypatch.setattr(event_stream, "KEEP_EVERY", 0.0)
    for key in range(100):
        writer.rows(INSERT, key, str(key))
    found = await take(35, leave=True)
    found += await take(66)

    assert found == [str(n) for n in [*range(35), 34, *range(35, 100)]]


async def test_retention_has_passed(place: None, writer: Writer) -> None:
    """A worker that was away for too long is told so, once, and goes on with what comes."""
    writer.rows(INSERT, 1, "a")
    for _ in range(20):
        writer.rows("SELECT pgobserve.outbox_rotate(0)")
    assert await take(1) == [GapReason.RETENTION]
    writer.rows(INSERT, 2, "b")

    assert await take(1) == ["b"]


async def test_outbox_is_made_anew(place: None, writer: Writer) -> None:
    """A worker whose outbox was removed and made again is told so."""

    def make_anew() -> None:
        drop = outbox_statements.drop_statements(ALONE, repair=True)
        for statement in (*drop, *outbox_statements.storage_statements(ALONE)):
            execute(statement)
        connection.close()

    await asyncio.to_thread(make_anew)
    writer.rows(INSERT, 1, "a")

    assert await take(1) == [GapReason.RETENTION]


async def test_not_in_the_outbox(writer: Writer) -> None:
    """Models whose changes are not written to the outbox are refused, with what to do."""
    with pytest.raises(TriggerError, match=r"install auth\.user"):
        await anext(pgobserve.events("project.Item", "auth.User"))


def test_bad_arguments() -> None:
    """Labels and aliases that are none are refused at once."""
    with pytest.raises(ConfigurationError, match="labels"):
        pgobserve.events()
    with pytest.raises(ConfigurationError, match="no model"):
        pgobserve.events("project.Nothing")
    with pytest.raises(ConfigurationError, match="no database"):
        pgobserve.events("project.Item", using="nowhere")
    with pytest.raises(AttributeError, match="no attribute"):
        pgobserve.nothing  # noqa: B018


async def test_wakes_up(place: None, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit wakes a worker, however long it would have waited."""
    monkeypatch.setattr(outbox_pages, "SETTLE", 600.0)
    monkeypatch.setattr(outbox_pages, "FALLBACK", 600.0)
    async with (
        asyncio.timeout(60),
        aclosing(pgobserve.events("project.Item", cursor="worker")) as all_,
    ):
        for number in range(3):
            waits = asyncio.ensure_future(anext(all_))
            await asyncio.sleep(0.2)
            writer.rows(INSERT, number, str(number))
            assert what(await waits) == str(number)


async def test_polls(place: None, writer: Writer, settings: Any) -> None:
    """Where nobody notifies, a worker looks again and again."""
    settings.PGOBSERVE = {"OUTBOX_WAKE": "poll"}
    writer.rows(INSERT, 1, "a")

    assert await take(1) == ["a"]
