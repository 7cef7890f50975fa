"""
Start a coroutine at once, and make a task only if it has to wait.

Most sends to a socket end without waiting; a task for each would cost a third of the fan-out.
"""

from __future__ import annotations

import asyncio
import sys
from types import coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator


def start(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None] | None:
    """
    Run a coroutine up to where it waits.

    Returns:
        The task in which the rest goes on, or None if there is no rest.

    Raises:
        Exception: What the coroutine raised before it waited.
    """
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):
        task = asyncio.Task(work, loop=loop, name=name, eager_start=True)
        if not task.done():
            return task
        task.result()
        return None
    try:
        waits_for = work.send(None)
    except StopIteration:
        return None
    return loop.create_task(_rest(work, waits_for), name=name)


@coroutine
def _rest(work: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    """Go on with a coroutine that was started: what it waits for is waited for here."""
    try:
        while True:
            try:
                value = yield waits_for
            except BaseException as error:  # noqa: BLE001 (it belongs to the coroutine)
                waits_for = work.throw(error)
            else:
                waits_for = work.send(value)
    except StopIteration:
        return
