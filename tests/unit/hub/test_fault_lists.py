"""Lists when something goes wrong, or very much happens at once: others are served all the same."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from django.db import OperationalError

from pgobserve.deliver.delivery import YIELD_EVERY, Delivery
from pgobserve.deliver.send_queue import SendQueue
from pgobserve.hub.hub import Hub, ReverseLookup, TableDependencies
from pgobserve.hub.list_deliveries import admit
from pgobserve.hub.list_state import ListRow
from pgobserve.hub.load_requests import (
    ListLoadRequest,
    ListLoadResult,
    LoadRequest,
    LoadResult,
)
from pgobserve.hub.outcome import View
from pgobserve.hub.snapshot import Snapshot
from pgobserve.hub.subscriptions import ListSnapshot, ListSubscription
from pgobserve.listen.trigger_monitor import TriggerMonitor
from pgobserve.load import batches as batches_module
from pgobserve.load.loader import Loader
from pgobserve.workers.retrying import Retries

if TYPE_CHECKING:
    from collections.abc import Sequence


class Way:
    """A link whose changed rows' keys are led back."""

    table = "b"
    column = None


LINK: Any = Way()
SUBJECT = TableDependencies(("a",), (), (LINK,))
SNAPSHOT = Snapshot(100, 100, frozenset())
LATER = Snapshot(200, 200, frozenset())


class Source:
    """
    Lists of rows that are numbers.

    Attributes:
        rows: Those that there are.
        own: Each sees them in a way of his own.
    """

    def __init__(self, rows: Sequence[int], *, own: bool = False) -> None:
        self.rows = rows
        self.own = own

    def load(self, jobs: Sequence[LoadRequest]) -> list[LoadResult]:
        return [LoadResult(job, LATER, View.of(f'"new {job.key}"')) for job in jobs]

    def load_lists(self, jobs: Sequence[ListLoadRequest]) -> list[ListLoadResult]:
        return [self._whole(job) for job in jobs]

    def _whole(self, whole: ListLoadRequest) -> ListLoadResult:
        watches = (*whole.watches, *whole.newcomers)
        found = [
            LoadResult(
                LoadRequest(ListRow(whole.roster, key), watches),
                SNAPSHOT,
                View.of(str(key)),
                {w: View.of(f'"{key} of {w.request_id}"') for w in watches} if self.own else {},
            )
            for key in self.rows
        ]
        return ListLoadResult(whole, SNAPSHOT, found)

    def resolve(self, lookup: ReverseLookup) -> list[Any] | None:
        return list(lookup.values)


class Bench:
    """A hub, and a loader that runs."""

    def __init__(self, source: Source) -> None:
        self.hub = Hub()
        self.source = source
        self.loader = Loader("default", self.hub, source, 1)
        self.task = asyncio.create_task(self.loader.run())
        self.frames: list[Any] = []

    def _take(self, send_queue: SendQueue) -> None:
        while (item := send_queue.take()) is not None:
            self.frames.append(item)

    def watch(self, number: int) -> asyncio.Future[ListSnapshot]:
        """Begin a subscription; the future is its list."""
        first: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        send_queue = SendQueue(lambda: self._take(send_queue))
        watch = ListSubscription(send_queue, number, None, lambda listed: first.set_result(listed))
        self.hub.add_list(watch, SUBJECT, "list")
        return first

    async def lists(self, count: int) -> list[ListSnapshot]:
        futures = [self.watch(number) for number in range(count)]
        self.loader.kick()
        async with asyncio.timeout(60):
            return await asyncio.gather(*futures)

    async def idle(self) -> None:
        """Wait until nothing is being read any more."""
        self.loader.kick()
        async with asyncio.timeout(60):
            while self.hub.busy:
                assert not self.task.done(), "the loader has ended"
                await asyncio.sleep(0.001)

    async def aclose(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(batches_module, "backoff", lambda: iter(lambda: 0.0, None))


async def test_vigil_whose_query_fails() -> None:
    """A look at the triggers that fails is made again, and ends nothing."""
    answers = [OperationalError("canceling statement due to lock timeout"), None]
    done = asyncio.Event()

    async def is_observed(table: str) -> bool:
        if (error := answers.pop(0)) is not None:
            raise error
        done.set()
        return True

    vigil = TriggerMonitor(lambda: ["a"], is_observed, lambda: None, period=0.001)
    task = asyncio.create_task(vigil.run())
    waiting = asyncio.create_task(done.wait())
    async with asyncio.timeout(60):
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)

    assert done.is_set()
    task.cancel()
    waiting.cancel()
    await asyncio.gather(task, waiting, return_exceptions=True)


async def longest(bench: Bench, work: asyncio.Future[Any]) -> int:
    """Return how many frames were put, or lists made, at most between two turns of others."""
    found, before = 0, len(bench.frames)
    while not work.done():
        await asyncio.sleep(0)
        found, before = max(found, len(bench.frames) - before), len(bench.frames)
    return found


async def test_many_rows_gone_at_once() -> None:
    """Between the frames of a list's many deletes to many clients others have their turns."""
    bench = Bench(Source(range(40)))
    await bench.lists(200)
    bench.source.rows = []
    bench.hub.publish("a", 150, None)

    most = await longest(bench, asyncio.ensure_future(bench.idle()))

    assert len(bench.frames) == 40 * 200
    assert most <= 2 * YIELD_EVERY
    await bench.aclose()


async def test_many_newcomers_with_rows_of_their_own() -> None:
    """Between the lists of many clients who each see other rows others have their turns."""
    bench = Bench(Source(range(100), own=True))
    done: list[int] = []
    futures = [bench.watch(number) for number in range(200)]
    bench.loader.kick()
    async with asyncio.timeout(60):
        while not all(future.done() for future in futures):
            await asyncio.sleep(0)
            done.append(sum(future.done() for future in futures))

    assert max(b - a for a, b in zip([0, *done], done, strict=False)) * 100 <= 2 * YIELD_EVERY
    await bench.aclose()


async def test_moved_once() -> None:
    """Who goes on with another list is sent there once, though many of his rows were read."""
    hub = Hub()
    watch = ListSubscription(SendQueue(lambda: None), 1, None, lambda *_: None)
    crowd = [
        ListSubscription(SendQueue(lambda: None), n, None, lambda *_: None)
        for n in range(YIELD_EVERY)
    ]
    for each in (watch, *crowd):
        hub.add_list(each, SUBJECT, "one")
    (roster,) = hub.take_lists(500)
    for each in (watch, *crowd):
        admit(roster, each, [])
    roster.done_whole(SNAPSHOT)
    hub.publish("a", 150, [1, 2])
    entries = [entry for entry in hub.take(500) if isinstance(entry, ListRow)]
    moved: Any = {watch: (SUBJECT, "two")}
    found = [
        LoadResult(LoadRequest(entry, roster.audience), LATER, View.of("1"), moved=moved)
        for entry in entries
    ]

    task = asyncio.create_task(Delivery(hub, Retries(hub.mark)).rows(found))
    await asyncio.sleep(0)
    (other,) = hub.take_lists(500)
    admit(other, watch, [])
    other.done_whole(LATER)
    await task

    assert watch.roster is other
    assert other.wanted
    assert watch in other.watches
