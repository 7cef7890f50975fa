"""
The base of consumers: what a client sends becomes a call of an action, and is answered.

Every message gets exactly one reply unless the action chose to send none; nothing that a client
sends, and nothing that an action raises, ends the socket.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, cast

from channels.db import database_sync_to_async
from channels.exceptions import InvalidChannelLayerError, StopConsumer
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.http import Http404
from rest_framework.exceptions import (
    APIException,
    MethodNotAllowed,
    PermissionDenied,
    Throttled,
    ValidationError,
)
from rest_framework.utils.encoders import JSONEncoder

from pgobserve._arguments import RESERVED, fit, refuse_reserved
from pgobserve.exceptions import ActionMissingException, ClientDisconnected
from pgobserve.permissions import Case, PermissionClass, answer, instances
from pgobserve.scope_utils import drf_request
from pgobserve.settings import from_setting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Sequence

    from rest_framework.throttling import BaseThrottle

logger = logging.getLogger(__name__)

INTERNAL_ERROR = "Internal server error."

#: Where an exception must reach the server: there is no socket to answer on.
_LIFE_CYCLE = frozenset({"websocket.connect", "websocket.disconnect"})


class APIConsumerMetaclass(type):
    """Collects the methods that are actions, by the names that clients use."""

    available_actions: dict[str, str]

    def __init__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> None:
        super().__init__(name, bases, body)
        attributes: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            attributes.update(vars(base))
        cls.available_actions = {
            getattr(attribute, "kwargs", {}).get("name", method): method
            for method, attribute in attributes.items()
            if callable(attribute)
            and not isinstance(attribute, type)
            and getattr(attribute, "action", False) is True
        }


class AsyncAPIConsumer(AsyncJsonWebsocketConsumer, metaclass=APIConsumerMetaclass):
    """
    A WebSocket consumer whose actions clients call, as they call a DRF view set.

    Attributes:
        permission_classes: Asked when the socket opens and before each action.
        throttle_classes: DRF throttles, asked before each action.
        available_actions: Method names by the names that clients use.
        detached_tasks: What runs detached now, by method name.
    """

    permission_classes: Sequence[PermissionClass] = from_setting("DEFAULT_PERMISSION_CLASSES")
    throttle_classes: Sequence[type[BaseThrottle]] = from_setting("DEFAULT_THROTTLE_CLASSES")
    available_actions: ClassVar[dict[str, str]]
    groups: set[str]  # type: ignore[assignment]
    detached_tasks: dict[str, list[asyncio.Task[Any]]]

    _made_with: tuple[tuple[Any, ...], dict[str, Any]]
    _in_use = False

    def __new__(cls, *args: Any, **kwargs: Any) -> AsyncAPIConsumer:
        """Remember how to make another one, see ``__call__``."""
        consumer = super().__new__(cls)
        consumer._made_with = (args, kwargs)
        consumer.detached_tasks = defaultdict(list)
        return consumer

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
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self.closed()

    # The life of a socket

    async def websocket_connect(self, message: Any) -> None:
        """Accept the socket if every permission's ``can_connect`` agrees."""
        case = Case(self.scope, self, "connect", message=message)
        try:
            for permission in await self.get_permissions(action="connect"):
                if not await answer(permission, "can_connect", case):
                    self.permission_denied(permission)
            await super().websocket_connect(message)
        except (PermissionDenied, DjangoPermissionDenied):
            await self.close()

    async def websocket_receive(self, message: Any) -> None:
        """Take one frame of the client."""
        async with self.serving():
            await super().websocket_receive(message)

    async def websocket_disconnect(self, message: Any) -> None:
        """End what runs detached, leave the groups, and call ``disconnect``."""
        await self._cancel_detached()
        try:
            await super().websocket_disconnect(message)
        except StopConsumer:
            self.groups.clear()
            raise

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Surround the dispatch of one frame, its reply included; for subclasses."""
        yield

    async def closed(self) -> None:
        """
        Clean up, once, when the application's call for this socket ends for whatever reason.

        ``disconnect`` is not called when the server cancels the call or when something raised. An
        override must call this one.
        """
        await self._cancel_detached()
        groups, self.groups = self.groups, set()
        for group in groups:
            try:
                await self.channel_layer.group_discard(group, self.channel_name)
            except Exception:
                logger.exception("Could not leave the channel-layer group %s.", group)

    async def dispatch(self, message: dict[str, Any]) -> None:
        """Hand a message to its handler; what a handler raises is logged and the socket lives."""
        try:
            await super().dispatch(message)
        except StopConsumer:
            raise
        except ClientDisconnected:
            logger.debug("The client left before it was answered.")
        except Exception:
            if message.get("type") in _LIFE_CYCLE:
                raise
            logger.exception("A handler of %s failed.", message.get("type"))

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

    # From a frame to an action

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any
    ) -> None:
        """Decode a frame; what is no JSON object is answered with 400."""
        try:
            content = await self._decoded(text_data)
        except ValidationError as error:
            await self.handle_exception(error, action=None, request_id=None)
            return
        action, request_id = content.get("action"), content.get("request_id")
        try:
            await self.receive_json(content, **kwargs)
        except (StopConsumer, ClientDisconnected):
            raise
        except Exception as error:  # noqa: BLE001 - answered and logged there
            # An override let it through; ours never do.
            await self._internal_error(error, action, request_id)

    async def _decoded(self, text: str | None) -> dict[str, Any]:
        if text is None:
            raise ValidationError("Send text frames with JSON; binary frames are not read.")
        try:
            content = await self.decode_json(text)
        except (ValueError, RecursionError) as error:
            raise ValidationError("This is not JSON.") from error
        if not isinstance(content, dict):
            raise ValidationError("Send a JSON object.")
        return content

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        """Find the action in a decoded message and handle it."""
        request_id = content.pop("request_id", None)
        try:
            action, arguments = await self.get_action_name(content, **kwargs)
            _check_message(action, arguments)
        except KeyError:
            await self.handle_exception(
                ActionMissingException(), action=None, request_id=request_id
            )
        except Exception as error:  # noqa: BLE001 - answered and logged there
            await self.handle_exception(error, action=None, request_id=request_id)
        else:
            await self.handle_action(action, request_id=request_id, **arguments)

    async def get_action_name(
        self, content: dict[str, Any], **kwargs: Any
    ) -> tuple[Any, dict[str, Any]]:
        """
        Return the action that a message asks for, and its arguments.

        Raises:
            KeyError: It asks for none.
        """
        return content.pop("action"), content

    async def handle_action(self, action: str, request_id: Any, **kwargs: Any) -> None:
        """Check permissions, throttles and arguments; call the action; reply."""
        try:
            await self.check_permissions(action, **kwargs)
            await self.check_throttles(action, **kwargs)
            method = self._method(action)
            arguments = fit(method, {"request_id": request_id, "action": action}, kwargs)
            await self.reply_with(await method(**arguments), action=action, request_id=request_id)
        except Exception as error:  # noqa: BLE001 - answered and logged there
            await self.handle_exception(error, action=action, request_id=request_id)

    def _method(self, action: str) -> Any:
        if action not in self.available_actions:
            raise MethodNotAllowed(method=action)
        return getattr(self, self.available_actions[action])

    # Permissions and throttles

    async def get_permissions(self, action: str, **kwargs: Any) -> list[Any]:
        """Return the permissions to ask, as instances."""
        return instances(self.permission_classes)

    async def check_permissions(self, action: str, **kwargs: Any) -> None:
        """
        Refuse an action that a permission refuses.

        Raises:
            PermissionDenied: With the permission's ``message`` and ``code``, if it has any.
        """
        case = Case(self.scope, self, action, kwargs)
        for permission in await self.get_permissions(action=action, **kwargs):
            if not await answer(permission, "has_permission", case):
                self.permission_denied(permission)

    def permission_denied(self, permission: Any) -> NoReturn:
        """Raise the error for a refusal of ``permission``."""
        source = getattr(permission, "permission", permission)
        raise PermissionDenied(
            detail=getattr(source, "message", None), code=getattr(source, "code", None)
        )

    def get_throttles(self) -> list[BaseThrottle]:
        """Return the throttles to ask, as instances."""
        return [throttle() for throttle in self.throttle_classes]

    async def check_throttles(self, action: str, **kwargs: Any) -> None:
        """
        Refuse an action that comes too soon.

        Raises:
            Throttled: With the seconds to wait, if a throttle knows them.
        """
        throttles = self.get_throttles()
        if throttles:
            await database_sync_to_async(self._check_throttles)(throttles, action)

    def _check_throttles(self, throttles: list[BaseThrottle], action: str) -> None:
        request = drf_request(self.scope, action)
        # All are asked, as in DRF: each counts what it lets through.
        refusing = [t for t in throttles if not t.allow_request(request, cast("Any", self))]
        if refusing:
            waits = [
                wait for wait in (throttle.wait() for throttle in refusing) if wait is not None
            ]
            raise Throttled(max(waits, default=None))

    # Replies

    async def reply(
        self,
        action: str | None,
        data: Any = None,
        errors: list[Any] | None = None,
        status: int = 200,
        request_id: Any = None,
    ) -> None:
        """Send a frame with the five keys."""
        await self.send_json(
            {
                "errors": [] if errors is None else errors,
                "data": data,
                "action": action,
                "response_status": status,
                "request_id": request_id,
            }
        )

    async def reply_with(self, response: Any, *, action: str | None, request_id: Any) -> None:
        """Reply with what an action returned, if that is ``(data, status)``."""
        if isinstance(response, tuple):
            data, status = response
            await self.reply(action=action, data=data, status=status, request_id=request_id)

    async def handle_exception(self, exc: Exception, action: str | None, request_id: Any) -> None:
        """
        Reply with an error.

        DRF's exceptions give their status and detail; an unexpected one is logged and answered with
        500, without internals.
        """
        if isinstance(exc, Http404):
            status, errors = 404, ["Not found"]
        elif isinstance(exc, DjangoPermissionDenied):
            denied = PermissionDenied()
            status, errors = denied.status_code, self._format_errors(denied.detail)
        elif isinstance(exc, APIException):
            status, errors = exc.status_code, self._format_errors(exc.detail)
        elif isinstance(exc, ClientDisconnected):
            raise exc
        else:
            await self._internal_error(exc, action, request_id)
            return
        await self.reply(action=action, errors=errors, status=status, request_id=request_id)

    async def _internal_error(self, error: Exception, action: Any, request_id: Any) -> None:
        logger.error("The action %r of %s failed.", action, type(self).__qualname__, exc_info=error)
        await self.reply(action=action, errors=[INTERNAL_ERROR], status=500, request_id=request_id)

    def _format_errors(self, errors: Any) -> list[Any]:
        return errors if isinstance(errors, list) else [errors]

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
        """
        try:
            await self.send(text_data=text)
        except OSError as error:
            raise ClientDisconnected(*error.args) from error

    @classmethod
    async def encode_json(cls, content: Any) -> str:
        """Return JSON, with what DRF can render: dates, decimals, UUIDs, lazy strings."""
        return _encode(content)

    @classmethod
    async def decode_json(cls, text_data: str) -> Any:
        """Return what JSON says; numbers that JSON doesn't have are refused."""
        return json.loads(text_data, parse_constant=_refuse, parse_float=_finite)

    # Detached tasks

    def start_detached(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run ``work`` in a task that ends with the socket at the latest."""
        task = asyncio.create_task(work, name=f"{type(self).__name__}.{name}")
        self.detached_tasks.setdefault(name, []).append(task)
        task.add_done_callback(lambda done: self._detached_done(name, done))
        return task

    def _detached_done(self, name: str, task: asyncio.Task[Any]) -> None:
        tasks = self.detached_tasks.get(name, [])
        if task in tasks:
            tasks.remove(task)
        if not tasks:
            self.detached_tasks.pop(name, None)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not isinstance(error, ClientDisconnected):
            logger.error("The detached %s failed.", task.get_name(), exc_info=error)

    async def cancel_detached(self, name: str) -> None:
        """Cancel what runs detached under ``name`` and wait until it has ended."""
        await _cancelled(list(self.detached_tasks.get(name, ())))

    async def _cancel_detached(self) -> None:
        await _cancelled([task for tasks in self.detached_tasks.values() for task in tasks])


def _check_message(action: Any, arguments: dict[str, Any]) -> None:
    if not isinstance(action, str):
        raise ValidationError('"action" must be a string.')
    refuse_reserved(arguments, *RESERVED)


async def _cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    others = [task for task in tasks if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others)


_encode = JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON.")


def _finite(text: str) -> float:
    number = float(text)
    if number in {float("inf"), float("-inf")}:
        raise ValueError(f"{text} is out of range.")
    return number
