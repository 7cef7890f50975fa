"""
Runs a coroutine at once, and creates a task only if it has to wait.

Most sends to a socket end without waiting. A task for each would cost a third of the fan-out.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from contextvars import Context, copy_context
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator

#: Python's own eager tasks, where they exist; chosen once, because `start` runs for each frame.
_EAGERLY: Final[dict[str, Any]] = {"eager_start": True} if sys.version_info >= (3, 12) else {}


def start(
    work: Awaitable[None], name: str, context: Context | None = None
) -> asyncio.Task[None] | None:
    """
    Run a coroutine until it waits.

    Args:
        work: The coroutine, or another awaitable.
        name: The task's name, if a task is created.
        context: The coroutine's own context; by default a copy of the current context.

    Returns:
        The task that runs the rest; None if the coroutine has ended.

    Raises:
        Exception: The coroutine's error, if it raised before it waited.
    """
    if not isinstance(work, CoroutineType):
        work = _awaited(work)
    if _EAGERLY:
        loop = asyncio.get_running_loop()
        task = asyncio.Task(work, loop=loop, name=name, context=context, **_EAGERLY)
        if not task.done():
            return task
        task.result()
        return None
    # One context for both parts: the rest must find, and may reset, what the first part has set.
    context = copy_context() if context is None else context
    try:
        waits_for = context.run(work.send, None)
    except StopIteration:
        return None
    loop = asyncio.get_running_loop()
    return loop.create_task(_Rest(work, waits_for), name=name, context=context)


async def _awaited(work: Awaitable[None]) -> None:
    await work


class _Rest(Coroutine[Any, Any, None]):
    """The rest of a started coroutine; first it yields what the coroutine waits for already."""

    def __init__(self, work: Coroutine[Any, Any, None], waits_for: Any) -> None:
        self._work = work
        self._waits_for: list[Any] = [waits_for]

    def send(self, value: Any) -> Any:
        return self._waits_for.pop() if self._waits_for else self._work.send(value)

    def throw(self, *error: Any) -> Any:
        # Cancelled before its first step, the task does not know the awaited future yet.
        if self._waits_for and (future := self._waits_for.pop()) is not None:
            future.cancel()
        return self._work.throw(*error)

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Generator[Any, Any, None]:
        return self._work.__await__()
