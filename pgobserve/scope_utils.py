"""Requests for Django and DRF, made from an ASGI scope."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import wraps
from inspect import isawaitable
from io import BytesIO
from typing import Any

from asgiref.sync import iscoroutinefunction
from channels.db import database_sync_to_async
from django.apps import apps
from django.http import HttpRequest, QueryDict
from rest_framework.exceptions import ValidationError
from rest_framework.parsers import JSONParser
from rest_framework.request import Request
from rest_framework.utils.encoders import JSONEncoder

from pgobserve._former_names import resolver

#: Actions that only begin or end a subscription.
SUBSCRIBING = (
    *(
        "subscribe_instance",
        "unsubscribe_instance",
        "subscribe_list",
        "unsubscribe_list",
        "settled",
    ),
)

#: The HTTP methods of actions, for DRF.
HTTP_METHODS: Mapping[str, str] = {
    **dict.fromkeys(SUBSCRIBING, "GET"),
    "create": "PUT",
    "update": "PATCH",
    "list": "GET",
    "retrieve": "GET",
    "connect": "HEAD",
}


def ensure_async(method: Callable[..., Any]) -> Callable[..., Any]:
    """
    Return ``method`` as an asynchronous function.

    A synchronous method runs in the thread of Django's connections; a returned awaitable is awaited, too.
    """
    if iscoroutinefunction(method):
        return method

    @wraps(method)
    async def in_thread(*args: Any, **kwargs: Any) -> Any:
        result = await database_sync_to_async(method)(*args, **kwargs)
        return await result if isawaitable(result) else result

    return in_thread


class ScopeRequest(HttpRequest):
    """A request with a scheme of its own; Django's is always ``http``."""

    def __init__(self, scheme: str) -> None:
        super().__init__()
        self._scheme = scheme

    def _get_scheme(self) -> str:
        return self._scheme

    def set_body(self, body: bytes) -> None:
        """Set the JSON body that Django and DRF's parsers read."""
        self.META["CONTENT_TYPE"] = "application/json"
        self.META["CONTENT_LENGTH"] = str(len(body))
        self.content_type, self.content_params = "application/json", {}
        self._stream = BytesIO(body)
        self._read_started = False


def request_from_scope(scope: Mapping[str, Any]) -> ScopeRequest:
    """
    Return an ``HttpRequest`` with the path, session, user, headers and cookies of ``scope``.

    ``META`` has each header twice: under its WSGI name (``HTTP_AUTHORIZATION``), which Django and DRF read,
    and under its name as sent, which DCRF uses.
    """
    request = ScopeRequest("https" if scope.get("scheme") in {"https", "wss"} else "http")
    request.path = request.path_info = scope.get("path") or ""
    request.session = scope.get("session")  # type: ignore[assignment]
    request.user = scope.get("user") or _anonymous()
    request.META.update(_meta(scope))
    request.COOKIES = dict(scope.get("cookies") or {})
    return request


def _anonymous() -> Any:
    """Return the anonymous user; None in a project without Django's users."""
    if not apps.is_installed("django.contrib.auth"):
        return None
    from django.contrib.auth.models import AnonymousUser

    return AnonymousUser()


def _meta(scope: Mapping[str, Any]) -> dict[str, str]:
    meta: dict[str, str] = {}
    query_string = scope.get("query_string") or b""
    meta["QUERY_STRING"] = (
        query_string if isinstance(query_string, str) else query_string.decode("latin-1")
    )
    if client := scope.get("client"):
        meta["REMOTE_ADDR"] = meta["REMOTE_HOST"] = str(client[0])
        meta["REMOTE_PORT"] = str(client[1])
    server = scope.get("server") or ("unknown", 0)
    meta["SERVER_NAME"], meta["SERVER_PORT"] = str(server[0]), str(server[1])
    for raw_name, raw_value in scope.get("headers") or ():
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        meta[name] = value
        # A client's "x_user" must not become "X-User", which a proxy may set.
        if "_" not in name:
            key = f"HTTP_{name.upper().replace('-', '_')}"
            meta[key] = f"{meta[key]},{value}" if key in meta else value
    # Content headers of the handshake do not apply to messages.
    return meta | {"HTTP_CONTENT_TYPE": "application/json", "HTTP_ACCEPT": "application/json"}


def drf_request(
    scope: Mapping[str, Any],
    action: str,
    *,
    methods: Mapping[str, str] = HTTP_METHODS,
    query: Mapping[str, Any] | None = None,
    data: Any = None,
) -> Request:
    """
    Return the request that DRF's permissions, throttles and filter backends expect.

    The action determines the HTTP method by ``methods``; for others it is its name in capitals.
    """
    http = request_from_scope(scope)
    http.method = methods.get(action, action.upper())
    http.GET = query_dict(query or {})  # type: ignore[assignment]
    if data is not None:
        http.set_body(json.dumps(data, cls=JSONEncoder).encode())
    request = Request(http, parsers=[JSONParser()])
    # A middleware has authenticated the socket, so DRF must not.
    request.user = http.user
    return request


def query_dict(query: Any) -> QueryDict:
    """Return ``query``, an object of scalars and lists of them, as a parsed query string."""
    if not isinstance(query, Mapping):
        raise ValidationError('"query" must be an object.')
    result = QueryDict(mutable=True)
    for key, value in query.items():
        values = value if isinstance(value, list) else [value]
        if any(isinstance(each, (dict, list)) for each in values):
            raise ValidationError(f'"query": the value of "{key}" must be a string or a list.')
        result.setlist(key, [_as_text(each) for each in values])
    result._mutable = False
    return result


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


__getattr__ = resolver(__name__)
