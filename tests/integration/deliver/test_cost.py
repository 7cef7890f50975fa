"""What one change costs: queries and serializations are counted, whatever they take."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from rest_framework import serializers

from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelInstanceMixin
from tests.integration.deliver.conftest import run_sql
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Iterator

UPDATE = "UPDATE project_item SET name = %s"
SOCKETS = 100

cost: Counter[str] = Counter()


class CountedSerializer(serializers.ModelSerializer):
    class Meta:
        model = Item
        fields = ["id", "name"]

    def to_representation(self, instance: Item) -> Any:
        cost["serializations"] += 1
        return super().to_representation(instance)


class SharedConsumer(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    queryset = Item.objects.all()
    serializer_class = CountedSerializer


class OwnConsumer(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    """Each user has a queryset of his own, all of which contain the row."""

    queryset = Item.objects.all()
    serializer_class = CountedSerializer

    def get_queryset(self, **kwargs: Any) -> Any:
        return super().get_queryset(**kwargs).filter(rank__gte=-self.scope["user_id"])


class AskingSerializer(CountedSerializer):
    def to_representation(self, instance: Item) -> Any:
        shown = super().to_representation(instance)
        return {**shown, "user": self.context["scope"]["user_id"]}


class AskingConsumer(OwnConsumer):
    serializer_class = AskingSerializer


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Count what the feed reads and serializes."""
    execute = psycopg.Cursor.execute

    def count(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        if "SELECT" in str(query) and "pg_current_snapshot" in str(query):
            cost["queries"] += 1
        return execute(self, query, *args, **kwargs)

    monkeypatch.setattr(psycopg.Cursor, "execute", count)
    cost.clear()
    return cost


async def frames_of_one_change(connect: Any, consumer: Any, item: Item) -> list[Any]:
    """Watch a row from many sockets, change it once, and return what they got for it."""
    sockets = [await connect(consumer, user_id=number) for number in range(SOCKETS)]
    for socket in sockets:
        assert (await socket.subscribe(item.pk))["response_status"] == 201
    cost.clear()
    await run_sql(UPDATE, "two")
    return [(await socket.receive())["data"] for socket in sockets]


async def test_same_rows(connect: Any, item: Item, counted: Counter[str]) -> None:
    """A hundred sockets that see the same row cost one query and one serialization."""
    frames = await frames_of_one_change(connect, SharedConsumer, item)

    assert frames == [{"id": item.pk, "name": "two"}] * SOCKETS
    assert counted == {"queries": 1, "serializations": 1}


async def test_own_querysets(connect: Any, item: Item, counted: Counter[str]) -> None:
    """A hundred users, each with a queryset of his own, cost one query too."""
    frames = await frames_of_one_change(connect, OwnConsumer, item)

    assert frames == [{"id": item.pk, "name": "two"}] * SOCKETS
    assert counted == {"queries": 1, "serializations": 1}


async def test_own_views(connect: Any, item: Item, counted: Counter[str]) -> None:
    """A serializer that looks at the user is asked for each, and the query is one all the same."""
    frames = await frames_of_one_change(connect, AskingConsumer, item)

    assert frames == [{"id": item.pk, "name": "two", "user": n} for n in range(SOCKETS)]
    assert counted == {"queries": 1, "serializations": SOCKETS}


async def test_nobody_watches(connect: Any, item: Item, counted: Counter[str]) -> None:
    """A change to a row that nobody watches costs nothing."""
    other = await Item.objects.acreate(name="other", rank=2)
    socket = await connect(SharedConsumer)
    await socket.subscribe(item.pk)
    counted.clear()
    await run_sql("UPDATE project_item SET name = 'two' WHERE id = %s", other.pk)

    assert await socket.has_nothing()
    assert counted == {}
