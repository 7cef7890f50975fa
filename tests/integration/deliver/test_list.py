"""Subscriptions to lists: the snapshot, and rows that enter, change and leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework import serializers
from rest_framework.filters import OrderingFilter, SearchFilter

from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelListMixin
from tests.integration.deliver.conftest import run_sql
from tests.project.models import Item

if TYPE_CHECKING:
    from tests.integration.deliver.conftest import Socket

UPDATE = "UPDATE project_item SET name = %s WHERE id = %s"


class ItemSerializer(serializers.ModelSerializer):
    class Meta:
        model = Item
        fields = ["id", "name", "rank"]


class ItemListConsumer(ObserverModelListMixin, GenericAsyncAPIConsumer):
    queryset = Item.objects.order_by("id")
    serializer_class = ItemSerializer


class SearchedConsumer(ItemListConsumer):
    filter_backends = [SearchFilter, OrderingFilter]
    search_fields = ["name"]


class RankedConsumer(ItemListConsumer):
    def get_queryset(self, rank: int = 0, **kwargs: Any) -> Any:
        return super().get_queryset(**kwargs).filter(rank__gte=rank)


async def subscribe(socket: Socket, request_id: Any = 1, **content: Any) -> Any:
    """Subscribe to a list; return the frame that has it."""
    frame = await socket.ask("subscribe_list", request_id=request_id, **content)
    assert frame["response_status"] == 201, frame
    return frame


def brief(frame: Any) -> tuple[str, Any]:
    """Return what happened, and the key."""
    data = frame["data"]
    return frame["action"], data.get("id", data.get("pk"))


async def test_snapshot(connect: Any, items: list[Item]) -> None:
    """The reply has all rows in the queryset's order, with their keys and etags."""
    socket = await connect(ItemListConsumer)
    frame = await subscribe(socket, request_id="r")

    assert frame["action"] == "subscribe_list"
    assert frame["request_id"] == "r"
    assert [row["name"] for row in frame["data"]["results"]] == ["a", "b", "c"]
    assert frame["keys"] == [str(item.pk) for item in items]
    assert len(frame["etags"]) == len(set(frame["etags"])) == 3
    assert "more" not in frame


async def test_enter_change_leave(connect: Any, items: list[Item]) -> None:
    """Rows that enter, change and leave are told, by whatever wrote them."""
    socket = await connect(RankedConsumer)
    await subscribe(socket, rank=1)
    a, b, _ = (item.pk for item in items)

    await run_sql("UPDATE project_item SET rank = 5 WHERE id = %s", a)
    entered = await socket.receive()
    await run_sql(UPDATE, "bb", b)
    changed = await socket.receive()
    await run_sql("UPDATE project_item SET rank = 0 WHERE id = %s", b)
    left = await socket.receive()
    await run_sql("DELETE FROM project_item WHERE id = %s", a)
    gone = await socket.receive()

    assert [brief(f) for f in (entered, changed, left, gone)] == [
        ("create", a),
        ("update", b),
        ("delete", b),
        ("delete", a),
    ]
    assert entered["data"] == {"id": a, "name": "a", "rank": 5}
    assert entered["response_status"] == 200
    assert left["response_status"] == 204
    assert left["data"] == {"pk": b}
    assert await socket.has_nothing()


async def test_rows_outside_are_silent(connect: Any, items: list[Item]) -> None:
    """A change of a row that is not on the list, and was not, is not told."""
    socket = await connect(RankedConsumer)
    await subscribe(socket, rank=2)
    await run_sql(UPDATE, "x", items[0].pk)

    assert await socket.has_nothing()


async def test_query(connect: Any, items: list[Item]) -> None:
    """Filter backends get the query of the message."""
    socket = await connect(SearchedConsumer)
    frame = await subscribe(socket, query={"search": "b", "ordering": "-id"})
    assert [row["name"] for row in frame["data"]["results"]] == ["b"]

    await run_sql(UPDATE, "ab", items[0].pk)

    assert brief(await socket.receive()) == ("create", items[0].pk)


async def test_truncate(connect: Any, items: list[Item]) -> None:
    """TRUNCATE takes every row off the list."""
    socket = await connect(ItemListConsumer)
    await subscribe(socket)
    await run_sql("TRUNCATE project_item CASCADE")

    assert sorted([brief(await socket.receive()) for _ in items]) == [
        ("delete", item.pk) for item in items
    ]


async def test_pages(connect: Any, items: list[Item]) -> None:
    """A list comes in frames of max_rows, all but the last of which say that there is more."""
    socket = await connect(ItemListConsumer)
    first = await subscribe(socket, max_rows=2)
    second = await socket.receive()

    assert [len(frame["data"]["results"]) for frame in (first, second)] == [2, 1]
    assert [len(frame["keys"]) for frame in (first, second)] == [2, 1]
    assert [frame.get("more") for frame in (first, second)] == [True, None]
    assert second["request_id"] == 1


async def test_keys(connect: Any, items: list[Item]) -> None:
    """With only keys, rows come and go and don't change."""
    socket = await connect(ItemListConsumer)
    frame = await subscribe(socket, only="keys")
    assert frame["data"]["results"] == [{"pk": item.pk} for item in items]

    await run_sql(UPDATE, "x", items[0].pk)
    await run_sql("DELETE FROM project_item WHERE id = %s", items[1].pk)

    assert brief(await socket.receive()) == ("delete", items[1].pk)


async def test_count(connect: Any, items: list[Item]) -> None:
    """With only count, the number is told when it changes."""
    socket = await connect(RankedConsumer)
    frame = await subscribe(socket, only="count", rank=1)
    assert frame["data"] == {"count": 2}

    await run_sql(UPDATE, "x", items[0].pk)
    await run_sql("UPDATE project_item SET rank = 9 WHERE id = %s", items[0].pk)
    told = await socket.receive()

    assert (told["action"], told["data"]) == ("update", {"count": 3})


async def test_unsubscribe(connect: Any, items: list[Item]) -> None:
    """After unsubscribe_list nothing is told."""
    socket = await connect(ItemListConsumer)
    await subscribe(socket)
    reply = await socket.ask("unsubscribe_list", request_id=1)
    await run_sql(UPDATE, "x", items[0].pk)

    assert reply["response_status"] == 204
    assert await socket.has_nothing()


async def test_comes_back(connect: Any, items: list[Item]) -> None:
    """A client that says what it has gets what changed since, and nothing else."""
    socket = await connect(ItemListConsumer)
    listed = await subscribe(socket)
    have = dict(zip(listed["keys"], listed["etags"], strict=True))
    await socket.close()
    a, b, c = (item.pk for item in items)
    await run_sql(UPDATE, "x", a)
    await run_sql("DELETE FROM project_item WHERE id = %s", b)
    await run_sql("INSERT INTO project_item (name, rank) VALUES ('d', 4)")

    again = await connect(ItemListConsumer)
    frame = await subscribe(again, have=have)
    assert frame["data"] is None
    told = [await again.receive() for _ in range(3)]

    assert sorted(map(brief, told)) == [("create", c + 1), ("delete", b), ("update", a)]
    assert await again.has_nothing()
