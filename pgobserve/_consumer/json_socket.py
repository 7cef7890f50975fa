"""A WebSocket that logs what its handlers raise, stays open, and ends what it started."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from contextlib import asynccontextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Self

from channels.exceptions import InvalidChannelLayerError, StopConsumer
from channels.generic.websocket import AsyncJsonWebsocketConsumer

from pgobserve import _json, conf
from pgobserve._consumer.client_presence import (
    ClientPresence,
    is_being_cancelled,
    is_gone,
    is_sendable,
    is_too_large,
)
from pgobserve._consumer.inbox import Inbox
from pgobserve.exceptions import ClientDisconnected, FrameTooLarge
from pgobserve.logs import fields

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterable

logger = logging.getLogger(__name__)

#: Messages whose errors must reach the server: there is no socket to reply on.
_LIFE_CYCLE = frozenset({"websocket.connect", "websocket.disconnect"})


class SocketHooks:
    """
    Hooks for mixins around a message and at the end; each calls ``super()``.

    A mixin that derives from this may come before or after the consumer in the list of bases.
    """

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Surround the handling of a frame, including its reply."""
        yield

    async def closed(self) -> None:
        """
        Clean up, once, when the application's call for a socket ends, for any reason.

        ``disconnect`` is not called if the server cancels the call, or after an error.
        """


class JsonSocket(ClientPresence, AsyncJsonWebsocketConsumer, SocketHooks):
    """
    The base of ``AsyncAPIConsumer``.

    Attributes:
        groups: The channel-layer groups that this socket is in.
        detached_tasks: Running detached methods, by name.
        inbox: The queue of calls on this socket.
    """

    groups: Any = ()
    detached_tasks: dict[str, list[asyncio.Task[Any]]]
    inbox: Inbox

    _made_with: tuple[tuple[Any, ...], dict[str, Any]]
    _in_use = False

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Keep the arguments, to make another instance in ``__call__``."""
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

        Some projects use an instance as the application. It serves the first socket, and a new instance
        each further one, so that sockets never share an instance.
        """
        if self._in_use:
            args, kwargs = self._made_with
            await type(self)(*args, **kwargs)(scope, receive, send)
            return
        self._in_use = True
        try:
            async with self._connected(receive, send) as incoming:
                await super().__call__(scope, incoming.receive, self._send_to_server)  # type: ignore[arg-type]
        finally:
            await self.closed()

    async def dispatch(self, message: dict[str, Any]) -> None:
        """Call the handler of a message; its errors are logged, and the socket stays open."""
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
            # The handler may have activated a language for the socket.
            self.inbox.context = copy_context()

    async def websocket_receive(self, message: Any) -> None:
        """Handle a frame from the client."""
        async with self.serving():
            await super().websocket_receive(message)

    async def websocket_disconnect(self, message: Any) -> None:
        """End the inbox and detached methods, leave the groups, and call ``disconnect``."""
        await self.inbox.aclose()
        await self._cancel_all_detached()
        try:
            await super().websocket_disconnect(message)
        except StopConsumer:
            self.groups = set()
            raise

    async def closed(self) -> None:
        """End the inbox and detached methods, and leave the groups."""
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
            FrameTooLarge: The frame exceeds ``MAX_FRAME_BYTES``, or the server's limit.
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
        """Return JSON; dates, decimals, UUIDs and lazy strings as DRF renders them."""
        return _json.encode(content)

    @classmethod
    async def decode_json(cls, text_data: str) -> Any:
        """Decode JSON; refuse numbers that JSON does not have."""
        return _json.decode(text_data)

    # Groups of the channel layer

    async def add_group(self, name: str) -> None:
        """Join a channel-layer group until the socket closes."""
        if name not in self.groups:
            await self._layer().group_add(name, self.channel_name)
            self.groups = {*self.groups, name}

    async def join_groups(self, names: Iterable[str]) -> None:
        """
        Join the groups of a subscription, so that ``group_send`` to one of ``self.groups`` reaches it.

        Subscriptions work without a channel layer, so its errors are logged.
        """
        layer: Any = self.channel_layer
        for name in () if layer is None else names:
            try:
                await self.add_group(name)
            except Exception:
                logger.exception(
                    "%s could not join the channel-layer group %s; its subscription works all the same.",
                    *(type(self).__qualname__, name),
                    extra=fields(consumer=type(self)),
                )

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
        """Cancel the detached methods of a name, and wait until they have ended."""
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


async def _cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    # A detached action may call this itself, and can't wait for its own end.
    others = [task for task in tasks if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others)
