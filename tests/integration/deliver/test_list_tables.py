"""Lists of tables of every shape, very many rows at once, and clients that do not read."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command
from django.db import connection
from rest_framework import serializers

from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelListMixin
from pgobserve.runtime import runtime
from tests.integration.deliver.conftest import run_sql, settled
from tests.integration.deliver.test_list import ItemListConsumer, subscribe
from tests.project.keys import TripleKey
from tests.project.models import Item, Note, Photo
from tests.project.shapes import MixedCase, PairKey, Quoted, TextKey, UuidKey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.models import Model

    from tests.integration.deliver.conftest import Socket

ODD = ["", " ", "a b", "é\n\"'\\", "{1,2}", "%s %%", "NULL", "~", "1"]


def consumer_of(model: type[Model], *names: str) -> Any:
    """Return a consumer of lists of a model."""
    meta = type("Meta", (), {"model": model, "fields": list(names)})
    serializer = type("Serializer", (serializers.ModelSerializer,), {"Meta": meta})
    members = {"queryset": model._default_manager.all(), "serializer_class": serializer}
    return type("Consumer", (ObserverModelListMixin, GenericAsyncAPIConsumer), members)


@contextmanager
def table_of(model: type[Model]) -> Iterator[None]:
    """Make a table with its triggers, and drop it at the end."""
    with connection.schema_editor() as editor:
        editor.create_model(model)
    install(model)
    try:
        yield
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(model)


@pytest.fixture
def made(request: pytest.FixtureRequest, observed: None) -> Iterator[type[Model]]:
    """A table of a model."""
    with table_of(request.param):
        yield request.param


async def told(socket: Socket) -> list[tuple[str, Any]]:
    """Return all that was told until now: what happened, and the rest of the frame."""
    await settled()
    frames = []
    while not await socket.communicator.receive_nothing(timeout=0.02):
        frame = await socket.receive()
        frames.append((frame["action"], frame["data"]))
    return frames


@pytest.mark.parametrize("made", [TextKey], indirect=True)
async def test_odd_keys(connect: Any, made: Any) -> None:
    """Keys with any characters enter, change and leave."""
    socket = await connect(consumer_of(made, "id", "name"))
    await subscribe(socket)
    for key in ODD:
        await run_sql("INSERT INTO project_textkey VALUES (%s, 'new')", key)
    entered = await told(socket)
    await run_sql("UPDATE project_textkey SET name = 'x'")
    changed = await told(socket)
    await run_sql("UPDATE project_textkey SET id = id || '!' WHERE id = 'a b'")
    moved = await told(socket)
    await run_sql("DELETE FROM project_textkey")
    left = await told(socket)

    assert [(action, data["id"]) for action, data in entered] == [("create", key) for key in ODD]
    assert sorted(data["id"] for _, data in changed) == sorted(ODD)
    assert {action for action, _ in changed} == {"update"}
    assert sorted(action for action, _ in moved) == ["create", "delete"]
    assert sorted(data["pk"] for _, data in left) == sorted({*ODD, "a b!"} - {"a b"})


@pytest.mark.parametrize(
    ("made", "columns", "key", "shown"),
    [
        (UuidKey, "id", (str(uuid.UUID(int=7)),), str(uuid.UUID(int=7))),
        (PairKey, '"left", "right"', ("a,b", 2), ["a,b", 2]),
        (MixedCase, '"Key Column"', (5,), 5),
        (Quoted, '"Id"', (5,), 5),
        (
            TripleKey,
            "moment, amount, code",
            ("2020-02-03 04:05:06.07+00", "1.50", str(uuid.UUID(int=7))),
            ["2020-02-03 04:05:06.070000+00:00", "1.50", str(uuid.UUID(int=7))],
        ),
    ],
    indirect=["made"],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_keys(connect: Any, made: Any, columns: str, key: Any, shown: Any) -> None:
    """Rows with keys of any type, or of several columns, enter, change and leave."""
    name = made._meta.get_field("name").column
    table = connection.ops.quote_name(made._meta.db_table)
    values = ", ".join("%s" for _ in key)
    socket = await connect(consumer_of(made, "pk", "name"))
    await subscribe(socket)
    await run_sql(f"INSERT INTO {table} ({columns}, {name}) VALUES ({values}, 'new')", *key)
    entered = await told(socket)
    await run_sql(f"UPDATE {table} SET {name} = 'x'")
    changed = await told(socket)
    again = await connect(consumer_of(made, "pk", "name"))
    listed = (await subscribe(again, only="keys"))["data"]["results"]
    await run_sql(f"DELETE FROM {table}")

    assert [(action, data["name"]) for action, data in entered] == [("create", "new")]
    assert [(action, data["name"]) for action, data in changed] == [("update", "x")]
    assert listed == [{"pk": shown}]
    assert await told(socket) == await told(again) == [("delete", {"pk": shown})]


async def test_two_tables(connect: Any, observed: None) -> None:
    """With multi-table inheritance a change of either table is one of the row."""
    await asyncio.to_thread(install, Photo)
    socket = await connect(consumer_of(Photo, "id", "name", "place"))
    await subscribe(socket)
    photo = await Photo.objects.acreate(name="one", place="here")
    assert [action for action, _ in await told(socket)] == ["create"]
    await Note.objects.filter(pk=photo.pk).aupdate(name="two")
    assert [(a, d["name"]) for a, d in await told(socket)] == [("update", "two")]
    await run_sql("UPDATE project_photo SET place = 'there'")
    assert [(a, d["place"]) for a, d in await told(socket)] == [("update", "there")]
    await run_sql("DELETE FROM project_photo")

    assert await told(socket) == [("delete", {"pk": photo.pk})]


def install(model: type[Model]) -> None:
    """Make a table's triggers."""
    call_command("pgobserve", "install", model._meta.label, verbosity=0)
    connection.close()


class FewConsumer(ItemListConsumer):
    queryset = Item.objects.filter(rank__lt=3)


async def test_more_than_can_be_named(connect: Any, observed: None) -> None:
    """One statement on more rows than a notification names has the list be read as a whole."""
    many = "INSERT INTO project_item (name, rank) SELECT 'x', n FROM generate_series(1, 12000) n"
    socket, count = await connect(FewConsumer), await connect(FewConsumer)
    await subscribe(socket)
    await subscribe(count, only="count")
    await run_sql(many)
    assert sorted((a, d["rank"]) for a, d in await told(socket)) == [("create", 1), ("create", 2)]
    await run_sql("UPDATE project_item SET rank = rank + 1")
    assert sorted(action for action, _ in await told(socket)) == ["delete", "update"]
    await run_sql("DELETE FROM project_item")

    assert [action for action, _ in await told(socket)] == ["delete"]
    assert [data["count"] for _, data in await told(count)][-1] == 0


class Slow(ItemListConsumer):
    """A client that takes nothing until it is told to."""

    halted = False

    async def send_json(self, content: Any, close: bool = False) -> None:
        while type(self).halted and content["action"] != "subscribe_list":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await super().send_json(content, close)


async def test_does_not_read(connect: Any, observed: None) -> None:
    """A client that does not read has one frame per row to come, none of what came and went."""
    await run_sql("INSERT INTO project_item (id, name, rank) VALUES (1, 'a', 0), (2, 'b', 0)")
    socket = await connect(Slow)
    await subscribe(socket)
    Slow.halted = True
    for number in range(20):
        await run_sql("UPDATE project_item SET rank = %s", number + 1)
        await run_sql("INSERT INTO project_item (id, name, rank) VALUES (%s, 'c', 0)", 10 + number)
        await run_sql("DELETE FROM project_item WHERE id = %s", 10 + number)
        await settled()
    (feed,) = runtime.current().feeds.values()
    (watch,) = feed.hub._lists
    assert len(watch.send_queue) <= 2
    Slow.halted = False
    frames = await told(socket)

    assert len(frames) <= 3
    last = {data["id"]: data for _, data in frames}
    assert [last[key]["rank"] for key in (1, 2)] == [20, 20]
