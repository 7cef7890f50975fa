"""What names a row of a list in its frames: the same text everywhere, and never a hidden key."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from rest_framework import serializers

from tests.integration.deliver.conftest import run_sql
from tests.integration.deliver.resuming import DELETE, INSERT, MOVE, UPDATE, Both
from tests.integration.deliver.test_list import ItemListConsumer
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Callable

    Connect = Callable[..., Any]

LARGE = 2**53 + 1


class TextIdSerializer(serializers.ModelSerializer):
    """Shows the key as text."""

    id = serializers.CharField()

    class Meta:
        model = Item
        fields = ["id", "name"]


class TextIdConsumer(ItemListConsumer):
    serializer_class = TextIdSerializer


class NamedSerializer(serializers.ModelSerializer):
    class Meta:
        model = Item
        fields = ["name", "rank"]


class NamedConsumer(Both):
    """Names rows by their name, and shows no primary key."""

    serializer_class = NamedSerializer
    lookup_field = "name"


@pytest.fixture
def items(observed: None) -> list[Item]:
    """Three rows."""
    return [
        Item.objects.create(id=n, name=name, rank=n % 10) for n, name in enumerate("abc", 700000)
    ]


@pytest.mark.parametrize("consumer", [ItemListConsumer, TextIdConsumer])
async def test_one_text_in_all_frames(connect: Connect, observed: None, consumer: Any) -> None:
    """A key beyond what a double can hold is the same text in all frames, whatever a row shows."""
    await run_sql(INSERT, LARGE, "a", 1)
    socket = await connect(consumer)
    listed = await socket.ask("subscribe_list", request_id=1)
    await run_sql(UPDATE, "b", LARGE)
    update = await socket.receive()
    await run_sql(DELETE, LARGE)
    delete = await socket.receive()
    await run_sql(INSERT, LARGE, "c", 1)
    create = await socket.receive()
    await socket.ask("subscribe_list", request_id=2, have={str(LARGE): listed["etags"][0]})
    resumed = await socket.receive()

    keys = [*listed["keys"], *(each["key"] for each in (update, delete, create, resumed))]
    assert keys == [str(LARGE)] * 5
    assert delete["data"] == {"pk": LARGE}


async def test_named_by_another_field(connect: Connect, items: list[Item]) -> None:
    """The key, a delete's data and the resume are made of the lookup field."""
    socket = await connect(NamedConsumer)
    listed = await socket.ask("subscribe_list", request_id=1)
    await run_sql(MOVE, 5, 700000)
    update = await socket.receive()
    await run_sql(DELETE, 700001)
    delete = await socket.receive()

    assert (listed["keys"], update["key"], delete["key"]) == (["a", "b", "c"], "a", "b")
    assert delete["data"] == {"name": "b"}
    have = dict(zip(listed["keys"], listed["etags"], strict=True))
    await socket.ask("subscribe_list", request_id=2, have=have)
    resumed = [await socket.receive(), await socket.receive()]
    assert [(frame["action"], frame["key"]) for frame in resumed] == [
        ("update", "a"),
        ("delete", "b"),
    ]
    assert await socket.has_nothing()
    everything = json.dumps([listed, update, delete, *resumed])
    assert not any(str(item.pk) in everything for item in items)


async def test_renamed(connect: Connect, items: list[Item]) -> None:
    """A row with another name is another row to its clients; rows may swap names."""
    socket = await connect(NamedConsumer)
    await socket.ask("subscribe_list", request_id=1)
    await run_sql(UPDATE, "z", 700000)
    frames = [await socket.receive(), await socket.receive()]
    assert [(f["action"], f["key"]) for f in frames] == [("delete", "a"), ("create", "z")]

    await run_sql(
        "UPDATE project_item SET name = CASE name WHEN 'b' THEN 'c' ELSE 'b' END WHERE id > 700000"
    )
    rows = {"b": {"name": "b", "rank": 1}, "c": {"name": "c", "rank": 2}}
    while not await socket.has_nothing():
        while not await socket.communicator.receive_nothing(timeout=0.01, interval=0.002):
            frame = await socket.receive()
            if frame["action"] == "delete":
                del rows[frame["key"]]
            else:
                assert (frame["key"] in rows) == (frame["action"] == "update")
                rows[frame["key"]] = frame["data"]

    assert rows == {"b": {"name": "b", "rank": 2}, "c": {"name": "c", "rank": 1}}


async def test_keys_alone_by_another_field(connect: Connect, items: list[Item]) -> None:
    """With only keys, rows show the lookup field."""
    socket = await connect(NamedConsumer)
    listed = await socket.ask("subscribe_list", request_id=1, only="keys")

    assert listed["data"]["results"] == [{"name": "a"}, {"name": "b"}, {"name": "c"}]
    assert listed["keys"] == ["a", "b", "c"]


async def test_row_named_by_another_field(connect: Connect, items: list[Item]) -> None:
    """The delete of a row that was subscribed to by another field has that field."""
    socket = await connect(NamedConsumer)
    await socket.ask("subscribe_instance", request_id=1, name="a")
    await run_sql(DELETE, 700000)

    assert (await socket.receive())["data"] == {"name": "a"}


async def test_lists_by_different_fields(connect: Connect, items: list[Item]) -> None:
    """Consumers that name the same rows by different fields do not share keys."""
    by_name = await connect(NamedConsumer)
    by_key = await connect(ByKeyConsumer)

    assert (await by_name.ask("subscribe_list", request_id=1))["keys"] == ["a", "b", "c"]
    assert (await by_key.ask("subscribe_list", request_id=1))["keys"] == [
        "700000",
        "700001",
        "700002",
    ]


class ByKeyConsumer(ItemListConsumer):
    serializer_class = NamedSerializer
