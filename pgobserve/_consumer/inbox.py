"""
The queue of calls of a socket: a socket does one thing at a time, in the order of arrival.

The reply to a frame is sent before the events that it caused are handled, and handlers never overlap. For the
action ``settled``, a round waits until everything that was committed before it began has been sent to the
socket. Requests that come during a round share the next one, so a socket has one round at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextvars import copy_context
from typing import Any, Final, Protocol

from pgobserve.exceptions import (
    ClientDisconnected,
    FeedDown,
    FeedUnavailable,
    NotSettled,
    TooManySettled,
)
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


#: The name of the action.
ACTION: Final = "settled"

#: The attribute of a mixin, or of what a method became, whose consumers have the action.
MARKER: Final = "_answers_settled"

#: Seconds that a round may take.
TIMEOUT: Final = 30.0

#: Requests that may wait for the next round.
MOST_WAITING: Final = 256


class Settling(Protocol):
    """A consumer, as far as its requests need one."""

    async def _settle(self) -> None:
        """Return when everything that was committed before has been sent."""

    def start_detached(self, name: str, work: Coroutine[Any, Any, Any]) -> object:
        """Start a task that ends with the socket."""

    async def reply(self, action: str | None, *, status: int = ..., request_id: Any = ...) -> None:
        """Send a frame."""

    async def handle_exception(self, exc: Exception, action: str | None, request_id: Any) -> None:
        """Reply with an error."""


class SettledRequests:
    """
    The requests of one socket that are not answered yet.

    Args:
        timeout: Seconds that a round may take.
    """

    __slots__ = ("_consumer", "_serving", "_timeout", "_waiting")

    def __init__(self, consumer: Settling, timeout: float = TIMEOUT) -> None:
        self._consumer = consumer
        self._timeout = timeout
        self._waiting: list[Any] = []
        self._serving = False

    def add(self, request_id: Any) -> None:
        """
        Take a request.

        Raises:
            TooManySettled: Too many wait already.
        """
        if len(self._waiting) >= MOST_WAITING:
            raise TooManySettled(MOST_WAITING)
        self._waiting.append(request_id)
        if not self._serving:
            self._serving = True
            # It ends with the socket.
            self._consumer.start_detached("pgobserve.settled", self._serve())

    async def _serve(self) -> None:
        try:
            while self._waiting:
                served, self._waiting = self._waiting, []
                error = await self._round()
                for request_id in served:
                    await self._answer(request_id, error)
        finally:
            self._serving = False

    async def _round(self) -> Exception | None:
        """Wait until everything was sent; return the error that answers the requests instead."""
        consumer = type(self._consumer)
        extra = fields(consumer=consumer)
        try:
            async with asyncio.timeout(self._timeout):
                await self._consumer._settle()
        except TimeoutError:
            logger.info(
                "%s answers %r with 503: not everything could be read and sent within %.0f s.",
                *(consumer.__qualname__, ACTION, self._timeout),
                extra=extra,
            )
            return NotSettled()
        except FeedUnavailable as error:
            logger.info(
                "%s answers %r with 503: %s.", consumer.__qualname__, ACTION, error, extra=extra
            )
            return FeedDown()
        except Exception as error:  # noqa: BLE001 (answered, and logged there)
            return error
        return None

    async def _answer(self, request_id: Any, error: Exception | None) -> None:
        consumer = self._consumer
        if error is None:
            await consumer.reply(action=ACTION, status=200, request_id=request_id)
        else:
            await consumer.handle_exception(error, action=ACTION, request_id=request_id)
