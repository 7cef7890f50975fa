"""Subscriptions to rows, through everything but a server."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelInstanceMixin
from tests.integration.observer.conftest import run_sql
from tests.project.models import Item

UPDATE = "UPDATE project_item SET name = %s WHERE id = %s"


class ItemSerializer(serializers.ModelSerializer):
    class Meta:
        model = Item
        fields = ["id", "name"]


class ItemConsumer(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    queryset = Item.objects.all()
    serializer_class = ItemSerializer


async def test_update(connect: Any, item: Item) -> None:
    """A raw UPDATE arrives as an update frame with the request id and the row."""
    socket = await connect(ItemConsumer)
    assert await socket.subscribe(item.pk, 7) == {
        "action": "subscribe_instance",
        "data": None,
        "errors": [],
        "response_status": 201,
        "request_id": 7,
    }
    await run_sql(UPDATE, "two", item.pk)

    assert await socket.receive() == {
        "action": "update",
        "data": {"id": item.pk, "name": "two"},
        "errors": [],
        "response_status": 200,
        "request_id": 7,
    }
    assert await socket.has_nothing()


async def test_delete_and_create(connect: Any, item: Item) -> None:
    """A deleted row is a delete frame with its key; put back, it is a create frame."""
    socket = await connect(ItemConsumer)
    await socket.subscribe(item.pk)
    await run_sql("DELETE FROM project_item")
    gone = await socket.receive()
    await run_sql("INSERT INTO project_item (id, name, rank) VALUES (%s, 'back', 1)", item.pk)
    back = await socket.receive()

    assert (gone["action"], gone["data"], gone["response_status"]) == ("delete", {"pk": item.pk}, 204)
    assert (back["action"], back["data"]["name"], back["response_status"]) == ("create", "back", 200)
