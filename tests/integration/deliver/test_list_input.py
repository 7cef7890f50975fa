"""What clients send with ``subscribe_list``, and how much they may have."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group
from rest_framework.filters import SearchFilter

from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelListMixin
from pgobserve.subscribe import feeds
from tests.bookshelf.serializers import shows
from tests.integration.deliver.conftest import run_sql
from tests.integration.deliver.test_list import (
    UPDATE,
    ItemListConsumer,
    brief,
    subscribe,
)
from tests.project.models import Item

pytestmark = pytest.mark.parametrize("transport", ["notify"], indirect=True)


class NotObservedConsumer(ObserverModelListMixin, GenericAsyncAPIConsumer):
    queryset = Group.objects.all()
    serializer_class = shows(Group, "id", "name")


class SearchedConsumer(ItemListConsumer):
    filter_backends = [SearchFilter]
    search_fields = ["name"]


@pytest.fixture
def items(observed: None) -> list[Item]:
    """Three rows."""
    return [Item.objects.create(name=name, rank=rank) for rank, name in enumerate("abc")]


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"request_id": None},
        {"request_id": 1, "only": "rows"},
        {"request_id": 1, "only": ["keys"]},
        {"request_id": 1, "only": {}},
        {"request_id": 1, "only": True},
        {"request_id": 1, "max_rows": 0},
        {"request_id": 1, "max_rows": -1},
        {"request_id": 1, "max_rows": "2"},
        {"request_id": 1, "max_rows": 1.5},
        {"request_id": 1, "max_rows": True},
        {"request_id": 1, "max_rows": [1]},
        {"request_id": 1, "query": "search=a"},
        {"request_id": 1, "query": ["a"]},
        {"request_id": 1, "query": 5},
        *(
            {"request_id": 1, "have": have}
            for have in (0, "", [], ["1"], True, {"1": 1}, {"1": None}, {"1": "x", "2": ["x"]})
        ),
        {"request_id": 1, "have": {}, "only": "count"},
        {"request_id": 1, "have": {str(number): "x" for number in range(10_001)}},
        {"request_id": 1, "self": 1},
        {"request_id": 1, "queryset": 1},
    ],
    ids=lambda content: str(content)[:60],
)
async def test_bad_input(connect: Any, items: list[Item], content: Any) -> None:
    """Bad input is answered 400 with a sentence, nothing is subscribed, and the socket lives."""
    socket = await connect(SearchedConsumer)
    frame = await socket.ask("subscribe_list", **content)
    assert (frame["action"], frame["response_status"]) == ("subscribe_list", 400), frame
    assert frame["errors"]
    assert frame["data"] is None
    await run_sql(UPDATE, "x", items[0].pk)
    assert await socket.has_nothing()

    assert len((await subscribe(socket))["data"]["results"]) == 3


@pytest.mark.parametrize("request_id", [0, "", False, "é\x00", [1, {"a": None}], {"b": 1}, 1.5])
async def test_request_ids(connect: Any, items: list[Item], request_id: Any) -> None:
    """Any JSON value names a subscription, but null; frames have it as it was."""
    socket = await connect(ItemListConsumer)
    frame = await subscribe(socket, request_id=request_id)
    await run_sql(UPDATE, "x", items[0].pk)
    told = await socket.receive()
    ended = await socket.ask("unsubscribe_list", request_id=request_id)
    await run_sql(UPDATE, "y", items[0].pk)

    assert [each["request_id"] for each in (frame, told, ended)] == [request_id] * 3
    assert ended["response_status"] == 204
    assert await socket.has_nothing()


async def test_unsubscribe_without_a_name(connect: Any, items: list[Item]) -> None:
    """Which list is to end must be said; to end none is no error."""
    socket = await connect(ItemListConsumer)

    assert (await socket.ask("unsubscribe_list"))["response_status"] == 400
    assert (await socket.ask("unsubscribe_list", request_id=7))["response_status"] == 204


async def test_replaced(connect: Any, items: list[Item]) -> None:
    """A second list of the same request id takes the place of the first."""
    socket = await connect(SearchedConsumer)
    await subscribe(socket)
    frame = await subscribe(socket, query={"search": "b"})
    assert [row["name"] for row in frame["data"]["results"]] == ["b"]
    await run_sql(UPDATE, "x", items[0].pk)
    await run_sql(UPDATE, "bb", items[1].pk)

    assert brief(await socket.receive()) == ("update", items[1].pk)
    assert await socket.has_nothing()


async def test_not_replaced(connect: Any, items: list[Item]) -> None:
    """One that is refused leaves the list that there is."""
    socket = await connect(ItemListConsumer)
    await subscribe(socket)
    refused = await socket.ask("subscribe_list", request_id=1, max_rows=0)
    await run_sql(UPDATE, "x", items[0].pk)

    assert refused["response_status"] == 400
    assert brief(await socket.receive()) == ("update", items[0].pk)


async def test_too_many_rows(connect: Any, items: list[Item], settings: Any) -> None:
    """A list of too many rows is refused with the limit; who has it keeps it; a count may be."""
    settings.PGOBSERVE = {"MAX_LIST_ROWS": 3}
    socket = await connect(ItemListConsumer)
    await subscribe(socket)
    await run_sql("INSERT INTO project_item (name, rank) VALUES ('d', 4)")
    assert (await socket.receive())["action"] == "create"
    await socket.ask("unsubscribe_list", request_id=1)
    frame = await socket.ask("subscribe_list", request_id=2)
    assert (frame["response_status"], frame["data"]) == (413, None)
    assert "3" in frame["errors"][0]

    assert (await subscribe(socket, request_id=3, only="count"))["data"] == {"count": 4}


async def test_too_many_rows_for_one_more(connect: Any, items: list[Item], settings: Any) -> None:
    """Who asks for a list that has grown too long is refused; who has it hears of it as before."""
    settings.PGOBSERVE = {"MAX_LIST_ROWS": 3}
    has = await connect(ItemListConsumer)
    await subscribe(has)
    await run_sql("INSERT INTO project_item (name, rank) VALUES ('d', 4)")
    await has.receive()
    asks = await connect(ItemListConsumer)
    frame = await asks.ask("subscribe_list", request_id=1)
    await run_sql(UPDATE, "x", items[0].pk)

    assert frame["response_status"] == 413
    assert brief(await has.receive()) == ("update", items[0].pk)
    assert await asks.has_nothing()


async def test_too_many_lists(connect: Any, items: list[Item], settings: Any) -> None:
    """Lists count as subscriptions; one that is replaced counts once."""
    settings.PGOBSERVE = {"MAX_SUBSCRIPTIONS": 2}
    socket = await connect(ItemListConsumer)
    for request_id in (1, 2, 2):
        await subscribe(socket, request_id=request_id)
    frame = await socket.ask("subscribe_list", request_id=3)
    assert frame["response_status"] == 429
    assert "2" in frame["errors"][0]
    await socket.ask("unsubscribe_list", request_id=1)

    await subscribe(socket, request_id=3)


async def test_not_installed(
    connect: Any,
    transactional_db: None,
    transport: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A list of a table without triggers is refused with what to do; the log says it once."""
    monkeypatch.setattr(feeds, "_logged", set())
    socket = await connect(NotObservedConsumer)
    frames = [await socket.ask("subscribe_list", request_id=1) for _ in range(2)]

    assert [frame["response_status"] for frame in frames] == [503, 503]
    assert "pgobserve install auth.Group" in frames[0]["errors"][0]
    (said,) = [each for each in caplog.messages if "was refused" in each]
    assert "pgobserve install auth.Group" in said


async def test_arguments_are_bounded(connect: Any, items: list[Item], settings: Any) -> None:
    """What is kept of a client's arguments has a bound for each subscription, and for the socket."""
    settings.PGOBSERVE = {"MAX_ARGUMENT_BYTES": 1000}
    socket = await connect(ItemListConsumer)

    async def status(request_id: int, **content: Any) -> int:
        frame = await socket.ask("subscribe_list", request_id=request_id, **content)
        assert frame["errors"] or frame["response_status"] == 201
        return int(frame["response_status"])

    nested: Any = 1
    for _ in range(25):
        nested = [nested]
    assert await status(1, junk=nested) == 400
    assert await status(1, junk="x" * 17_000) == 413
    assert await status(1, junk="x" * 800) == 201
    assert await status(2, junk="x" * 800) == 429
    assert await status(1, junk="y" * 800) == 201, "it takes the place of the first"
    await socket.ask("unsubscribe_list", request_id=1)
    assert await status(2, junk="x" * 800) == 201
