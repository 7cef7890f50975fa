"""Taking dirty rows from the hub, reading them in threads, delivering what was found."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from typing import TYPE_CHECKING, Any

import pytest
from django.db import OperationalError

from pgobserve.database.connection_watchdog import Unreachable
from pgobserve.deliver.send_queue import SendQueue
from pgobserve.hub.hub import Hub, TableDependencies
from pgobserve.hub.load_requests import NEVER, ListLoadResult, LoadResult
from pgobserve.hub.outcome import UNREAD, View
from pgobserve.hub.snapshot import Snapshot
from pgobserve.hub.subscriptions import ListSubscription, RowSubscription
from pgobserve.load import batches as batches_module
from pgobserve.load.loader import Loader
from tests.rows import Rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Hashable, Sequence

    from pgobserve.hub.load_requests import ListLoadRequest, LoadRequest
    from pgobserve.hub.outcome import Outcome

ITEM = TableDependencies(("item",))
SNAPSHOT = Snapshot(100, 100, frozenset())


def found(jobs: Sequence[LoadRequest]) -> list[LoadResult]:
    """Find every row, its key being its body."""
    return [LoadResult(job, SNAPSHOT, View.of(str(job.row.key))) for job in jobs]


class Bench:
    """A hub, and a loader that runs."""

    def __init__(
        self, load: Callable[[Sequence[LoadRequest]], Sequence[LoadResult]], threads: int = 1
    ) -> None:
        self.hub = Hub()
        self.loader = Loader("default", self.hub, Rows(load), threads)
        self.task = asyncio.create_task(self.loader.run())

    def watch(self, key: int) -> asyncio.Future[Outcome]:
        """Begin a subscription; the future is its first outcome."""
        first: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        watch = RowSubscription(SendQueue(lambda: None), key, 1, None, first.set_result)
        self.hub.add(watch, ITEM)
        return first

    async def first(self, *keys: int) -> list[Outcome]:
        """Watch rows and return how that begins."""
        futures = [self.watch(key) for key in keys]
        self.loader.kick()
        async with asyncio.timeout(60):
            return await asyncio.gather(*futures)

    async def aclose(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def bench() -> AsyncIterator[Callable[..., Bench]]:
    """Return a function that makes a loader; all are ended afterwards."""
    async with contextlib.AsyncExitStack() as stack:

        def make(
            load: Callable[[Sequence[LoadRequest]], Sequence[LoadResult]], threads: int = 1
        ) -> Bench:
            made = Bench(load, threads)
            stack.push_async_callback(made.aclose)
            return made

        yield make


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(batches_module, "backoff", lambda: iter(lambda: 0.0, None))


async def test_one_batch(bench: Any) -> None:
    """What is dirty at a time is read at a time, and each watcher gets his row."""
    batches: list[int] = []

    def load(jobs: Sequence[LoadRequest]) -> list[LoadResult]:
        batches.append(len(jobs))
        return found(jobs)

    each = bench(load)

    assert await each.first(*range(20)) == [View.of(str(key)) for key in range(20)]
    assert batches == [20]
    assert (each.loader.state.batches, each.loader.state.rows) == (1, 20)
    assert not each.hub.busy


async def test_batches_grow(bench: Any) -> None:
    """What becomes dirty during a load is read by the next one, in one batch."""
    go, began, batches = threading.Event(), threading.Event(), []

    def load(jobs: Sequence[LoadRequest]) -> list[LoadResult]:
        batches.append(len(jobs))
        began.set()
        assert go.wait(60)
        return found(jobs)

    each = bench(load)
    first = asyncio.create_task(each.first(1))
    assert await asyncio.to_thread(began.wait, 60)
    rest = [asyncio.create_task(each.first(key)) for key in range(2, 9)]
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(first, *rest)

    assert batches == [1, 7]


async def test_changed_during_its_load(bench: Any) -> None:
    """A row that changes during its load is read again after it, by whichever thread is free."""
    go, began, batches = threading.Event(), threading.Event(), []

    def load(jobs: Sequence[LoadRequest]) -> list[LoadResult]:
        batches.append([job.row.key for job in jobs])
        if batches[-1] == [1] and not began.is_set():
            began.set()
            assert go.wait(60)
        return found(jobs)

    each = bench(load, threads=2)
    first = asyncio.create_task(each.first(1))
    assert await asyncio.to_thread(began.wait, 60)
    second = asyncio.create_task(each.first(1))
    await each.first(2)  # the other thread is free, and finds nothing more to do
    go.set()

    assert await first == await second == [View.of("1")]
    assert batches == [[1], [2], [1]]


async def test_batch_limit(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch has a limit; what is beyond it comes next."""
    monkeypatch.setattr(batches_module, "MAX_KEYS_PER_QUERY", 3)
    batches = []
    each = bench(lambda jobs: [batches.append(len(jobs)), found(jobs)][1])

    await each.first(*range(8))

    assert batches == [3, 3, 2]


async def test_special(bench: Any) -> None:
    """Who sees something else than the others gets that."""

    def load(jobs: Sequence[LoadRequest]) -> list[LoadResult]:
        all_found = found(jobs)
        for item in all_found:
            item.special[item.job.watches[1]] = View.of("secret")
        return all_found

    assert await bench(load).first(1, 1) == [View.of("1"), View.of("secret")]


@pytest.mark.parametrize("kind", [ValueError, StopIteration, RecursionError])
async def test_one_bad_row(
    bench: Any, kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    """A row that can't be read is found, logged and told; the others of its batch are served."""

    def load(jobs: Sequence[LoadRequest]) -> list[LoadResult]:
        if any(job.row.key == 5 for job in jobs):
            raise kind("bad row")
        return found(jobs)

    each = bench(load)
    outcomes = await each.first(*range(9))

    assert outcomes == [UNREAD if key == 5 else View.of(str(key)) for key in range(9)]
    (record,) = caplog.records
    assert record.getMessage() == (
        f"Reading project.Item 5 for {record.consumer} failed in database 'default'; its 1 "  # type: ignore[attr-defined]
        "subscribers receive an error."
    )
    assert (record.model, record.key) == ("project.Item", "5")  # type: ignore[attr-defined]
    assert not each.hub.busy
    assert await each.first(77) == [View.of("77")]


async def test_bad_row_is_read_again_when_it_changes(bench: Any) -> None:
    """A failure is no snapshot: the next change has the row read again, whatever its transaction."""
    bad = [True]

    def load(jobs: Sequence[LoadRequest]) -> list[LoadResult]:
        if bad:
            raise ValueError
        return found(jobs)

    each = bench(load)
    assert await each.first(1) == [UNREAD]
    bad.clear()
    each.hub.publish("item", NEVER.xmax, [1])

    assert each.hub.dirty == 1


async def test_database_away(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    """While the database can't be reached it is tried again; that is logged once, nothing is lost."""
    tries = []

    def load(jobs: Sequence[LoadRequest]) -> list[LoadResult]:
        tries.append(len(jobs))
        if len(tries) < 5:
            raise OperationalError("down\n")
        return found(jobs)

    each = bench(load)
    assert await each.first(1, 2, 3) == [View.of("1"), View.of("2"), View.of("3")]

    assert tries == [3] * 5
    lost, again = (record.getMessage() for record in caplog.records)
    assert lost == (
        "Reading from database 'default' failed: down. Its 3 subscriptions keep their last state. "
        "The loader retries."
    )
    assert re.match(
        r"Database 'default' answers again after [\d.]+ s and 4 attempts; 3 rows", again
    )
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert each.loader.state.failures == 0


async def test_call(bench: Any) -> None:
    """A call runs in one of the threads; that the database is away is an error of its own."""
    each = bench(found)

    assert (await each.loader.call(threading.current_thread)).name.startswith("pgobserve-loader")
    with pytest.raises(ZeroDivisionError):
        await each.loader.call(lambda: 1 / 0)
    with pytest.raises(Unreachable, match=r"^down$"):
        await each.loader.call(_down)


def _down() -> None:
    raise OperationalError("down\n")


@pytest.mark.parametrize("failing_before", [False, True])
async def test_cancelled_during_a_load(bench: Any, failing_before: bool) -> None:
    """A loader that is ended during a load gives back all of its rows, for the next loader."""
    go, began = threading.Event(), threading.Event()

    def load(jobs: Sequence[LoadRequest]) -> list[LoadResult]:
        if len(jobs) > 1 and failing_before:
            raise ValueError
        began.set()
        go.wait(60)
        return found(jobs)

    each = bench(load)
    futures = [each.watch(key) for key in range(4)]
    each.loader.kick()
    assert await asyncio.to_thread(began.wait, 60)
    each.task.cancel()
    go.set()
    await asyncio.gather(each.task, return_exceptions=True)

    assert each.hub.dirty == 4
    assert sorted(row.key for row in each.hub.take(10)) == [0, 1, 2, 3]
    assert not any(future.done() for future in futures)


async def test_delivery_that_fails(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A task that ends by an error is named in the log and starts again; all rows are read."""
    each = bench(found)
    futures = [each.watch(key) for key in range(4)]
    futures[1].set_result(None)  # the second delivery finds it done, and raises
    each.loader.kick()
    async with asyncio.timeout(60):
        assert [await futures[key] for key in (0, 2, 3)] == [View.of(str(k)) for k in (0, 2, 3)]

    record, again = [r for r in caplog.records if r.levelname == "CRITICAL"]
    assert "pgobserve-loader-0" in record.getMessage()
    assert "pgobserve-loader-0 of the loader of database 'default' runs again" in again.getMessage()
    assert isinstance(record.exc_info[1], asyncio.InvalidStateError)  # type: ignore[index]
    assert not any(row.loading for row in each.hub._watches.values())


async def test_stop_without_run() -> None:
    """A loader whose run never had a turn can be stopped: no thread is left, no call hangs."""
    before = set(threading.enumerate())
    loader = Loader("default", Hub(), Rows(found), 2)
    assert await loader.call(lambda: 1) == 1
    loader.stop()
    loader.stop()

    with pytest.raises(Unreachable, match="stopped"):
        await loader.call(lambda: 1)
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
    assert set(threading.enumerate()) <= before


async def test_no_loader_thread_is_left(bench: Any) -> None:
    """When run has ended, so have its threads."""
    before = set(threading.enumerate())
    each = bench(found, threads=2)
    await each.first(1)
    await each.aclose()

    for thread in set(threading.enumerate()) - before:
        thread.join(60)
    assert set(threading.enumerate()) <= before


class Lists(Rows):
    """Finds no rows on any list, and says which lists were read together."""

    def __init__(self, answer: Callable[[Sequence[ListLoadRequest]], Any]) -> None:
        super().__init__(found)
        self.read: list[set[Hashable]] = []
        self._answer = answer

    def load_lists(self, jobs: Sequence[ListLoadRequest]) -> Any:
        self.read.append({job.roster.identity for job in jobs})
        return self._answer(jobs)


async def begin_lists(lists: Lists, count: int) -> list[Any]:
    """Subscribe to some lists at once; return how that begins."""
    hub = Hub()
    loader = Loader("default", hub, lists, 1)
    firsts = [asyncio.get_running_loop().create_future() for _ in range(count)]
    for number, first in enumerate(firsts):

        def begun(listed: Any, first: asyncio.Future[Any] = first) -> None:
            first.set_result(listed)

        watch = ListSubscription(SendQueue(lambda: None), 1, None, begun)
        hub.add_list(watch, ITEM, number)
    task = asyncio.create_task(loader.run())
    loader.kick()
    try:
        async with asyncio.timeout(60):
            return await asyncio.gather(*firsts)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def nothing(job: ListLoadRequest) -> ListLoadResult:
    """Find no rows."""
    return ListLoadResult(job, SNAPSHOT, ())


async def test_lists_are_read_together() -> None:
    """Lists that wait at the same time are read by one load."""
    lists = Lists(lambda jobs: [nothing(job) for job in jobs])

    assert [listed.rows for listed in await begin_lists(lists, 3)] == [[], [], []]
    assert lists.read == [{0, 1, 2}]


async def test_list_that_has_to_be_read_alone() -> None:
    """A list that a load leaves out is read by one of its own; the others are told at once."""
    lists = Lists(
        lambda jobs: [
            None if len(jobs) > 1 and job.roster.identity == 1 else nothing(job) for job in jobs
        ]
    )

    await begin_lists(lists, 3)

    assert lists.read == [{0, 1, 2}, {1}]


async def test_lists_that_can_not_be_read_together() -> None:
    """Where a load of several lists raises, each is read by one of its own."""

    def answer(jobs: Sequence[ListLoadRequest]) -> list[ListLoadResult]:
        if len(jobs) > 1:
            raise ValueError("one of them")
        return [nothing(jobs[0])]

    lists = Lists(answer)
    await begin_lists(lists, 3)

    assert sorted(lists.read, key=len) == [{0}, {1}, {2}, {0, 1, 2}]


@pytest.mark.parametrize("gather_time", [0, 3600])
async def test_newcomers_gather(monkeypatch: pytest.MonkeyPatch, gather_time: float) -> None:
    """After a read for a crowd, the next newcomers wait for a while, or for a read that is due anyway."""
    monkeypatch.setattr(batches_module, "GATHER_TIME", gather_time)
    hub, lists = Hub(), Lists(lambda jobs: [nothing(job) for job in jobs])
    loader = Loader("default", hub, lists, 1)
    task = asyncio.create_task(loader.run())

    def add() -> asyncio.Future[Any]:
        first: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        watch = ListSubscription(SendQueue(lambda: None), 1, None, first.set_result)
        hub.add_list(watch, ITEM, "list")
        loader.kick()
        return first

    try:
        async with asyncio.timeout(60):
            await asyncio.gather(*(add() for _ in range(batches_module.CROWD)))
            newcomer = add()
            if gather_time:
                await loader.call(lambda: None)
                assert not newcomer.done()
                hub.publish_gap()
                loader.kick()
            await newcomer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert len(lists.read) == 2


async def test_rows_do_not_wait_for_lists() -> None:
    """While lists are read, however long that takes, a thread is left for rows."""
    go_on, reading = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def answer(jobs: Sequence[ListLoadRequest]) -> list[ListLoadResult]:
        loop.call_soon_threadsafe(reading.set)
        go_on.wait(60)
        return [nothing(job) for job in jobs]

    hub, lists = Hub(), Lists(answer)
    loader = Loader("default", hub, lists, 2)
    task = asyncio.create_task(loader.run())
    firsts: list[asyncio.Future[Any]] = [loop.create_future() for _ in range(3)]

    def add_list(number: int) -> None:
        def begun(listed: Any) -> None:
            firsts[number].set_result(listed)

        hub.add_list(ListSubscription(SendQueue(lambda: None), 1, None, begun), ITEM, number)
        loader.kick()

    try:
        async with asyncio.timeout(60):
            add_list(0)
            await reading.wait()
            add_list(1)
            # Both of the loader's tasks have seen the second list when this has been called.
            await loader.call(lambda: None)
            watch = RowSubscription(
                SendQueue(lambda: None), 5, 1, None, lambda outcome: firsts[2].set_result(outcome)
            )
            hub.add(watch, ITEM)
            loader.kick()
            assert await firsts[2] == View.of("5")
            assert not firsts[0].done()
            assert not firsts[1].done()
            go_on.set()
            await asyncio.gather(*firsts)
    finally:
        go_on.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
