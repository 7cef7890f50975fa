"""
What waits for a socket's turn: one thing at a time happens on a socket, in the order in which it came.

A frame of the client is answered before the events that it caused are handled, and a handler is
never called while another one runs.
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
    """Await several at a time; the first one that raises ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


class Source(Protocol):
    """What puts calls into an inbox."""

    async def settle(self) -> None:
        """Return when the calls for everything that was committed before now have been put."""

    def __hash__(self) -> int: ...


class Inbox:
    """
    The calls that a socket has yet to make.

    Attributes:
        turn: Held by whatever happens on the socket.
        closed: Nothing is taken any more.
        context: That of the socket, in copies of which calls are made.
        sources: What puts calls here, and for how many subscriptions.
    """

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.closed = False
        self.context = copy_context()
        self._calls: deque[tuple[str, Call]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._farewells: list[Callable[[], object]] = []
        self.sources: dict[Source, int] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def put(self, name: str, call: Call) -> None:
        """
        Let ``call`` be made in its turn; never waits, and forgets nothing.

        Args:
            name: What it is, for the log if it raises.
            call: Takes nothing; what it raises is logged, and the socket lives.
        """
        if self.closed:
            return
        self._calls.append((name, call))
        if self._task is None:
            # A task of its own: what is called may want to know its task, for a time-out say.
            self._task = asyncio.create_task(
                self._work(), name="pgobserve-inbox", context=self.context.copy()
            )

    def at_end(self, farewell: Callable[[], object]) -> None:
        """Let ``farewell`` be called when the socket closes."""
        self._farewells.append(farewell)

    async def settle(self) -> None:
        """Return when the calls for everything that was committed before now have been made."""
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
        """Take nothing any more; what is being called has ended when this returns."""
        self.closed = True
        self._calls.clear()
        farewells, self._farewells = self._farewells, []
        for farewell in farewells:
            farewell()
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
                "%s cancelled itself; the socket goes on.",
                name,
                extra=fields(consumer=_owner(name)),
            )
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException:
            logger.exception(
                "%s failed; the socket goes on.", name, extra=fields(consumer=_owner(name))
            )


def _owner(name: str) -> str | None:
    """Return the class in the qualified name of a handler."""
    return name.rpartition(".")[0] or None
