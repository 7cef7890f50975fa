"""Tasks that must not end: what is said of one that does, and that it starts again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from pgobserve.workers.retrying import Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator


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
