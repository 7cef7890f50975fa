"""
What a client sends, as the arguments of an action or as the request of a Django view.

The keys of a message become keyword arguments. They are compared with the signature, so that a
``TypeError`` inside a method never counts as the client's mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from inspect import Parameter, isawaitable, signature
from typing import TYPE_CHECKING, Any, Final

from channels.db import database_sync_to_async
from django.template.response import SimpleTemplateResponse
from rest_framework.exceptions import ValidationError
from rest_framework.response import Response

from pgobserve import _json
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


#: Names of the arguments that the consumer itself passes to permissions and actions.
RESERVED: Final = ("self", "scope", "consumer", "action", "request_id")

_FILLED_BY_NAME: Final = frozenset({Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY})


def refuse_reserved(arguments: Mapping[str, Any], *names: str) -> None:
    """
    Refuse a message whose key is the name of an argument of ours.

    Raises:
        ValidationError: ``arguments`` has one of ``names``.
    """
    for name in names:
        if name in arguments:
            raise ValidationError(f'"{name}" is a reserved name and can\'t be a key here.')


def fit(
    method: Callable[..., Any], given: Mapping[str, Any], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """
    Return the keyword arguments to call ``method`` with.

    Args:
        given: Arguments that the consumer adds, if the method accepts them.
        arguments: Arguments from the client, all of which must fit.

    Raises:
        ValidationError: An argument is missing or unknown.
    """
    function = getattr(method, "__func__", method)
    accepted, required, takes_any = _parameters(function, function is not method)
    unknown = () if takes_any else [name for name in arguments if name not in accepted]
    missing = [name for name in required if name not in arguments and name not in given]
    if missing:
        raise ValidationError([f'"{name}" is required.' for name in missing])
    if unknown:
        raise ValidationError([f'"{name}" is not an argument of this action.' for name in unknown])
    fitting = {k: v for k, v in given.items() if takes_any or k in accepted}
    return {**fitting, **arguments}


@lru_cache(maxsize=4096)
def _parameters(
    function: Callable[..., Any], bound: bool
) -> tuple[frozenset[str], tuple[str, ...], bool]:
    """Return the names a function accepts, those it requires, and whether it takes any other."""
    parameters = list(signature(function).parameters.values())[1 if bound else 0 :]
    named = [p for p in parameters if p.kind in _FILLED_BY_NAME]
    return (
        frozenset(p.name for p in named),
        tuple(p.name for p in named if p.default is Parameter.empty),
        any(p.kind is Parameter.VAR_KEYWORD for p in parameters),
    )
