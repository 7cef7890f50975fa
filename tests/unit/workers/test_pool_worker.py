"""Hooks that hold threads: others go on, the hook is given up, and takes no second thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest

from pgobserve.deliver.send_queue import SendQueue
from pgobserve.hub.hub import Hub, TableDependencies
from pgobserve.hub.load_requests import FAILED, LoadResult
from pgobserve.hub.outcome import View
from pgobserve.hub.snapshot import Snapshot
from pgobserve.hub.subscriptions import RowSubscription
from pgobserve.load import lanes
from pgobserve.load.loader import Loader
from pgobserve.workers.occupation import as_hook, occupation
from pgobserve.workers.pool_worker import ThreadHeld
from pgobserve.workers.thread_pool import HELD_BY_ONE, ThreadPool
from tests.rows import Rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from pgobserve.hub.load_requests import LoadRequest
    from pgobserve.hub.outcome import Outcome

ITEM = TableDependencies(("item",))
SNAPSHOT = Snapshot(100, 100, frozenset())


class Consumer:
    """The class of a hook."""


class Other:
    """The class of another one."""


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What hooks wait for; open at the end at the latest."""
    gate = threading.Event()
    yield gate
    gate.set()


def pool(**options: Any) -> ThreadPool:
    """Return one thread that hooks may hold but shortly."""
    given = {"hold": 0.05, "timeout": 60.0, **options}
    return ThreadPool(1, lambda: None, lambda: None, **given)


async def test_others_go_on(gate: threading.Event) -> None:
    """While a hook holds the only thread another one takes what comes next."""
    each = pool()

    def load() -> None:
        occupation().enter(Consumer, "hook", ("watch",))
        gate.wait(60)

    async with asyncio.timeout(60):
        with pytest.raises(ThreadHeld, match=r"Consumer\.hook") as caught:
            await each.run(load)
        assert caught.value.watches == ("watch",)
        assert await each.run(lambda: 1) == 1
        gate.set()
        await caught.value.held.ended.wait()  # it has left the pool
        await each.close()


async def test_long_work_in_many_hooks() -> None:
    """What takes long because it calls many hooks holds no thread."""
    each = pool(hold=1.0)
    pause = threading.Event()

    def load() -> int:
        for _ in range(20):
            occupation().enter(Consumer, "hook", ("watch",))
            pause.wait(0.06)  # together longer than a thread may be held, each by far not
        return 1

    async with asyncio.timeout(60):
        assert await each.run(load) == 1
        await each.close()


async def test_given_up(gate: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
    """A hook that does not return is given up; the log names it and shows where it is."""
    each = pool(timeout=0.1)

    def get_stuck() -> None:
        gate.wait(60)

    async with asyncio.timeout(60):
        with pytest.raises(ThreadHeld) as caught:
            await each.run(lambda: as_hook(Consumer, "hook", get_stuck), owner=Consumer)
        assert caught.value.held.given_up
        assert not caught.value.held.ended.is_set()
        assert await each.run(lambda: 1) == 1
        gate.set()
        await caught.value.held.ended.wait()
        await each.close()

    record, returned = caplog.records
    assert "Consumer.hook has held a thread" in record.getMessage()
    assert "in get_stuck" in record.getMessage()
    assert returned.levelname == record.levelname == "ERROR"
    assert "Consumer.hook has returned, in database 'default'" in returned.getMessage()


async def test_endless_loop() -> None:
    """An endless loop in Python ends when it is given up, though it catches what it can."""
    each = pool(timeout=0.1)

    def loop() -> None:
        while True:
            with contextlib.suppress(Exception):
                int("x")

    async with asyncio.timeout(60):
        with pytest.raises(ThreadHeld) as caught:
            await each.run(lambda: as_hook(Consumer, "hook", loop), owner=Consumer)
        await caught.value.held.ended.wait()
        assert await each.run(lambda: 1) == 1
        await each.close()


async def test_one_class_holds_few_threads(gate: threading.Event) -> None:
    """A class whose hooks hold threads gets no more than some; another one does."""
    each = pool()
    calls = [
        asyncio.create_task(
            each.run(lambda: as_hook(Consumer, "hook", lambda: gate.wait(60)), owner=Consumer)
        )
        for _ in range(HELD_BY_ONE)
    ]
    async with asyncio.timeout(60):
        while each.held_by(Consumer) < HELD_BY_ONE:  # noqa: ASYNC110 (nothing says when)
            await asyncio.sleep(0.01)
        with pytest.raises(ThreadHeld):
            await each.run(lambda: 1, owner=Consumer)
        assert await each.run(lambda: 1, owner=Other) == 1
        gate.set()
        assert await asyncio.gather(*calls) == [True] * HELD_BY_ONE
        await each.close()


class Bench:
    """A loader whose rows are read by hooks, one for each subscription."""

    def __init__(self, hook: Any, timeout: float = 60.0) -> None:
        self.hub = Hub()
        self._hook = hook
        source = Rows(self._load)
        source.owner = lambda watch: watch.context  # type: ignore[method-assign]
        self.loader = Loader("default", self.hub, source, 2, timeout=timeout)
        self.task = asyncio.create_task(self.loader.run())
        self.frames: list[tuple[Any, Outcome]] = []
        self.news = asyncio.Event()

    def _load(self, jobs: Sequence[LoadRequest]) -> list[LoadResult]:
        for job in jobs:
            for watch in job.watches:
                occupation().enter(watch.context, "hook", (watch,))
                self._hook(watch)
        occupation().leave()
        return [LoadResult(job, SNAPSHOT, View.of(str(job.row.key))) for job in jobs]

    def watch(self, key: int, name: str, owner: type = Consumer) -> asyncio.Future[Outcome]:
        """Begin a subscription; the future is its first outcome."""
        first: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def read() -> None:
            while (item := send_queue.take()) is not None:
                self.frames.append((name, item[1]))
                self.news.set()

        send_queue = SendQueue(read)
        self.hub.add(RowSubscription(send_queue, key, name, owner, first.set_result), ITEM)
        return first

    async def until(self, frame: tuple[Any, Outcome]) -> None:
        """Wait until a frame was sent."""
        while frame not in self.frames:
            self.news.clear()
            await self.news.wait()


@pytest.fixture
async def bench() -> AsyncIterator[Any]:
    """Return a function that makes a loader; all are ended afterwards."""
    made: list[Bench] = []

    def make(hook: Any, **options: Any) -> Bench:
        made.append(Bench(hook, **options))
        return made[-1]

    yield make
    for each in made:
        each.task.cancel()
        await asyncio.gather(each.task, return_exceptions=True)


async def test_culprit_among_others(bench: Any, gate: threading.Event) -> None:
    """Others of a batch, of the same row and class too, are served while one's hook hangs."""
    each = bench(lambda watch: watch.request_id == "bad" and gate.wait(60))
    bad, same = each.watch(1, "bad"), each.watch(1, "same row")
    mate, other = each.watch(2, "mate"), each.watch(3, "other", Other)
    each.loader.kick()
    async with asyncio.timeout(60):
        assert await asyncio.gather(same, mate, other) == [View.of(k) for k in ("1", "2", "3")]
        assert not bad.done()
        gate.set()
        assert await bad == View.of("1")


async def test_culprit_is_given_up(
    bench: Any, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hears an error, takes no second thread meanwhile, and is healed when its hook returns."""
    monkeypatch.setattr(lanes, "FIRST_DELAY", 0.01)
    calls = []

    def hook(watch: RowSubscription) -> None:
        if watch.request_id == "bad":
            calls.append(1)
            gate.wait(60)

    each = bench(hook, timeout=1.5)
    bad, other = each.watch(1, "bad"), each.watch(2, "other", Other)
    each.loader.kick()
    async with asyncio.timeout(60):
        assert await other == View.of("2")
        assert await bad == FAILED
        each.hub.publish("item", 101, [1, 2])
        each.loader.kick()
        assert len(calls) == 1
        gate.set()
        await each.until(("bad", View.of("1")))


async def test_returns_from_its_lane(
    bench: Any, gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """After some quick loads a subscription is read with all others again, and the log has it."""
    each = bench(lambda watch: watch.request_id == "bad" and gate.wait(60))
    bad, other = each.watch(1, "bad"), each.watch(2, "other", Other)
    each.loader.kick()
    async with asyncio.timeout(60):
        await other
        gate.set()
        await bad
        for xid in range(101, 200):
            if not each.hub._lanes:
                break
            each.hub.publish("item", xid, [1])
            each.loader.kick()
            await asyncio.sleep(0.01)

    assert not each.hub._lanes
    held, again = caplog.records
    assert held.levelname == again.levelname == "WARNING"
    assert "is quick again in database 'default': 1 subscriptions" in again.getMessage()


async def test_supervised(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A task that other code cancels is named in the log, and the work goes on."""
    each = bench(lambda watch: None)
    async with asyncio.timeout(60):
        await each.loader.call(lambda: None)  # its tasks have begun by then
        named = "pgobserve-loader-"
        tasks = [task for task in asyncio.all_tasks() if task.get_name().startswith(named)]
        assert tasks
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        first = each.watch(1, "one")
        each.loader.kick()
        assert await first == View.of("1")

    assert "was cancelled" in caplog.text
