"""Rows whose query failed."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Any

from pgobserve.deliver.send_queue import SendQueue
from pgobserve.hub.hub import Hub, RowState, TableDependencies
from pgobserve.hub.subscriptions import RowSubscription
from pgobserve.workers.retrying import Retries

if TYPE_CHECKING:
    from collections.abc import Iterator

PEOPLE = TableDependencies(("person",))


def watched() -> tuple[Hub, RowState, RowSubscription]:
    """Return a row that somebody watches."""
    hub = Hub()
    watch = RowSubscription(SendQueue(lambda: None), 1, "r", None, lambda *_: None)
    hub.add(watch, PEOPLE)
    [row] = hub.take(1)
    return hub, row, watch


async def test_row_is_called_back() -> None:
    """A failed row is handed back after its delay, until it succeeds."""
    _, row, _ = watched()
    called = asyncio.Event()
    got: list[RowState] = []

    def again(row: RowState) -> None:
        got.append(row)
        called.set()

    repeats = Retries(again, lambda: iter([0.0, 0.0]))
    repeats.failed(row)
    assert row in repeats
    await called.wait()
    called.clear()
    repeats.failed(row)
    await called.wait()
    repeats.succeeded(row)

    assert got == [row, row]
    assert row not in repeats


async def test_delays_grow_for_each_row_by_itself() -> None:
    """A row that fails again goes on with its own delays; after a success they begin anew."""
    _, row, _ = watched()
    _, other, _ = watched()
    taken: list[tuple[int, float]] = []
    numbers = count()

    def delays() -> Iterator[float]:
        mine = next(numbers)
        for delay in (100.0, 200.0):
            taken.append((mine, delay))
            yield delay

    repeats = Retries(lambda _: None, delays)
    for each in (row, other, row):
        repeats.failed(each)
    repeats.succeeded(row)
    repeats.failed(row)
    repeats.end()

    assert taken == [(0, 100.0), (1, 100.0), (0, 200.0), (2, 100.0)]


async def test_row_that_nobody_watches_any_more() -> None:
    """A row whose last watcher has left is forgotten."""
    hub, row, watch = watched()
    got: list[Any] = []
    repeats = Retries(got.append, lambda: iter([0.0]))
    repeats.failed(row)
    hub.discard(watch)
    while row in repeats:  # noqa: ASYNC110 (the timer is due at once)
        await asyncio.sleep(0)

    assert got == []


async def test_end() -> None:
    """After the end nobody is called."""
    _, row, _ = watched()
    got: list[Any] = []
    repeats = Retries(got.append, lambda: iter([0.0]))
    repeats.failed(row)
    repeats.end()
    await asyncio.sleep(0.01)

    assert got == []
