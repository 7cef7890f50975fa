"""Calls a Django view with a client's message."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from channels.db import database_sync_to_async
from django.template.response import SimpleTemplateResponse
from rest_framework.exceptions import ValidationError
from rest_framework.response import Response

from pgobserve import _json
from pgobserve._consumer.arguments import refuse_reserved
from pgobserve.scope_utils import request_from_scope

if TYPE_CHECKING:
    from django.http import HttpResponse

View = Callable[..., Any]


async def call(
    view: View,
    scope: Mapping[str, Any],
    method: str,
    message: Mapping[str, Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> tuple[Any, int]:
    """
    Call a view and return the content and status of its response.

    Args:
        view: A view function or ``SomeView.as_view()``, synchronous or asynchronous.
        scope: The ASGI scope; the view, also of DRF, sees its user.
        message: ``query`` becomes the query string and ``data`` the JSON body.
        args: Positional arguments of the view, after the request.
        kwargs: The arguments that a URL would contain.

    Raises:
        ValidationError: The message can't become a request.
    """
    if not isinstance(kwargs, Mapping):
        raise ValidationError('"parameters" must be an object.')
    refuse_reserved(kwargs, "self", "request")

    def respond() -> Any:
        # In a thread: the scope's user may be lazy, and queries the database here.
        response = view(_request(scope, method, message), *args, **kwargs)
        return response if isawaitable(response) else _shown(response)

    shown = await database_sync_to_async(respond)()
    if isawaitable(shown):
        shown = await database_sync_to_async(_shown)(await shown)
    content, status = shown
    return content, status


def _request(scope: Mapping[str, Any], method: str, message: Mapping[str, Any]) -> Any:
    request: Any = request_from_scope(scope)
    request.method = method
    data, query = message.get("data", {}), message.get("query", {})
    if not isinstance(query, Mapping):
        raise ValidationError('"query" must be an object.')
    body = _json.encode(data)
    request.set_body(body.encode())
    request.POST = body  # views written for DCRF read it
    for key, value in query.items():
        request.GET.setlist(key, value if isinstance(value, list) else [value])
    # The socket's handshake was authenticated and its origin checked; a frame carries no CSRF token.
    request._dont_enforce_csrf_checks = True
    if request.user.is_authenticated:
        request._force_auth_user = request.user
    return request


def _shown(response: HttpResponse) -> tuple[Any, int]:
    """Return the content and status of a response."""
    return _content(response), response.status_code


def _content(response: HttpResponse) -> Any:
    if isinstance(response, Response):
        try:
            _json.encode(response.data)
        except (TypeError, ValueError):
            pass
        else:
            return response.data
    if isinstance(response, SimpleTemplateResponse):
        response.render()
    content = response.getvalue()
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.hex()
