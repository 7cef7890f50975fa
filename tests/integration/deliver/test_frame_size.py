"""Frames that no server would send: lists come in more of them, a row that fits none is an error."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework import serializers

from pgobserve import _json
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.mixins import ListModelMixin
from pgobserve.observer.generics import ObserverModelInstanceMixin, ObserverModelListMixin
from tests.integration.deliver.conftest import run_sql
from tests.integration.deliver.test_list import subscribe
from tests.project.models import Item

pytestmark = pytest.mark.parametrize("transport", ["notify"], indirect=True)

#: A row may have half of it, for frames are small here.
LIMIT = 4000
GROW = "UPDATE project_item SET rank = %s WHERE id = %s"
RENAME = "UPDATE project_item SET name = %s WHERE id = %s"


class LongSerializer(serializers.ModelSerializer):
    """Shows a text as long as the rank."""

    text = serializers.SerializerMethodField()

    class Meta:
        model = Item
        fields = ["id", "name", "text"]

    def get_text(self, item: Item) -> str:
        return "x" * item.rank


class LongConsumer(
    ObserverModelListMixin, ObserverModelInstanceMixin, ListModelMixin, GenericAsyncAPIConsumer
):
    queryset = Item.objects.order_by("id")
    serializer_class = LongSerializer


class PaddedConsumer(LongConsumer):
    """Has an encoder of its own, whose frames are longer than the rows."""

    @classmethod
    async def encode_json(cls, content: Any) -> str:
        data = content.get("data")
        long = isinstance(data, dict) and len(data.get("text", "")) > 100
        return _json.encode({**content, "padding": "é" * LIMIT if long else ""})


@pytest.fixture(autouse=True)
def limit(settings: Any, transport: str) -> None:
    """Let frames be short."""
    settings.PGOBSERVE = {"MAX_FRAME_BYTES": LIMIT}


@pytest.fixture
def rows(observed: None) -> list[Item]:
    """Rows of which three make a frame too long."""
    return [Item.objects.create(name=str(number), rank=900) for number in range(6)]


def status(frame: Any) -> tuple[str, int]:
    return frame["action"], frame["response_status"]


async def test_list_is_split(connect: Any, rows: list[Item]) -> None:
    """A list comes in frames of which none is longer than it may be."""
    socket = await connect(LongConsumer)
    frames = [await subscribe(socket)]
    while frames[-1].get("more"):
        frames.append(await socket.receive())

    assert len(frames) > 1
    assert all(len(_json.encode(frame)) <= LIMIT for frame in frames)
    shown = [row["id"] for frame in frames for row in frame["data"]["results"]]
    assert shown == [row.pk for row in rows]


@pytest.mark.parametrize("consumer", [LongConsumer, PaddedConsumer])
async def test_row_grows_and_shrinks(connect: Any, observed: None, consumer: Any) -> None:
    """A row that fits no frame is an error that names it, and is sent once it fits again."""
    item = await Item.objects.acreate(name="a", rank=1)
    socket = await connect(consumer)
    await subscribe(socket, 1)
    await socket.subscribe(item.pk, 2)

    await run_sql(GROW, 3000, item.pk)
    grown = {frame["request_id"]: frame for frame in [await socket.receive() for _ in range(2)]}
    assert [status(grown[name]) for name in (1, 2)] == [("update", 413)] * 2
    assert grown[1]["data"] == {"pk": item.pk}
    assert grown[1]["errors"]

    await run_sql(GROW, 2, item.pk)
    shrunk = [await socket.receive() for _ in range(2)]
    assert [status(frame) for frame in shrunk] == [("update", 200)] * 2
    assert {frame["data"]["text"] for frame in shrunk} == {"xx"}


@pytest.mark.parametrize("consumer", [LongConsumer, PaddedConsumer])
async def test_row_shrinks_to_what_it_was(connect: Any, observed: None, consumer: Any) -> None:
    """A client that received an error receives the row again, even if it is as it was."""
    item = await Item.objects.acreate(name="a", rank=1)
    socket = await connect(consumer)
    await subscribe(socket)
    await run_sql(GROW, 3000, item.pk)
    assert status(await socket.receive()) == ("update", 413)

    await run_sql(GROW, 1, item.pk)

    assert (await socket.receive())["data"]["text"] == "x"


async def test_row_enters_too_large(connect: Any, observed: None) -> None:
    """A row that was never shown is an error first, and created once it fits."""
    socket = await connect(LongConsumer)
    await subscribe(socket)
    item = await Item.objects.acreate(name="a", rank=3000)
    assert status(await socket.receive()) == ("update", 413)

    await run_sql(GROW, 1, item.pk)

    assert status(await socket.receive()) == ("create", 200)


async def test_list_with_such_a_row(connect: Any, rows: list[Item]) -> None:
    """A list is sent without the row, which is an error of its own; the subscription lives."""
    await run_sql(GROW, 3000, rows[1].pk)
    socket = await connect(LongConsumer)
    frames = [await subscribe(socket)]
    while len(frames) < 2 or frames[-1]["action"] == "subscribe_list":
        frames.append(await socket.receive())

    shown = [row["id"] for frame in frames[:-1] for row in frame["data"]["results"]]
    assert shown == [row.pk for row in rows if row != rows[1]]
    assert (status(frames[-1]), frames[-1]["data"]) == (("update", 413), {"pk": rows[1].pk})


@pytest.mark.parametrize("consumer", [LongConsumer, PaddedConsumer])
async def test_resume_after_the_error(connect: Any, observed: None, consumer: Any) -> None:
    """A client that comes back with its old state of the row receives it once it fits again."""
    items = [await Item.objects.acreate(name=name, rank=1) for name in "ab"]
    socket = await connect(consumer)
    listed = await subscribe(socket)
    have = dict(zip(listed["keys"], listed["etags"], strict=True))
    await run_sql(GROW, 3000, items[0].pk)
    assert status(await socket.receive()) == ("update", 413)
    await run_sql(RENAME, "c", items[1].pk)
    changed = await socket.receive()
    have[changed["key"]] = changed["etag"]
    await run_sql(GROW, 4, items[0].pk)

    again = await connect(consumer)
    await again.ask("subscribe_list", request_id=1, have=have)

    frame = await again.receive()
    assert (status(frame), frame["data"]["text"]) == (("update", 200), "xxxx")
    assert await again.has_nothing()


@pytest.mark.parametrize("action", ["retrieve", "list", "snapshot"])
@pytest.mark.parametrize("consumer", [LongConsumer, PaddedConsumer])
async def test_reply(connect: Any, observed: None, consumer: Any, action: str) -> None:
    """A reply that is too long is a 413 with a sentence, and the socket lives."""
    item = await Item.objects.acreate(name="a", rank=LIMIT)
    socket = await connect(consumer)
    if action == "snapshot":
        frame = await socket.subscribe(item.pk, 7, snapshot=True)
    else:
        frame = await socket.ask(action, pk=item.pk, request_id=7)

    assert (frame["response_status"], frame["request_id"], frame["data"]) == (413, 7, None)
    assert frame["errors"]
    await run_sql(GROW, 1, item.pk)
    assert await socket.has_nothing(), "a refused subscription is none"
    assert (await socket.ask("retrieve", pk=item.pk))["response_status"] == 200


async def test_subscribe_without_snapshot(connect: Any, observed: None) -> None:
    """A subscriber that does not request the row is accepted, and receives it once it fits."""
    item = await Item.objects.acreate(name="a", rank=LIMIT)
    socket = await connect(LongConsumer)
    assert (await socket.subscribe(item.pk))["response_status"] == 201

    await run_sql(GROW, 1, item.pk)

    assert status(await socket.receive()) == ("update", 200)
