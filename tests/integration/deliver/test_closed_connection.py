"""Hooks that close the connection: an error of theirs, or none, and never one of the database."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from django.db import InterfaceError, OperationalError, connection
from rest_framework.serializers import ModelSerializer

from pgobserve.observer.generics import ObserverModelListMixin
from tests.integration.deliver.conftest import run_sql
from tests.integration.deliver.test_instance import ItemConsumer
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Callable


def only() -> None:
    connection.close()


def then_a_query() -> None:
    connection.close()
    Item.objects.count()


def then_blames(error: type[BaseException]) -> Callable[[], None]:
    def close() -> None:
        connection.close()
        raise error

    return close


CLOSE = {
    "only": only,
    "then a query": then_a_query,
    "then OperationalError": then_blames(OperationalError),
    "then InterfaceError": then_blames(InterfaceError),
    "then ValueError": then_blames(ValueError),
    "then CancelledError": then_blames(asyncio.CancelledError),
}


class Serializer(ModelSerializer[Item]):
    class Meta:
        model = Item
        fields = ["id", "name"]

    def to_representation(self, instance: Item) -> Any:
        if instance.name in CLOSE:
            CLOSE[instance.name]()
        return super().to_representation(instance)


class Consumer(ObserverModelListMixin, ItemConsumer):
    queryset = Item.objects.order_by("id")
    serializer_class = Serializer


@pytest.mark.parametrize("name", CLOSE)
@pytest.mark.parametrize("lists", [1, 2])
async def test_list(
    connect: Any, items: list[Item], caplog: pytest.LogCaptureFixture, name: str, lists: int
) -> None:
    """A list with such a row is sent with all other rows, at once."""
    caplog.set_level(logging.WARNING, "pgobserve")
    await run_sql("UPDATE project_item SET name = %s WHERE id = %s", name, items[1].pk)
    sockets = [await connect(Consumer) for _ in range(lists)]
    for socket in sockets:
        await socket.send(action="subscribe_list", request_id=1)
    for socket in sockets:
        frame = await socket.receive()
        fails = name not in ("only", "then a query")
        shown = [items[0].pk, items[2].pk] if fails else [item.pk for item in items]
        if frame["errors"]:
            # The row that can't be shown comes first.
            assert frame["data"] == {"pk": items[1].pk}
            frame = await socket.receive()
        assert [row["id"] for row in frame["data"]["results"]] == shown
    assert "Reading " not in caplog.text


@pytest.mark.parametrize("name", CLOSE)
async def test_row(
    connect: Any, items: list[Item], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Rows that are read with such a row are sent."""
    caplog.set_level(logging.WARNING, "pgobserve")
    socket = await connect(Consumer)
    for number, item in enumerate(items):
        await socket.subscribe(item.pk, number)
    await run_sql(
        "UPDATE project_item SET name = CASE id WHEN %s THEN %s ELSE 'new' END", items[1].pk, name
    )
    frames = {}
    while len(frames) < 3:
        frame = await socket.receive()
        frames[frame["request_id"]] = frame
    assert [frames[number]["data"]["name"] for number in (0, 2)] == ["new", "new"]
    fails = name not in ("only", "then a query")
    assert frames[1]["response_status"] == (500 if fails else 200)
    assert "Reading " not in caplog.text
