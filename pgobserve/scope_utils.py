"""What Django and DRF know as a request, made from an ASGI scope."""

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

#: The HTTP method that stands for an action where DRF asks for one.
HTTP_METHODS: Mapping[str, str] = {
    "create": "PUT",
    "update": "PATCH",
    "list": "GET",
    "retrieve": "GET",
    "connect": "HEAD",
}


def ensure_async(method: Callable[..., Any]) -> Callable[..., Any]:
    """
    Return ``method`` as something to await.

    A synchronous one runs in the thread that Django's connections belong to; if it turns out to
    have made an awaitable, that is awaited too.
    """
    if iscoroutinefunction(method):
        return method

    @wraps(method)
    async def in_thread(*args: Any, **kwargs: Any) -> Any:
        result = await database_sync_to_async(method)(*args, **kwargs)
        return await result if isawaitable(result) else result

    return in_thread


class ScopeRequest(HttpRequest):
    """A request that knows how it came; Django's own assumes ``http``."""

    def __init__(self, scheme: str) -> None:
        super().__init__()
        self._scheme = scheme

    def _get_scheme(self) -> str:
        return self._scheme

    def set_body(self, body: bytes) -> None:
        """Make ``body`` what Django and DRF's parsers read, as JSON."""
        self.META["CONTENT_TYPE"] = "application/json"
        self.META["CONTENT_LENGTH"] = str(len(body))
        self.content_type, self.content_params = "application/json", {}
        self._stream = BytesIO(body)
        self._read_started = False


def request_from_scope(scope: Mapping[str, Any]) -> ScopeRequest:
    """
    Return an ``HttpRequest`` with the path, session, user, headers and cookies of ``scope``.

    Headers are in ``META`` twice: under their WSGI names (``HTTP_AUTHORIZATION``), as Django and
    DRF look them up, and under the names as sent, as DCRF has them.
    """
    request = ScopeRequest("https" if scope.get("scheme") in {"https", "wss"} else "http")
    request.path = request.path_info = scope.get("path") or ""
    request.session = scope.get("session")  # type: ignore[assignment]
    request.user = scope.get("user") or _nobody()
    request.META.update(_meta(scope))
    request.COOKIES = dict(scope.get("cookies") or {})
    return request


def _nobody() -> Any:
    """Return the user of who is not logged in: None in a project without Django's users."""
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
        # "x_user" must not pass for "X-User", which a proxy may have set.
        if "_" not in name:
            key = f"HTTP_{name.upper().replace('-', '_')}"
            meta[key] = f"{meta[key]},{value}" if key in meta else value
    # What the handshake says of its own content is not true of a message's.
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

    Args:
        scope: The connection.
        action: Gives the HTTP method, by ``methods``.
        methods: HTTP methods by action; an action that is not there is its own, in capitals.
        query: Becomes ``query_params``.
        data: Becomes ``data``.
    """
    http = request_from_scope(scope)
    http.method = methods.get(action, action.upper())
    http.GET = query_dict(query or {})  # type: ignore[assignment]
    if data is not None:
        http.set_body(json.dumps(data, cls=JSONEncoder).encode())
    request = Request(http, parsers=[JSONParser()])
    # The middleware has authenticated the socket; DRF must not do so again.
    request.user = http.user
    return request


def query_dict(query: Any) -> QueryDict:
    """
    Return ``query`` as the query string of a URL would have been parsed: strings, or lists of them.

    Raises:
        ValidationError: ``query`` is no object, or holds one.
    """
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
