"""
A WebSocket that survives: what its handlers raise is logged, what it started ends with it.

What the messages mean is the business of ``consumers.py``.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import defaultdict
from contextlib import asynccontextmanager, contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, Self

from channels.exceptions import InvalidChannelLayerError, StopConsumer
from channels.generic.websocket import AsyncJsonWebsocketConsumer

from pgobserve import _json, conf
from pgobserve._consumer.inbox import Inbox
from pgobserve._consumer.incoming import Incoming
from pgobserve.exceptions import ClientDisconnected, FrameTooLarge
from pgobserve.logs import fields

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator

logger = logging.getLogger(__name__)

#: Where an exception must reach the server: there is no socket to answer on.
_LIFE_CYCLE = frozenset({"websocket.connect", "websocket.disconnect"})

#: Seconds that the handlers of a client that has left may still take, as Daphne has it; and those of
#: a client whose server is ending, with the code that says so.
FAREWELL: Final = 10.0
FAREWELL_AT_END: Final = 5.0
SERVICE_RESTART: Final = 1012


class SocketHooks:
    """
    What mixins may do around a message and at the end, with a call of ``super()``.

    A mixin that derives from this works before and after the consumer in the list of bases.
    """

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Surround the dispatch of one frame, its reply included."""
        yield

    async def closed(self) -> None:
        """
        Clean up, once, when the application's call for a socket ends for whatever reason.

        ``disconnect`` is not called when the server cancels the call or when something raised.
        """


class JsonSocket(AsyncJsonWebsocketConsumer, SocketHooks):
    """
    The base of ``AsyncAPIConsumer``.

    Attributes:
        groups: The channel-layer groups that this socket is in.
        detached_tasks: What runs detached now, by method name.
        inbox: What waits for its turn on this socket.
    """

    groups: Any = ()
    detached_tasks: dict[str, list[asyncio.Task[Any]]]
    inbox: Inbox

    _made_with: tuple[tuple[Any, ...], dict[str, Any]]
    _in_use = False
    _incoming: Incoming | None = None
    _deadline: asyncio.TimerHandle | None = None
    _handler: asyncio.Task[Any] | None = None
    _gone = _closing = _late = _cut = False
    # The server's own, for frames that are sent in great numbers; see ``has_departed``.
    server_send: Any = None
    # What ends with the client's presence; most of the time there is nothing.
    _attended: tuple[asyncio.Timeout, ...] = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Remember how to make another one, see ``__call__``."""
        socket = super().__new__(cls)
        socket._made_with = (args, kwargs)
        socket.detached_tasks = defaultdict(list)
        socket.inbox = Inbox()
        return socket

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.groups = set(self.groups or ())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """
        Serve one socket.

        An instance may be given as the application, as some projects do: the first socket is served
        by it and every further one by a new instance, so that sockets never share one.
        """
        if self._in_use:
            args, kwargs = self._made_with
            await type(self)(*args, **kwargs)(scope, receive, send)
            return
        self._in_use = True
        self._incoming = Incoming(receive, self._left)
        try:
            self.server_send = send
            await super().__call__(scope, self._incoming.receive, self._send_to_server)  # type: ignore[arg-type]
        finally:
            if self._deadline is not None:
                self._deadline.cancel()
            await self._incoming.aclose()
            await self.closed()

    async def dispatch(self, message: dict[str, Any]) -> None:
        """Hand a message to its handler; what a handler raises is logged and the socket lives."""
        self.inbox.context = copy_context()
        try:
            if message.get("type") == "websocket.disconnect":
                await super().dispatch(message)
            else:
                with self._handling():
                    async with self.inbox.turn:
                        await super().dispatch(message)
        except StopConsumer:
            raise
        except ClientDisconnected:
            logger.debug(
                "The client left before %s could answer.",
                type(self).__qualname__,
                extra=fields(consumer=type(self)),
            )
            if message.get("type") == "websocket.disconnect":
                raise StopConsumer from None
        except (Exception, asyncio.CancelledError):
            if message.get("type") in _LIFE_CYCLE or is_being_cancelled():
                raise
            logger.exception(
                "The handler of %s in %s failed.",
                *(message.get("type"), type(self).__qualname__),
                extra=fields(consumer=type(self)),
            )
        finally:
            # It may have activated a language for the socket.
            self.inbox.context = copy_context()

    # A client that leaves

    async def _send_to_server(self, message: Any) -> None:
        """
        Send by the server's ``send``, whose exceptions for a closed connection become one.

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
        # A server may raise anything then: ASGI names OSError, and some raise RuntimeError.
        return self._closing or self._gone or is_gone(error)

    @asynccontextmanager
    async def attended(self) -> AsyncIterator[None]:
        """
        Surround what is of use to the client alone; it ends when the client leaves.

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
        """End what serves the client alone; all else may take a moment longer."""
        self._gone = True
        loop = asyncio.get_running_loop()
        attended, self._attended = self._attended, ()
        for scope in attended:
            scope.reschedule(loop.time())
        ends = message.get("code") == SERVICE_RESTART
        patience = FAREWELL_AT_END if ends else FAREWELL
        self._deadline = loop.call_later(patience, self._end_handler)

    def _end_handler(self) -> None:
        self._late = True
        if self._handler is not None:
            self._cut = self._handler.cancel()

    @contextmanager
    def _handling(self) -> Iterator[None]:
        """Surround a handler; one that goes on for too long after the client has left is cancelled."""
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
            # The server may have cancelled the task as well, and that is for the task.
            if not self._uncut(task):
                raise
            logger.warning(
                "A handler of %s was cancelled: it was still running some seconds after its client "
                "had left.",
                type(self).__qualname__,
                extra=fields(consumer=type(self)),
            )
        finally:
            self._handler = None
            self._uncut(task)

    def _uncut(self, task: asyncio.Task[Any]) -> bool:
        """Take back the cancellation of a handler; return whether there was that one alone."""
        cut, self._cut = self._cut, False
        return cut and task.uncancel() == 0

    async def websocket_receive(self, message: Any) -> None:
        """Take one frame of the client."""
        async with self.serving():
            await super().websocket_receive(message)

    async def websocket_disconnect(self, message: Any) -> None:
        """End what waits or runs detached, leave the groups, and call ``disconnect``."""
        await self.inbox.aclose()
        await self._cancel_all_detached()
        try:
            await super().websocket_disconnect(message)
        except StopConsumer:
            self.groups = set()
            raise

    async def closed(self) -> None:
        """End what waits or runs detached, and leave the groups."""
        await self.inbox.aclose()
        await self._cancel_all_detached()
        groups, self.groups = self.groups, set()
        for group in groups:
            try:
                await self.channel_layer.group_discard(group, self.channel_name)
            except Exception:
                logger.exception(
                    "%s could not leave the channel-layer group %s.",
                    *(type(self).__qualname__, group),
                    extra=fields(consumer=type(self)),
                )
        await super().closed()

    # Frames

    async def send_json(self, content: Any, close: bool = False) -> None:
        """Encode and send a frame."""
        await self.send_frame(await self.encode_json(content))
        if close:
            await self.close(close)

    async def send_frame(self, text: str) -> None:
        """
        Send an encoded frame.

        Raises:
            ClientDisconnected: The socket is gone.
            FrameTooLarge: It is longer than a frame may be.
        """
        if not is_sendable(text, conf.get().MAX_FRAME_BYTES):
            self._log_too_large(len(text))
            raise FrameTooLarge
        try:
            await self.send(text_data=text)
        except Exception as error:
            if is_gone(error):
                raise ClientDisconnected(*error.args) from error
            if is_too_large(error):
                self._log_too_large(len(text))
                raise FrameTooLarge from error
            raise

    def _log_too_large(self, length: int) -> None:
        logger.warning(
            "A frame of %s with %d characters is too large and was not sent. Serialize less, or raise "
            "PGOBSERVE['MAX_FRAME_BYTES'] as far as the server can send.",
            *(type(self).__qualname__, length),
            extra=fields(consumer=type(self)),
        )

    @classmethod
    async def encode_json(cls, content: Any) -> str:
        """Return JSON, with what DRF can render: dates, decimals, UUIDs, lazy strings."""
        return _json.encode(content)

    @classmethod
    async def decode_json(cls, text_data: str) -> Any:
        """Return what JSON says; numbers that JSON doesn't have are refused."""
        return _json.decode(text_data)

    # Groups of the channel layer

    async def add_group(self, name: str) -> None:
        """Join a channel-layer group; it is left when the socket closes."""
        if name not in self.groups:
            await self._layer().group_add(name, self.channel_name)
            self.groups = {*self.groups, name}

    async def remove_group(self, name: str) -> None:
        """Leave a channel-layer group."""
        if name in self.groups:
            await self._layer().group_discard(name, self.channel_name)
            self.groups = {*self.groups} - {name}

    def _layer(self) -> Any:
        layer: Any = self.channel_layer
        if layer is None:
            raise InvalidChannelLayerError(
                f"{type(self).__name__} uses a channel-layer group, but no channel layer is "
                f"configured under {self.channel_layer_alias!r}: set CHANNEL_LAYERS."
            )
        return layer

    # Detached tasks

    def start_detached(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run ``work`` in a task that ends with the socket at the latest."""
        task = asyncio.create_task(work, name=f"{type(self).__name__}.{name}")
        self.detached_tasks.setdefault(name, []).append(task)
        task.add_done_callback(lambda done: self._detached_done(name, done))
        return task

    async def cancel_detached(self, name: str) -> None:
        """Cancel what runs detached under ``name`` and wait until it has ended."""
        await _cancelled(self.detached_tasks.get(name, ()))

    async def _cancel_all_detached(self) -> None:
        await _cancelled(task for tasks in self.detached_tasks.values() for task in tasks)

    def _detached_done(self, name: str, task: asyncio.Task[Any]) -> None:
        tasks = self.detached_tasks.get(name, [])
        if task in tasks:
            tasks.remove(task)
        if not tasks:
            self.detached_tasks.pop(name, None)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not isinstance(error, ClientDisconnected):
            logger.error(
                "The detached action %s of %s failed.",
                *(name, type(self).__qualname__),
                exc_info=error,
                extra=fields(consumer=type(self)),
            )


def is_being_cancelled() -> bool:
    """Return whether the current task is meant by a ``CancelledError``, not what it awaited."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def is_gone(error: BaseException) -> bool:
    """Tell whether a send failed because the client is gone."""
    # Daphne lets an error of Autobahn's through, which is no OSError. It costs a third of a second
    # to import, which Daphne has done if it can be raised at all.
    autobahn = sys.modules.get("autobahn.exception")
    return isinstance(error, OSError) or (
        autobahn is not None and isinstance(error, autobahn.Disconnected)
    )


def is_too_large(error: BaseException) -> bool:
    """Tell whether a send failed because the server sends no frame of that size."""
    autobahn = sys.modules.get("autobahn.exception")
    return isinstance(error, FrameTooLarge) or (
        autobahn is not None and isinstance(error, autobahn.PayloadExceededError)
    )


def is_sendable(text: str, limit: int) -> bool:
    """Tell whether a frame has at most ``limit`` bytes."""
    if text.isascii() or len(text) > limit:
        return len(text) <= limit
    # A character has at most four. A lone surrogate can't be sent; to say so is not for here.
    return len(text) * 4 <= limit or len(text.encode(errors="surrogatepass")) <= limit


async def _cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    # A detached action may itself ask for this; it can't wait for its own end.
    others = [task for task in tasks if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others)
