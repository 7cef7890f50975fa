"""
The messages from a client, read ahead while a handler is slow.

Messages are handled one after the other, and each may wait for the database. Without reading ahead, the
message that the client has left would be noticed only after all the others.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

#: Seconds that a handler may take before reading ahead.
READ_AHEAD_DELAY: Final = 0.05

#: The most characters that are read ahead, and what a message counts besides its text.
MOST: Final = 256 * 1024
MESSAGE: Final = 256

Message = dict[str, Any]


class Incoming:
    """
    The messages of one client.

    Args:
        receive: Returns the next message from the server.
        left: Called at once with the message that the client has left.
    """

    # There is one for each socket.
    __slots__ = (
        *("_ahead", "_came", "_handling", "_left", "_over", "_read", "_receive", "_size", "_waits"),
    )

    def __init__(
        self, receive: Callable[[], Awaitable[Message]], left: Callable[[Message], object]
    ) -> None:
        self._receive = receive
        self._left = left
        self._read: list[Message] = []
        self._size = 0
        self._handling = 0
        self._waits = self._over = False
        self._came: asyncio.Future[None] | None = None
        self._ahead: asyncio.Task[None] | None = None

    async def receive(self) -> Message:
        """Return the next message, in the order of arrival."""
        while not self._read:
            if self._ahead is None:
                return await self._directly()
            if self._ahead.done():
                ended, self._ahead = self._ahead, None
                ended.result()
                continue
            # A cancelled wait must not cancel the task: a message would be lost.
            self._came = asyncio.get_running_loop().create_future()
            await self._came
        message = self._read.pop(0)
        self._size -= _size(message)
        return message

    @contextmanager
    def handling(self) -> Iterator[None]:
        """Read ahead if the block, which handles a message, takes long."""
        timer = asyncio.get_running_loop().call_later(READ_AHEAD_DELAY, self._start)
        self._handling += 1
        try:
            yield
        finally:
            self._handling -= 1
            timer.cancel()

    async def aclose(self) -> None:
        """Read no more."""
        self._over = True
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.gather(self._ahead, return_exceptions=True)

    async def _directly(self) -> Message:
        self._waits = True
        try:
            message = await self._next()
        finally:
            self._waits = False
        # The handler of a channel-layer message may be running.
        if self._handling:
            self._start()
        return message

    async def _next(self) -> Message:
        message = await self._receive()
        if message.get("type") == "websocket.disconnect":
            self._over = True
            self._left(message)
        return message

    def _start(self) -> None:
        before = self._ahead
        if self._over or self._waits or (before is not None and not _is_well(before)):
            return
        self._ahead = asyncio.create_task(self._read_ahead(), name="pgobserve-incoming")
        self._ahead.add_done_callback(self._wake)

    def _wake(self, _: object = None) -> None:
        if self._came is not None and not self._came.done():
            self._came.set_result(None)

    async def _read_ahead(self) -> None:
        while self._handling and not self._over and self._size < MOST:
            message = await self._next()
            self._read.append(message)
            self._size += _size(message)
            self._wake()


def _is_well(task: asyncio.Task[None]) -> bool:
    """Return whether a task has ended without an error, which would still have to be raised."""
    return task.done() and not task.cancelled() and task.exception() is None


def _size(message: Message) -> int:
    return MESSAGE + len(message.get("text") or message.get("bytes") or "")
