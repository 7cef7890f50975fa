"""Starting a coroutine at once, with a task only if it has to wait."""

from __future__ import annotations

import asyncio

import pytest

from pgobserve.deliver.frame_writer import start


async def test_no_task_without_waiting() -> None:
    """What does not wait is done when start returns, and needs no task."""
    done = []

    async def work() -> None:
        done.append(1)

    before = asyncio.all_tasks()
    assert start(work(), "work") is None
    assert done == [1]
    assert asyncio.all_tasks() == before


async def test_awaitable() -> None:
    """What is no coroutine but can be awaited, as some servers' send, is awaited too."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    task = start(future, "work")
    assert task is not None
    future.set_result(None)
    await task

    assert start(future, "work") is None


async def test_error_before_waiting() -> None:
    """What is raised before waiting is raised by start."""

    async def work() -> None:
        raise ValueError("at once")

    with pytest.raises(ValueError, match="at once"):
        start(work(), "work")


async def test_waiting_goes_on_in_a_task() -> None:
    """What waits goes on in a task of that name, for as many waits as it has."""
    event, steps = asyncio.Event(), []

    async def work() -> None:
        steps.append("began")
        await event.wait()
        steps.append("waited")
        await asyncio.sleep(0)
        steps.append("yielded")

    task = start(work(), "the name")
    assert steps == ["began"]
    assert task is not None
    assert task.get_name() == "the name"
    event.set()
    await task
    assert steps == ["began", "waited", "yielded"]


async def test_bare_yield_first() -> None:
    """A coroutine that gives way before anything else goes on later."""
    done = []

    async def work() -> None:
        await asyncio.sleep(0)
        done.append(1)

    task = start(work(), "work")
    assert task is not None
    await task
    assert done == [1]


async def test_error_after_waiting() -> None:
    """What is raised after waiting is the task's."""
    event = asyncio.Event()

    async def work() -> None:
        await event.wait()
        raise ValueError("later")

    task = start(work(), "work")
    assert task is not None
    event.set()
    with pytest.raises(ValueError, match="later"):
        await task


async def test_error_that_is_waited_for() -> None:
    """An error of what is waited for can be caught where it is waited for."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    caught = []

    async def work() -> None:
        try:
            await future
        except ValueError as error:
            caught.append(str(error))
            await asyncio.sleep(0)

    task = start(work(), "work")
    assert task is not None
    future.set_exception(ValueError("of the future"))
    await task
    assert caught == ["of the future"]


@pytest.mark.parametrize("turns", [0, 1, 2], ids=["at once", "after a turn", "after two"])
async def test_cancel(turns: int) -> None:
    """Cancelled at any time, the coroutine hears of it where it waits, and may clean up."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    steps = []

    async def work() -> None:
        try:
            await future
        except asyncio.CancelledError:
            steps.append("cancelled")
            await asyncio.sleep(0)
            steps.append("cleaned up")
            raise

    task = start(work(), "work")
    assert task is not None
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps == ["cancelled", "cleaned up"]
    assert task.cancelled()
    assert future.cancelled()


async def test_cancel_reaches_what_is_waited_for() -> None:
    """A cancellation at once reaches the task that the coroutine waits for."""
    inner = asyncio.create_task(asyncio.Event().wait())

    async def work() -> None:
        await inner

    task = start(work(), "work")
    assert task is not None
    task.cancel()
    await asyncio.gather(task, inner, return_exceptions=True)
    assert inner.cancelled()
