"""Requests made from a scope."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from django.test import modify_settings
from rest_framework.exceptions import ValidationError

from pgobserve.scope_utils import drf_request, ensure_async, query_dict, request_from_scope

SCOPE: dict[str, Any] = {
    "type": "websocket",
    "scheme": "wss",
    "path": "/ws/",
    "query_string": b"token=1",
    "headers": [
        (b"host", b"example.com"),
        (b"x-real-ip", b"1.2.3.4"),
        (b"x_real_ip", b"6.6.6.6"),
        (b"x-forwarded-for", b"1.1.1.1"),
        (b"x-forwarded-for", b"2.2.2.2"),
        (b"accept", b"text/html"),
        (b"content-length", b"77"),
    ],
    "client": ["10.0.0.1", 1234],
    "server": ["10.0.0.2", 443],
    "cookies": {"a": "b"},
    "session": {"k": "v"},
}


def test_request_has_what_the_scope_has() -> None:
    """Path, session, cookies, headers, addresses and scheme come from the scope."""
    request = request_from_scope(SCOPE)
    assert (request.path, request.path_info, request.scheme) == ("/ws/", "/ws/", "https")
    assert (request.COOKIES, request.session) == ({"a": "b"}, {"k": "v"})
    assert request.META["REMOTE_ADDR"] == "10.0.0.1"
    assert request.META["QUERY_STRING"] == "token=1"
    assert request.META["host"] == "example.com"
    assert request.headers["X-Forwarded-For"] == "1.1.1.1,2.2.2.2"
    assert request.headers["Accept"] == "application/json"


def test_header_with_underscores_passes_for_no_other() -> None:
    """A header with underscores does not overwrite the one with hyphens."""
    assert request_from_scope(SCOPE).headers["X-Real-Ip"] == "1.2.3.4"


def test_user_without_middleware_is_an_anonymous_instance() -> None:
    """Without a user in the scope the request has an anonymous user, not its class."""
    assert request_from_scope({}).user.is_anonymous is True


def test_project_without_users_has_no_user() -> None:
    """Where Django's users are not installed there is none, and filter backends work."""
    with modify_settings(INSTALLED_APPS={"remove": ["django.contrib.auth"]}):
        request = drf_request({}, "list", query={"search": "x"})

    assert request.user is None
    assert request.query_params["search"] == "x"


def test_absolute_uri_can_be_built(settings: Any) -> None:
    """A request from an empty scope, too, can build absolute URLs."""
    assert request_from_scope(SCOPE).build_absolute_uri("/x/") == "https://example.com/x/"
    assert request_from_scope({}).build_absolute_uri("/x/") == "http://unknown:0/x/"


def test_drf_request_has_query_and_data() -> None:
    """The request for DRF has the query as strings and the data as it was sent."""
    data = {"n": [1, None, {"x": "ü"}]}
    request = drf_request(SCOPE, "list", query={"a": 1, "b": ["x", 2], "c": True}, data=data)
    assert (request.method, request.data) == ("GET", data)
    assert request.query_params.urlencode() == "a=1&b=x&b=2&c=true"


def test_body_is_json() -> None:
    """The body can be read by a plain Django view."""
    request = request_from_scope(SCOPE)
    request.set_body(b'{"a": 1}')
    assert json.loads(request.body) == {"a": 1}


@pytest.mark.parametrize("query", [5, "a=1", [1], {"a": {"b": 1}}, {"a": [[1]]}])
def test_bad_query_is_refused(query: object) -> None:
    """A query that no URL could have is a validation error."""
    with pytest.raises(ValidationError):
        query_dict(query)


async def test_ensure_async() -> None:
    """An asynchronous function is left alone, a synchronous one runs in a thread."""

    async def loops() -> threading.Thread:
        return threading.current_thread()

    assert ensure_async(loops) is loops
    assert await ensure_async(threading.current_thread)() is not threading.current_thread()
    assert await ensure_async(lambda: loops())() is threading.current_thread()
