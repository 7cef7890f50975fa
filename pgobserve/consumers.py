"""
The base of consumers: a client's message calls an action, whose result is the reply.

Each message gets exactly one reply, unless the action sends none. No message and no error of an action ends
the socket.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, cast

from channels.db import database_sync_to_async
from channels.exceptions import StopConsumer
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from rest_framework.exceptions import (
    AuthenticationFailed,
    MethodNotAllowed,
    NotAuthenticated,
    PermissionDenied,
    Throttled,
    ValidationError,
)

from pgobserve import _json
from pgobserve._consumer import calls
from pgobserve._consumer.calls import RESERVED, fit, refuse_reserved
from pgobserve._consumer.inbox import ACTION, MARKER, SettledRequests
from pgobserve._consumer.json_socket import JsonSocket
from pgobserve._consumer.permission_call import PermissionCase, check_async
from pgobserve._consumer.replies import Replies
from pgobserve._former_names import resolver
from pgobserve.exceptions import ActionMissingException, ClientDisconnected
from pgobserve.permissions import PermissionClass, instances
from pgobserve.scope_utils import drf_request
from pgobserve.settings import from_setting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rest_framework.throttling import BaseThrottle

logger = logging.getLogger(__name__)

MAX_REQUEST_ID_LEVELS = 20

#: Characters of a request id, as JSON.
MAX_REQUEST_ID_LENGTH = 1000


class APIConsumerMetaclass(type):
    """Collects the actions of a class, by the names that clients use."""

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
        # Last, and under another name than the action's: a project's own `settled` is its own.
        if attributes.get(MARKER) or any(hasattr(each, MARKER) for each in attributes.values()):
            cls.available_actions.setdefault(ACTION, "_answer_settled")


class AsyncAPIConsumer(JsonSocket, Replies, metaclass=APIConsumerMetaclass):
    """
    A WebSocket consumer with actions that clients call, as in a DRF view set.

    Attributes:
        permission_classes: Permissions, checked when the socket opens and before each action.
        throttle_classes: DRF throttles, checked before each action.
        available_actions: Method names, by the names that clients use.
    """

    permission_classes: Sequence[PermissionClass] = from_setting("DEFAULT_PERMISSION_CLASSES")
    throttle_classes: Sequence[type[BaseThrottle]] = from_setting("DEFAULT_THROTTLE_CLASSES")
    available_actions: ClassVar[dict[str, str]]

    _settled: SettledRequests | None = None

    async def websocket_connect(self, message: Any) -> None:
        """Accept the socket if ``can_connect`` of each permission allows it."""
        case = PermissionCase(self.scope, self, "connect", message=message)
        try:
            for permission in await self.get_permissions(action="connect"):
                if not await check_async(permission, "can_connect", case):
                    self._refused(permission)
            await super().websocket_connect(message)
        except (PermissionDenied, NotAuthenticated, AuthenticationFailed, DjangoPermissionDenied):
            await self.close()

    # From a frame to an action

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any
    ) -> None:
        """Decode a frame; the reply to anything but a JSON object is a 400."""
        content: dict[str, Any] = {}
        request_id = None
        try:
            content = await self._decoded(text_data)
            request_id = content.get("request_id")
            await self.receive_json(content, **kwargs)
        except (StopConsumer, ClientDisconnected):
            raise
        except Exception as error:  # noqa: BLE001 (replied to and logged there)
            # Invalid JSON, or an error that an override let through, so no override handles it.
            await AsyncAPIConsumer.handle_exception(self, error, None, request_id)

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
        action = None
        if _json.is_deeper(request_id, MAX_REQUEST_ID_LEVELS) or (
            len(_json.encode(request_id)) > MAX_REQUEST_ID_LENGTH
        ):
            # Every reply contains it, errors included, and each subscription keeps it.
            error = ValidationError('"request_id" is nested too deeply, or too long.')
            await self.handle_exception(error, action=None, request_id=None)
            return
        try:
            action, arguments = await self.get_action_name(content, **kwargs)
            refuse_reserved(arguments, *RESERVED)
            _must_be_text(action)
        except KeyError:
            await self.handle_exception(
                ActionMissingException(), action=None, request_id=request_id
            )
        except Exception as error:  # noqa: BLE001 (replied to and logged there)
            named = action if isinstance(action, str) else None
            await self.handle_exception(error, action=named, request_id=request_id)
        else:
            await self.handle_action(action, request_id=request_id, **arguments)

    async def get_action_name(
        self, content: dict[str, Any], **kwargs: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Return the action that a message names, and its arguments; ``KeyError`` if it names none."""
        return content.pop("action"), content

    async def handle_action(self, action: str, request_id: Any, **kwargs: Any) -> None:
        """Check permissions, throttles and arguments; call the action; reply."""
        work = partial(self._act, action, request_id, kwargs)
        await self._answering(work, action, request_id)

    async def _act(self, action: str, request_id: Any, kwargs: dict[str, Any]) -> Any:
        await self.check_permissions(action, **kwargs)
        await self.check_throttles(action, **kwargs)
        method = self._method(action)
        return await method(**fit(method, {"request_id": request_id, "action": action}, kwargs))

    def _method(self, action: str) -> Any:
        if action not in self.available_actions:
            raise MethodNotAllowed(method=action)
        return getattr(self, self.available_actions[action])

    # The action `settled`

    async def _settle(self) -> None:
        """
        Return when everything committed before this call has been sent to this socket.

        By then the frames of subscriptions have been sent, and the handlers of model observers have
        returned. Only a detached action may await this: frames wait until other actions have replied.
        """
        await self.inbox.settle()

    async def _answer_settled(self, request_id: Any = None, **kwargs: Any) -> None:
        """Reply when everything committed before the request arrived has been sent."""
        if self._settled is None:
            self._settled = SettledRequests(self)
        self._settled.add(request_id)

    # Permissions and throttles

    async def get_permissions(self, action: str, **kwargs: Any) -> list[Any]:
        """Return the permissions to check, as instances."""
        return instances(self.permission_classes)

    async def check_permissions(self, action: str, **kwargs: Any) -> None:
        """
        Check the permissions for an action.

        Raises:
            PermissionDenied: A permission refuses; with its ``message`` and ``code``, if it has any.
        """
        case = PermissionCase(self.scope, self, action, kwargs)
        for permission in await self.get_permissions(action=action, **kwargs):
            if not await check_async(permission, "has_permission", case):
                self._refused(permission)

    def _refused(self, permission: Any) -> NoReturn:
        """Raise the error for a refusal of ``permission``."""
        source = getattr(permission, "permission", permission)
        raise PermissionDenied(
            detail=getattr(source, "message", None), code=getattr(source, "code", None)
        )

    def get_throttles(self) -> list[BaseThrottle]:
        """Return the throttles to check, as instances."""
        return [throttle() for throttle in self.throttle_classes]

    async def check_throttles(self, action: str, **kwargs: Any) -> None:
        """
        Check the throttles for an action.

        Raises:
            Throttled: A throttle refuses; with the seconds to wait, if it knows them.
        """
        throttles = self.get_throttles()
        if throttles:
            await database_sync_to_async(self._check_throttles)(throttles, action)

    def _check_throttles(self, throttles: list[BaseThrottle], action: str) -> None:
        request = drf_request(self.scope, action)
        # All are checked, as in DRF: each counts the requests that it allows.
        refusing = [t for t in throttles if not t.allow_request(request, cast("Any", self))]
        if refusing:
            waits = (throttle.wait() for throttle in refusing)
            raise Throttled(max((wait for wait in waits if wait is not None), default=None))


class DjangoViewAsConsumer(AsyncAPIConsumer):
    """
    A consumer whose actions are requests to a Django view; see :func:`view_as_consumer`.

    Attributes:
        view: The view.
        actions: HTTP methods by action.
    """

    view: Any = None
    actions: Mapping[str, str] = {}

    async def _act(self, action: str, request_id: Any, kwargs: dict[str, Any]) -> Any:
        await self.check_permissions(action, **kwargs)
        await self.check_throttles(action, **kwargs)
        return await self.call_view(action=action, **kwargs)

    async def call_view(self, action: str, **kwargs: Any) -> tuple[Any, int]:
        """Return the content and status of the view's response to an action."""
        if action not in self.actions:
            raise MethodNotAllowed(method=action)
        args, view_kwargs = self.get_view_args(action=action, **kwargs)
        method = self.actions[action].upper()
        return await calls.call(type(self).view, self.scope, method, kwargs, args, view_kwargs)

    def get_view_args(self, action: str, **kwargs: Any) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return the arguments that a URL would contain for the view."""
        return [], kwargs.get("parameters", {})


#: The default HTTP methods of a view's actions.
VIEW_ACTIONS: Mapping[str, str] = {
    "create": "PUT",
    "update": "PATCH",
    "list": "GET",
    "retrieve": "GET",
}


def view_as_consumer(
    wrapped_view: Callable[..., Any], mapped_actions: Mapping[str, str] | None = None
) -> Any:
    """
    Serve a Django view over a socket.

    A message has ``action``, and may have ``query`` (the query string), ``parameters`` (arguments from a
    URL) and ``data`` (the JSON body). The reply has the response's status and data. The view sees the
    socket's user.

    Args:
        wrapped_view: A view, such as ``UserViewSet.as_view({"get": "list", "put": "create"})``.
        mapped_actions: HTTP methods by action; ``VIEW_ACTIONS`` by default.

    Returns:
        An ASGI application that gives each socket a consumer of its own.
    """

    class DjangoViewWrapper(DjangoViewAsConsumer):
        view = staticmethod(wrapped_view)
        actions = VIEW_ACTIONS if mapped_actions is None else mapped_actions

    return DjangoViewWrapper.as_asgi()


def _must_be_text(action: Any) -> None:
    if not isinstance(action, str):
        raise ValidationError('"action" must be a string.')


__getattr__ = resolver(__name__)
