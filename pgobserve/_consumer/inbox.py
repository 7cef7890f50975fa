"""
The queue of calls of a socket: a socket does one thing at a time, in the order of arrival.

The reply to a frame is sent before the events that it caused are handled, and handlers never overlap.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextvars import copy_context
from typing import Any, Protocol

from pgobserve.exceptions import ClientDisconnected
from pgobserve.logs import fields

logger = logging.getLogger(__name__)

Call = Callable[[], Awaitable[Any]]


async def together(works: Iterable[Coroutine[Any, Any, Any]]) -> None:
    """Await several at a time; the first that raises ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


class Source(Protocol):
    """Puts calls into an inbox."""

    async def settle(self) -> None:
        """Return when the calls for everything committed before now are in the inbox."""

    def __hash__(self) -> int: ...


class Inbox:
    """
    The pending calls of a socket.

    Attributes:
        turn: Held by each frame and each call while it is handled.
        closed: The inbox accepts no more calls.
        context: The socket's context; calls run in copies of it.
        sources: Sources of calls, and for how many subscriptions.
    """

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.closed = False
        self.context = copy_context()
        self._calls: deque[tuple[str, Call]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._callbacks: list[Callable[[], object]] = []
        self.sources: dict[Source, int] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def put(self, name: str, call: Call) -> None:
        """
        Add a call; never waits, and drops none.

        Args:
            name: The call's name, for the log.
            call: Takes no arguments. Its errors are logged, and the socket stays open.
        """
        if self.closed:
            return
        self._calls.append((name, call))
        if self._task is None:
            # A task of its own: a call may need its current task, for example for a timeout.
            self._task = asyncio.create_task(
                self._work(), name="pgobserve-inbox", context=self.context.copy()
            )

    def on_close(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` when the socket closes."""
        self._callbacks.append(callback)

    async def settle(self) -> None:
        """Return when the calls for everything committed before now have been made."""
        if not self.sources:
            return
        await together(each.settle() for each in self.sources)
        made: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def note() -> None:
            if not made.done():
                made.set_result(None)

        self.put("settled", note)
        await made

    async def aclose(self) -> None:
        """Close; a running call has ended when this returns."""
        self.closed = True
        self._calls.clear()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.wait([task])

    async def _work(self) -> None:
        try:
            while self._calls:
                async with self.turn:
                    if self._calls:
                        await self._make(*self._calls.popleft())
        finally:
            if self._task is asyncio.current_task():
                self._task = None

    async def _make(self, name: str, call: Call) -> None:
        try:
            await call()
        except ClientDisconnected:
            logger.debug(
                "The client left before %s could send.", name, extra=fields(consumer=_owner(name))
            )
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            logger.exception(
                "%s cancelled itself; the socket stays open.",
                name,
                extra=fields(consumer=_owner(name)),
            )
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException:
            logger.exception(
                "%s failed; the socket stays open.", name, extra=fields(consumer=_owner(name))
            )


def _owner(name: str) -> str | None:
    """Return the class in the qualified name of a handler."""
    return name.rpartition(".")[0] or None
