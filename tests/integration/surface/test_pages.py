"""Lists, page by page."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from pgobserve.decorators import action
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.mixins import PaginatedModelListMixin, StreamedPaginatedListMixin
from pgobserve.pagination import WebsocketLimitOffsetPagination
from tests.integration.surface.consumers import Items, shown
from tests.sockets import connected, reply

if TYPE_CHECKING:
    from tests.project.models import Item


class Pages(WebsocketLimitOffsetPagination):
    default_limit = 2


class Paged(PaginatedModelListMixin, GenericAsyncAPIConsumer):
    queryset = Items.queryset
    serializer_class = Items.serializer_class
    pagination_class = Pages


class Streamed(StreamedPaginatedListMixin, GenericAsyncAPIConsumer):
    queryset = Items.queryset
    serializer_class = Items.serializer_class
    pagination_class = Pages

    @action()
    async def ping(self, **kwargs: Any) -> tuple[None, int]:
        return None, 200


async def test_page(items: list[Item]) -> None:
    """A page has the number of all rows, its rows, and where it is."""
    async with connected(Paged.as_asgi()) as client:
        assert await client.ask("list", request_id=1, limit=3, offset=1) == reply(
            "list",
            {"count": 5, "results": [shown(i) for i in items[1:4]], "limit": 3, "offset": 1},
            request_id=1,
        )
        assert (await client.ask("list"))["data"]["limit"] == 2


@pytest.mark.parametrize("key", ["limit", "offset"])
@pytest.mark.parametrize("value", [None, [], {}, "x", -1, 10**30, True])
async def test_any_limit_and_offset(items: list[Item], key: str, value: object) -> None:
    """Whatever limit or offset is sent, there is a page and the socket lives."""
    async with connected(Paged.as_asgi()) as client:
        assert (await client.ask("list", **{key: value}))["response_status"] == 200


async def test_without_pagination_class(items: list[Item]) -> None:
    """Without a pagination class, or a limit, the whole list is the reply."""

    class Whole(Paged):
        pagination_class = None

    class Unlimited(Paged):
        pagination_class = WebsocketLimitOffsetPagination

    for consumer in (Whole, Unlimited):
        async with connected(consumer.as_asgi()) as client:
            assert (await client.ask("list"))["data"] == [shown(item) for item in items]


async def test_pagination_from_the_setting(items: list[Item], settings: Any) -> None:
    """Pagination class and page size may come from the setting."""

    class Default(PaginatedModelListMixin, GenericAsyncAPIConsumer):
        queryset = Items.queryset
        serializer_class = Items.serializer_class

    settings.DJANGO_CHANNELS_REST_API = {
        "DEFAULT_PAGINATION_CLASS": "pgobserve.pagination.WebsocketLimitOffsetPagination",
        "PAGE_SIZE": 4,
    }
    async with connected(Default.as_asgi()) as client:
        assert len((await client.ask("list"))["data"]["results"]) == 4


async def test_stream(items: list[Item]) -> None:
    """A streamed list is one reply per page, all with the request id, until there are no rows."""
    async with connected(Streamed.as_asgi()) as client:
        await client.send(action="list", request_id=1)
        frames = [await client.frame() for _ in range(3)]
        assert [(await client.ask("ping", request_id=2))["request_id"]] == [2]
    assert [(f["action"], f["request_id"], f["response_status"]) for f in frames] == [
        ("list", 1, 200)
    ] * 3
    assert [f["data"]["offset"] for f in frames] == [0, 2, 4]
    assert [row for f in frames for row in f["data"]["results"]] == [shown(i) for i in items]


async def test_stream_of_nothing() -> None:
    """A streamed list of no rows is one empty page."""
    async with connected(Streamed.as_asgi()) as client:
        assert (await client.ask("list"))["data"] == {
            "count": 0,
            "results": [],
            "limit": 2,
            "offset": 0,
        }


async def test_stream_without_pages(items: list[Item]) -> None:
    """A streamed list without a pagination class is one reply with all rows."""

    class Whole(Streamed):
        pagination_class = None

    async with connected(Whole.as_asgi()) as client:
        assert len((await client.ask("list"))["data"]) == 5
        assert (await client.ask("ping"))["action"] == "ping"


async def test_streams_let_others_through_and_all_are_cancelled(items: list[Item]) -> None:
    """While lists are streamed other messages are answered; ``list_cancel`` ends every one."""

    class Slow(Streamed):
        sleep_time_between_pages = 3600

    async with connected(Slow.as_asgi()) as client:
        for number in range(3):
            assert (await client.ask("list", request_id=number))["request_id"] == number
        assert (await client.ask("ping", request_id=9))["request_id"] == 9
        assert await client.ask("list_cancel", request_id=10) == reply(
            "list_cancel", None, request_id=10
        )
        assert (await client.ask("ping", request_id=11))["request_id"] == 11
        names = [task.get_name() for task in asyncio.all_tasks()]
        assert "Slow.list" not in names


async def test_stream_with_a_bad_query_is_answered(items: list[Item]) -> None:
    """What is wrong with a streamed list's message is answered with its request id."""

    class Filtered(Streamed):
        from rest_framework.filters import SearchFilter

        filter_backends = (SearchFilter,)

    async with connected(Filtered.as_asgi()) as client:
        answer = await client.ask("list", request_id=1, query=5)
        assert (answer["response_status"], answer["request_id"]) == (400, 1)
