"""Changes read from the outbox tell old and new values of the columns that somebody wants."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from pgobserve.outbox.event_subscriptions import EventSubscriptions
from pgobserve.outbox.outbox_reader import OutboxReader
from tests.integration.conftest import Writer, parameters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from pgobserve.wire import Change

ITEM = "project.item"


class Hearing:
    """A reader, what it tells, and what is wanted of it."""

    def __init__(self) -> None:
        self.heard: list[Change] = []
        self.routes: dict[str, list[str]] = {}
        self._news = asyncio.Event()
        self.followers = EventSubscriptions()
        self.reader = OutboxReader(
            subscriptions=self.followers,
            parameters=parameters,
            on_change=self._on_change,
            on_gap=lambda: None,
            call=self._call,
            routes=lambda: self.routes,
        )

    async def _call(self, _: Any) -> Any:
        return []

    def _on_change(self, change: Change) -> None:
        self.heard.append(change)
        self._news.set()

    async def until(self, count: int) -> list[tuple[Any, Any]]:
        """Wake the reader, wait until so many changes have come, and return what they tell."""
        self.reader.wake()
        async with asyncio.timeout(60):
            while len(self.heard) < count:
                self._news.clear()
                await self._news.wait()
        told = [(each.keys, each.routes) for each in self.heard]
        self.heard.clear()
        return told


@pytest.fixture
def writer(boxed: None) -> Iterator[Writer]:
    """A connection of somebody's."""
    each = Writer(parameters())
    yield each
    each.connection.close()


@pytest.fixture
async def hearing(boxed: None) -> AsyncIterator[Hearing]:
    """A reader that reads."""
    each = Hearing()
    task = asyncio.create_task(each.reader.run())
    async with asyncio.timeout(60):
        await each.reader.live.wait()
    yield each
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_routes(hearing: Hearing, writer: Writer) -> None:
    """Values come with the keys as soon as they are wanted, and no longer."""
    insert = "INSERT INTO project_item (id, name, rank) VALUES (%s, %s, %s)"
    writer.rows(insert, 1, "a", 7)
    assert await hearing.until(1) == [(("1",), None)]

    hearing.routes = {ITEM: ["rank", "name"], "auth.user": ["id"]}
    writer.rows(insert, 2, "b", 7)
    writer.rows("UPDATE project_item SET rank = 8 WHERE id = 1")
    writer.rows("UPDATE project_item SET id = 3, rank = 9 WHERE id = 1")
    writer.rows("DELETE FROM project_item")
    writer.rows("TRUNCATE project_item CASCADE")
    *told, deleted, truncated = await hearing.until(5)
    assert told == [
        (("2",), {"rank": ("7",), "name": ("b",)}),
        (("1",), {"rank": ("8", "7"), "name": ("a",)}),
        (("3", "1"), {"rank": ("9", "8"), "name": ("a",)}),
    ]
    assert {name: sorted(each) for name, each in deleted[1].items()} == {
        "rank": ["7", "9"],
        "name": ["a", "b"],
    }
    assert truncated == (None, None)

    hearing.routes = {}
    writer.rows(insert, 4, "d", 7)
    assert await hearing.until(1) == [(("4",), None)]


async def test_more_than_is_told(hearing: Hearing, writer: Writer) -> None:
    """A statement that changed very many rows says: any of them."""
    hearing.routes = {ITEM: ["rank"]}
    writer.rows(
        "INSERT INTO project_item (id, name, rank) SELECT i, '', i FROM generate_series(1, 10001) i"
    )

    assert await hearing.until(1) == [(None, None)]


async def test_chunks(hearing: Hearing, writer: Writer) -> None:
    """Rows in several chunks tell their values chunk by chunk."""
    hearing.routes = {ITEM: ["rank"]}
    writer.rows(
        "INSERT INTO project_item (id, name, rank) SELECT i, '', i % 3 FROM generate_series(1, 1200) i"
    )

    told = await hearing.until(3)
    assert sorted(int(key) for keys, _ in told for key in keys) == list(range(1, 1201))
    assert {value for _, routes in told for value in routes["rank"]} == {"0", "1", "2"}
