"""A client that leaves: what serves it alone ends at once, and its handlers soon after."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final

from pgobserve._consumer.incoming import Incoming
from pgobserve.exceptions import ClientDisconnected, FrameTooLarge
from pgobserve.logs import fields

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

logger = logging.getLogger(__name__)

#: Seconds that a handler may go on after its client has left, as with Daphne; the same when the server
#: shuts down, which it reports with the close code SERVICE_RESTART.
LEAVING_GRACE: Final = 10.0
RESTART_GRACE: Final = 5.0
SERVICE_RESTART: Final = 1012


class ClientPresence:
    """
    The part of a socket that notices when its client leaves.

    Attributes:
        server_send: The server's own ``send``, for frames in great numbers; see ``has_departed``.
    """

    server_send: Any = None
    _incoming: Incoming | None = None
    _deadline: asyncio.TimerHandle | None = None
    _handler: asyncio.Task[Any] | None = None
    _gone = _closing = _late = _cut = False
    # Scopes that end with the client's presence; mostly there are none.
    _attended: tuple[asyncio.Timeout, ...] = ()

    @asynccontextmanager
    async def _connected(self, receive: Any, send: Any) -> AsyncIterator[Incoming]:
        """Serve a connection in the block."""
        self.server_send = send
        self._incoming = Incoming(receive, self._left)
        try:
            yield self._incoming
        finally:
            if self._deadline is not None:
                self._deadline.cancel()
            await self._incoming.aclose()

    async def _send_to_server(self, message: Any) -> None:
        """
        Send with the server's ``send``, and map its errors for a closed connection.

        Raises:
            ClientDisconnected: The client has left, or the consumer has closed the connection.
        """
        closed = self._closing
        if message["type"] == "websocket.close":
            self._closing = True
        try:
            await self.server_send(message)
        except ClientDisconnected:
            raise
        except Exception as error:
            if closed or self._gone or is_gone(error):
                raise ClientDisconnected(*error.args) from error
            raise

    def has_departed(self, error: BaseException) -> bool:
        """Return whether the server's ``send`` failed because the connection is closed."""
        # Any error may mean that: ASGI names OSError, and some servers raise RuntimeError.
        return self._closing or self._gone or is_gone(error)

    @asynccontextmanager
    async def attended(self) -> AsyncIterator[None]:
        """
        Run a block that serves the client alone: it ends when the client leaves.

        Raises:
            ClientDisconnected: The client has left.
        """
        if self._gone:
            raise ClientDisconnected
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._attended = (*self._attended, scope)
                try:
                    yield
                finally:
                    self._attended = tuple(each for each in self._attended if each is not scope)
        except TimeoutError:
            if scope.expired():
                raise ClientDisconnected from None
            raise

    def _left(self, message: dict[str, Any]) -> None:
        """End what serves the client alone; other handlers get some seconds more."""
        self._gone = True
        loop = asyncio.get_running_loop()
        attended, self._attended = self._attended, ()
        for scope in attended:
            scope.reschedule(loop.time())
        ends = message.get("code") == SERVICE_RESTART
        grace = RESTART_GRACE if ends else LEAVING_GRACE
        self._deadline = loop.call_later(grace, self._end_handler)

    def _end_handler(self) -> None:
        self._late = True
        if self._handler is not None:
            self._cut = self._handler.cancel()

    @contextmanager
    def _handling(self) -> Iterator[None]:
        """Run a handler in the block; cancel it if it goes on too long after the client has left."""
        task = asyncio.current_task()
        if self._late:
            raise ClientDisconnected
        if self._incoming is None or task is None:
            yield
            return
        self._handler = task
        try:
            with self._incoming.handling():
                yield
        except asyncio.CancelledError:
            # The server may have cancelled the task, too; that cancellation must go on.
            if not self._uncut(task):
                raise
            logger.warning(
                "A handler of %s was cancelled, because it was still running some seconds after its "
                "client had left.",
                type(self).__qualname__,
                extra=fields(consumer=type(self)),
            )
        finally:
            self._handler = None
            self._uncut(task)

    def _uncut(self, task: asyncio.Task[Any]) -> bool:
        """Undo the cancellation of a handler; return whether there was no other."""
        cut, self._cut = self._cut, False
        return cut and task.uncancel() == 0


def is_being_cancelled() -> bool:
    """Return whether a ``CancelledError`` cancels the current task, not something it awaited."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def is_gone(error: BaseException) -> bool:
    """Return whether sending failed because the client is gone."""
    # Daphne lets Autobahn's error through, which is no OSError. Importing Autobahn takes a third of a second;
    # if it can raise the error at all, Daphne has imported it.
    autobahn = sys.modules.get("autobahn.exception")
    return isinstance(error, OSError) or (
        autobahn is not None and isinstance(error, autobahn.Disconnected)
    )


def is_too_large(error: BaseException) -> bool:
    """Return whether sending failed because the frame is too large for the server."""
    autobahn = sys.modules.get("autobahn.exception")
    return isinstance(error, FrameTooLarge) or (
        autobahn is not None and isinstance(error, autobahn.PayloadExceededError)
    )


def is_sendable(text: str, limit: int) -> bool:
    """Return whether a frame has at most ``limit`` bytes."""
    if text.isascii() or len(text) > limit:
        return len(text) <= limit
    # A character has at most four bytes. A lone surrogate fails later, when it is sent.
    return len(text) * 4 <= limit or len(text.encode(errors="surrogatepass")) <= limit
