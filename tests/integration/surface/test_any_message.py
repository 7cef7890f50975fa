"""Whatever a client sends: one reply with five keys, no 5xx, and the socket lives."""

from __future__ import annotations

import json
from typing import Any

from django_filters.rest_framework import DjangoFilterBackend
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rest_framework.filters import OrderingFilter, SearchFilter

from pgobserve.mixins import PaginatedModelListMixin
from pgobserve.pagination import WebsocketLimitOffsetPagination
from tests.integration.surface.consumers import Items
from tests.project.models import Item
from tests.sockets import connected


class Pages(WebsocketLimitOffsetPagination):
    default_limit = 2


class Everything(PaginatedModelListMixin, Items):  # type: ignore[misc]
    """All that takes something from a message."""

    pagination_class = Pages
    filter_backends = (DjangoFilterBackend, SearchFilter, OrderingFilter)
    filterset_fields = {"name": ["exact", "in"], "rank": ["exact", "gte", "range"]}
    search_fields = ["name"]
    ordering_fields = "__all__"


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from([2**31, 2**63, -(2**63) - 1, 10**40])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=[]), max_size=8)
    | st.sampled_from(["", "\0", "\ud800", "1", "name", "-rank", "__all__", "%", "'", "🚢"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "rank", "id", "x", ""]), inner, max_size=3)
    ),
    max_leaves=6,
)
queries = st.dictionaries(
    st.sampled_from(["name", "name__in", "rank", "rank__gte", "rank__range", "search", "ordering"]),
    values,
    max_size=3,
)
actions = st.sampled_from(["create", "list", "retrieve", "update", "patch", "delete", "zork"])
keys = st.sampled_from(
    [
        "self",
        "scope",
        "consumer",
        "queryset",
        "serializer",
        "instance",
        "view",
        "obj",
        "args",
        "kwargs",
        "action_kwargs",
        "limit",
        "offset",
        "method",
        "permission",
        "question",
        "case",
    ]
)
messages = st.builds(
    lambda known, unknown: unknown | known,
    st.fixed_dictionaries(
        {},
        optional={
            "action": actions | actions | values,
            "request_id": values,
            "pk": values,
            "data": values
            | st.fixed_dictionaries({"name": values}, optional={"rank": values, "id": values}),
            "query": queries | values,
            "limit": values,
            "offset": values,
        },
    ),
    st.dictionaries(keys | st.text(max_size=5), values, max_size=2),
)


# The rows that one message makes or changes are there for the next: that is as it should be.
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(st.lists(messages | values, min_size=1, max_size=25))
async def test_any_message_gets_one_reply(sent: list[Any]) -> None:
    """Every JSON value is answered, once, with its request id, and never with a 5xx."""
    await Item.objects.acreate(name="a")
    async with connected(Everything.as_asgi()) as client:
        for message in sent:
            await client.send_text(json.dumps(message))
            answer = await client.frame()
            assert set(answer) == {"errors", "data", "action", "response_status", "request_id"}
            assert answer["response_status"] < 500, (message, answer)
            request_id = message.get("request_id") if isinstance(message, dict) else None
            assert answer["request_id"] == request_id
        assert (await client.ask("list", request_id="last"))["request_id"] == "last"


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text(max_size=30) | st.text('{}[]":,0123456789eE.-+truefalsnl \\u', max_size=30))
async def test_any_text_gets_one_reply(text: str) -> None:
    """Every text is answered, once."""
    async with connected(Everything.as_asgi()) as client:
        await client.send_text(text)
        assert (await client.frame())["response_status"] < 500
        assert (await client.ask("zork", request_id="last"))["request_id"] == "last"
