"""Delays between attempts, retries of reads that failed, and the restart of tasks that must never end."""

from __future__ import annotations

import asyncio
from itertools import count, islice, pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgobserve.deliver.send_queue import SendQueue
from pgobserve.hub.hub import Hub, RowState, TableDependencies
from pgobserve.hub.subscriptions import RowSubscription
from pgobserve.workers import retrying as backoff_module
from pgobserve.workers.retrying import Attempts, Retries, Supervisor, backoff

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_ceiling_doubles_up_to_the_cap() -> None:
    """Each wait may be twice as long as the one before, until the cap, without an end."""
    waits = list(islice(backoff(0.1, 1.0, draw=lambda: 1.0), 7))

    assert waits == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]


def test_full_jitter() -> None:
    """A wait may be nothing at all, so that not all processes come at once."""
    assert list(islice(backoff(draw=lambda: 0.0), 20)) == [0.0] * 20


@given(st.floats(0, 0.999), st.floats(0.001, 10), st.floats(10, 100))
def test_bounds(luck: float, first: float, cap: float) -> None:
    """No wait is negative or above the cap, and with the same luck none is shorter than the last."""
    waits = list(islice(backoff(first, cap, draw=lambda: luck), 50))

    assert all(0 <= wait <= cap for wait in waits)
    assert all(before <= after for before, after in pairwise(waits))


def test_each_starts_anew() -> None:
    """Two back-offs share nothing."""
    used = backoff(draw=lambda: 1.0)
    list(islice(used, 10))

    assert next(backoff(0.1, draw=lambda: 1.0)) == 0.1


async def test_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attempt comes at once, and delays grow until an attempt has lasted."""
    now, slept = 0.0, list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(backoff_module, "backoff", lambda: backoff(1.0, 8.0, draw=lambda: 1.0))
    monkeypatch.setattr(backoff_module.time, "monotonic", lambda: now)
    number = 0
    async for _ in Attempts():
        number += 1
        if number == 4:
            now += 60
        if number == 6:
            break

    assert slept == [1.0, 2.0, 4.0, 1.0, 2.0]


def at_once() -> Iterator[float]:
    """Yield no delay, again and again."""
    while True:
        yield 0.0


async def fail() -> None:
    """End by an exception."""
    raise ZeroDivisionError


async def cancel() -> None:
    """End as if cancelled."""
    raise asyncio.CancelledError


async def end() -> None:
    """Return."""


@pytest.mark.parametrize(
    ("work", "how"), [(fail, "failed"), (cancel, "was cancelled"), (end, "returned")]
)
async def test_starts_again(work: object, how: str, caplog: pytest.LogCaptureFixture) -> None:
    """A task that ends is named in the log, with how it ended, and runs again."""
    runs = [work, end]
    lives = asyncio.Event()

    async def once_only() -> None:
        if len(runs) == 2:
            await runs.pop(0)()  # type: ignore[operator]
        else:
            lives.set()
            await asyncio.Event().wait()

    failures: list[None] = []
    supervisor = Supervisor("the feed", lambda: failures.append(None), at_once)
    task = asyncio.create_task(supervisor.run({"listener": once_only}))
    async with asyncio.timeout(60):
        await lives.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    record, again = caplog.records
    assert record.levelname == again.levelname == "CRITICAL"
    assert f"listener of the feed {how}" in record.getMessage()
    assert "listener of the feed runs again" in again.getMessage()
    assert (supervisor.restarts, len(failures)) == (1, 1)


async def test_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    """A task is not touched by the end of another, nor by what its end calls."""
    ended = asyncio.Event()
    went_on = asyncio.Event()

    async def other() -> None:
        await ended.wait()
        went_on.set()
        await asyncio.Event().wait()

    def on_failure() -> None:
        ended.set()
        raise RuntimeError

    supervisor = Supervisor("the feed", on_failure, lambda: iter([60.0]))
    task = asyncio.create_task(supervisor.run({"loader": fail, "other": other}))
    async with asyncio.timeout(60):
        await went_on.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert any("after the end of the task loader" in each.getMessage() for each in caplog.records)


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
