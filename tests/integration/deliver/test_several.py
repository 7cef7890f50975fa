"""Many users' own lists, read at once: after a gap, and when many come back."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.db import connection
from rest_framework import serializers

from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelListMixin
from pgobserve.read.list_load import ListLoad
from pgobserve.runtime import runtime
from tests.integration.deliver.conftest import run_sql, settled
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.deliver.conftest import Socket

USERS = 10


class ItemSerializer(serializers.ModelSerializer):
    class Meta:
        model = Item
        fields = ["id", "name", "rank"]

    def to_representation(self, instance: Item) -> Any:
        if instance.name == "query":
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 / 0")
        return super().to_representation(instance)


class OwnConsumer(ObserverModelListMixin, GenericAsyncAPIConsumer):
    """Each user sees the rows of his rank, last first."""

    queryset = Item.objects.order_by("-id")
    serializer_class = ItemSerializer

    def get_queryset(self, **kwargs: Any) -> Any:
        return super().get_queryset(**kwargs).filter(rank=self.scope["rank"])


@pytest.fixture
def items(observed: None) -> list[Item]:
    """Two rows of each user, and one of nobody."""
    made = [Item.objects.create(name=name, rank=n) for name in "ab" for n in range(USERS)]
    return [*made, Item.objects.create(name="nobody's", rank=99)]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Count the queries of the table, and the lists that were read alone."""
    counted: Counter[str] = Counter()
    execute, alone = psycopg.Cursor.execute, ListLoad.run_whole

    def count(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        counted["queries"] += "project_item" in str(query) and "SELECT" in str(query)
        return execute(self, query, *args, **kwargs)

    def count_alone(self: ListLoad) -> Any:
        counted["alone"] += 1
        return alone(self)

    monkeypatch.setattr(psycopg.Cursor, "execute", count)
    monkeypatch.setattr(ListLoad, "run_whole", count_alone)
    return counted


async def users(connect: Any, count: int = USERS) -> list[Socket]:
    """Open a socket for each user, with his list."""
    sockets = [await connect(OwnConsumer, rank=number) for number in range(count)]
    for socket in sockets:
        assert (await socket.ask("subscribe_list", request_id=1))["response_status"] == 201
    return sockets


async def unnoticed(sql: str, *params: Any) -> None:
    """Change rows behind the feed's back, then have it look."""
    await run_sql("ALTER TABLE project_item DISABLE TRIGGER USER")
    await run_sql(sql, *params)
    await run_sql("ALTER TABLE project_item ENABLE TRIGGER USER")
    for feed in runtime.current().feeds.values():
        feed._reread()


async def test_gap(connect: Any, items: list[Item], reads: Counter[str]) -> None:
    """After a gap many own lists cost one query; each user is told what is new of his own rows."""
    sockets = await users(connect)
    await settled()
    reads.clear()
    await unnoticed("UPDATE project_item SET name = 'new' WHERE name = 'a'")

    frames = [await socket.receive() for socket in sockets]

    assert [frame["data"] for frame in frames] == [
        {"id": item.pk, "name": "new", "rank": item.rank} for item in items[:USERS]
    ]
    assert all([await socket.has_nothing() for socket in sockets])
    assert reads == {"queries": 1}


async def test_query_of_a_serializer_fails(
    connect: Any, items: list[Item], reads: Counter[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A serializer's query that fails for one user's row keeps the others from nothing."""
    sockets = await users(connect, 3)
    await settled()
    reads.clear()
    await unnoticed(
        "UPDATE project_item SET name = CASE rank WHEN 1 THEN 'query' ELSE 'new' END "
        "WHERE name = 'a'"
    )

    frames = [await socket.receive() for socket in sockets]

    assert [frame["response_status"] for frame in frames] == [200, 500, 200]
    assert [frames[n]["data"]["name"] for n in (0, 2)] == ["new", "new"]
    assert reads["alone"] == 3
    assert "Serializing project.Item" in caplog.text


async def test_long_list_among_short_ones(
    connect: Any, items: list[Item], reads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list that has grown long meanwhile is read alone, the others together."""
    monkeypatch.setattr("pgobserve.read.list_batch.SMALL_LIST", 3)
    sockets = await users(connect, 3)
    await settled()
    reads.clear()
    await unnoticed("UPDATE project_item SET rank = 1 WHERE rank > 2")

    received = {(await sockets[1].receive())["data"]["id"] for _ in range(2 * (USERS - 3) + 1)}

    assert received == {item.pk for item in items if item.rank > 2}
    assert all([await socket.has_nothing() for socket in sockets])
    assert reads["alone"] == 1


async def test_coming_back(connect: Any, items: list[Item]) -> None:
    """Users who come back at once get what changed meanwhile, each of his own."""
    held = []
    for number in range(3):
        socket = await connect(OwnConsumer, rank=number)
        listed = await socket.ask("subscribe_list", request_id=1)
        held.append(dict(zip(listed["keys"], listed["etags"], strict=True)))
        await socket.close()
    await run_sql("UPDATE project_item SET name = 'new' WHERE name = 'a'")
    sockets = [await connect(OwnConsumer, rank=number) for number in range(3)]
    for socket, have in zip(sockets, held, strict=True):
        await socket.send(action="subscribe_list", request_id=1, have=have)

    for number, socket in enumerate(sockets):
        assert (await socket.receive())["data"] is None
        frame = await socket.receive()
        assert (frame["action"], frame["data"]["id"]) == ("update", items[number].pk)
        assert await socket.has_nothing()
