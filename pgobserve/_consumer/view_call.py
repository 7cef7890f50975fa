"""A Django view, called with what a client sent over a socket."""

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
    Call a view and return what it shows, and its status.

    Args:
        view: A function, ``SomeView.as_view()`` or one that is asynchronous.
        scope: The connection; its user is the one that the view sees, DRF's views included.
        method: The HTTP method.
        message: ``query`` becomes the query string and ``data`` the JSON body.
        args: Positional arguments of the view, after the request.
        kwargs: What a URL would have given.

    Raises:
        ValidationError: What the client sent can't be a request.
    """
    if not isinstance(kwargs, Mapping):
        raise ValidationError('"parameters" must be an object.')
    refuse_reserved(kwargs, "self", "request")

    def respond() -> Any:
        # The user of the scope may be one that is only now looked up.
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
    request.POST = body  # where views written for DCRF look
    for key, value in query.items():
        request.GET.setlist(key, value if isinstance(value, list) else [value])
    # The socket's handshake was authenticated and its origin checked; a frame carries no CSRF token.
    request._dont_enforce_csrf_checks = True
    if request.user.is_authenticated:
        request._force_auth_user = request.user
    return request


def _shown(response: HttpResponse) -> tuple[Any, int]:
    """Return what a response shows, and its status."""
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
