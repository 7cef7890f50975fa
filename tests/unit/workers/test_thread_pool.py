"""The loader's own threads."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from pgobserve.workers import thread_pool
from pgobserve.workers.occupation import HookFailed
from pgobserve.workers.thread_pool import ThreadPool

if TYPE_CHECKING:
    from collections.abc import Iterator


def nothing() -> None:
    """Do nothing."""


def ours() -> set[threading.Thread]:
    """Return the loader threads that are alive."""
    return {t for t in threading.enumerate() if t.name.startswith("pgobserve-loader")}


@pytest.fixture
def calls() -> Iterator[list[str]]:
    """Note who called what, and check that no thread is left."""
    before = ours()
    yield []
    for thread in ours() - before:
        thread.join(60)
    assert ours() <= before


@pytest.mark.usefixtures("calls")
async def test_result() -> None:
    """What the function returns is returned; it ran in another thread."""
    pool = ThreadPool(1, nothing, nothing)

    assert await pool.run(threading.get_ident) != threading.get_ident()
    await pool.close()


@pytest.mark.usefixtures("calls")
@pytest.mark.parametrize("kind", [ValueError, StopAsyncIteration, RecursionError, MemoryError])
async def test_error(kind: type[Exception]) -> None:
    """What the function raises is raised where it is awaited, and the thread lives on."""
    pool = ThreadPool(1, nothing, nothing)

    def fail() -> None:
        raise kind("text")

    async with asyncio.timeout(60):
        with pytest.raises(kind):
            await pool.run(fail)
        assert await pool.run(lambda: 1) == 1
    await pool.close()


class Odd(BaseException):
    """No ``Exception``, and nothing to print."""

    def __str__(self) -> str:
        raise ValueError


@pytest.mark.usefixtures("calls")
@pytest.mark.parametrize(
    "kind",
    [StopIteration, asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit, Odd],
)
async def test_error_of_another_kind(kind: type[BaseException]) -> None:
    """What would end a task or the process arrives as an ordinary error, and the thread lives on."""
    pool = ThreadPool(1, nothing, nothing)

    def fail() -> None:
        raise kind

    async with asyncio.timeout(60):
        with pytest.raises(HookFailed) as caught:
            await pool.run(fail)
        assert isinstance(caught.value.__cause__, kind)
        assert await pool.run(lambda: 1) == 1
    await pool.close()


@pytest.mark.usefixtures("calls")
async def test_at_the_same_time() -> None:
    """As many functions run at the same time as there are threads."""
    pool = ThreadPool(2, nothing, nothing)
    barrier = threading.Barrier(2, timeout=60)

    await asyncio.gather(pool.run(barrier.wait), pool.run(barrier.wait))
    await pool.close()


@pytest.mark.usefixtures("calls")
async def test_given_up() -> None:
    """Who stops waiting leaves the function to its end; nobody minds its result."""
    pool = ThreadPool(1, nothing, nothing)
    for outcome in (nothing, lambda: 1 / 0):
        go, done = threading.Event(), threading.Event()

        def work(go: threading.Event = go, outcome: Any = outcome) -> None:
            go.wait(60)
            outcome()

        task = asyncio.create_task(pool.run(work))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        go.set()
        await pool.run(done.set)
        assert done.is_set()
    await pool.close()


async def test_close_by_who_is_cancelled(calls: list[str]) -> None:
    """A task that was cancelled can end the threads, and goes on with what it has to tidy up."""
    pool, release, tidied = ThreadPool(1, nothing, nothing), threading.Event(), []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await pool.close(timeout=0.01)
            tidied.append(True)

    stuck = asyncio.create_task(pool.run(release.wait))
    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    release.set()
    await stuck

    assert tidied == [True]


async def test_close(calls: list[str]) -> None:
    """Closing lets the threads do what was asked before, and then say farewell in each."""
    pool = ThreadPool(3, lambda: calls.append(threading.current_thread().name), nothing)
    last = asyncio.create_task(pool.run(lambda: calls.append("job")))
    await asyncio.sleep(0)
    await pool.close()
    await last

    assert calls[0] == "job" or "job" in calls
    assert len(set(calls)) == 4


@pytest.mark.usefixtures("calls")
async def test_stopped() -> None:
    """Stopped threads take nothing more, rather than let somebody wait for ever."""
    pool = ThreadPool(1, nothing, nothing)
    pool.stop()

    with pytest.raises(RuntimeError, match="stopped"):
        await pool.run(nothing)
    await pool.close()


async def test_farewell_that_fails(calls: list[str]) -> None:
    """A farewell that raises keeps no thread from ending."""
    pool = ThreadPool(2, lambda: calls.append("x") or 1 / 0, nothing)
    async with asyncio.timeout(60):
        await pool.close(timeout=60)

    assert len(calls) == 2


@pytest.mark.usefixtures("calls")
async def test_stuck() -> None:
    """A thread that is stuck is left behind, and ends once it is free."""
    pool = ThreadPool(1, nothing, nothing)
    go = threading.Event()
    stuck = asyncio.create_task(pool.run(lambda: go.wait(60)))
    await asyncio.sleep(0)
    await pool.close(timeout=0.01)

    assert not stuck.done()
    go.set()
    assert await stuck


async def test_idle(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread with nothing to do is told so, again and again, even if that fails."""
    monkeypatch.setattr(thread_pool, "IDLE", 0.01)
    twice = threading.Event()

    def idle() -> None:
        calls.append("idle")
        if len(calls) > 1:
            twice.set()
        raise ValueError("idle")

    pool = ThreadPool(1, nothing, idle)
    assert await asyncio.to_thread(twice.wait, 60)
    await pool.close()


def test_loop_is_gone(calls: list[str]) -> None:
    """A thread whose event loop was closed meanwhile ends without a sound."""
    go = threading.Event()

    async def leave_behind() -> None:
        pool = ThreadPool(1, lambda: calls.append("farewell"), nothing)
        task = asyncio.create_task(pool.run(lambda: go.wait(60)))
        await asyncio.sleep(0)
        await pool.close(timeout=0.01)
        task.cancel()

    asyncio.run(leave_behind())
    before = ours()
    assert before
    go.set()
    for thread in before:
        thread.join(60)
    assert calls == ["farewell"]


def test_exit_is_not_held() -> None:
    """The interpreter exits although a thread of ours is stuck."""
    program = (
        "import asyncio, threading\n"
        "from pgobserve.workers.thread_pool import ThreadPool\n"
        "async def main():\n"
        "    pool = ThreadPool(1, lambda: None, lambda: None)\n"
        "    task = asyncio.create_task(pool.run(threading.Event().wait))\n"
        "    await asyncio.sleep(0)\n"
        "    await pool.close(0.01)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=90, check=False)

    assert done.returncode == 0


@pytest.mark.usefixtures("calls")
async def test_forgets_what_it_did() -> None:
    """A thread that waits for work holds nothing of what it did last."""

    class Thing:
        """What a function knows."""

    each = ThreadPool(1, nothing, nothing)
    thing = Thing()
    gone = weakref.ref(thing)
    await each.run(lambda thing=thing: type(thing))  # type: ignore[misc]
    del thing
    async with asyncio.timeout(60):
        while gone() is not None:
            await asyncio.sleep(0.001)
            gc.collect()
    await each.close()
