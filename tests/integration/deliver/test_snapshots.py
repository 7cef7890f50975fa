"""A subscription begins at a snapshot, and an etag says which state a client holds."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.db import connection

from pgobserve.decorators import action
from tests.integration.deliver.conftest import run_sql
from tests.integration.deliver.test_instance import UPDATE, ItemConsumer
from tests.project.models import Item

PLAIN = {"action", "errors", "data", "response_status", "request_id"}


async def test_snapshot_with_the_reply(connect: Any, item: Item) -> None:
    """With ``snapshot`` the reply has the row and an etag, and so has each frame that shows it."""
    socket = await connect(ItemConsumer)
    answer = await socket.subscribe(item.pk, 1, snapshot=True)
    await run_sql(UPDATE, "two", item.pk)
    update = await socket.receive()
    await run_sql("DELETE FROM project_item")
    delete = await socket.receive()

    assert answer["data"] == {"id": item.pk, "name": "one"}
    assert set(answer) == set(update) == {*PLAIN, "etag"}
    assert answer["etag"] != update["etag"]
    assert set(delete) == PLAIN


async def test_plain_frames(connect: Any, item: Item) -> None:
    """Without ``snapshot`` and ``etag`` all frames have five keys, as DCRF's."""
    socket = await connect(ItemConsumer)
    answer = await socket.subscribe(item.pk)
    await run_sql(UPDATE, "two", item.pk)

    assert set(answer) == set(await socket.receive()) == PLAIN


async def test_etag_when_nothing_changed(connect: Any, item: Item) -> None:
    """With the etag of what there is, the reply is all; later changes follow."""
    first, second = await connect(ItemConsumer), await connect(ItemConsumer)
    etag = (await first.subscribe(item.pk, snapshot=True))["etag"]
    answer = await second.subscribe(item.pk, etag=etag)

    assert (answer["response_status"], answer["data"]) == (201, None)
    assert set(answer) == PLAIN
    assert await second.has_nothing()
    await run_sql(UPDATE, "two", item.pk)
    update = await second.receive()
    assert (update["data"]["name"], set(update)) == ("two", {*PLAIN, "etag"})


async def test_etag_with_a_change_since(connect: Any, item: Item) -> None:
    """With the etag of another state the row is sent at once."""
    first, second = await connect(ItemConsumer), await connect(ItemConsumer)
    etag = (await first.subscribe(item.pk, snapshot=True))["etag"]
    await run_sql(UPDATE, "two", item.pk)
    answer = await second.subscribe(item.pk, 9, etag=etag)
    update = await second.receive()

    assert answer["response_status"] == 201
    assert (update["action"], update["data"]["name"], update["request_id"]) == ("update", "two", 9)
    assert update["etag"] == (await first.receive())["etag"]
    assert await second.has_nothing()


async def test_etag_and_changed_back(connect: Any, item: Item) -> None:
    """A row that is as it was again is silent."""
    first, second = await connect(ItemConsumer), await connect(ItemConsumer)
    etag = (await first.subscribe(item.pk, snapshot=True))["etag"]
    await first.close()
    await run_sql(UPDATE, "two", item.pk)
    await run_sql(UPDATE, "one", item.pk)
    await second.subscribe(item.pk, etag=etag)

    assert await second.has_nothing()


async def test_etag_of_a_frame(connect: Any, item: Item) -> None:
    """The etag of a frame is that of what the frame shows."""
    first, second = await connect(ItemConsumer), await connect(ItemConsumer)
    await first.subscribe(item.pk, snapshot=True)
    await run_sql(UPDATE, "two", item.pk)
    etag = (await first.receive())["etag"]
    await second.subscribe(item.pk, etag=etag)

    assert await second.has_nothing()


async def test_etag_and_the_row_is_gone(connect: Any, item: Item) -> None:
    """With an etag, a row that has gone since is a delete."""
    first, second = await connect(ItemConsumer), await connect(ItemConsumer)
    etag = (await first.subscribe(item.pk, snapshot=True))["etag"]
    await run_sql("DELETE FROM project_item")
    answer = await second.subscribe(item.pk, etag=etag)
    gone = await second.receive()
    await run_sql("INSERT INTO project_item (id, name, rank) VALUES (%s, 'back', 1)", item.pk)

    assert answer["response_status"] == 201
    assert (gone["action"], gone["data"]) == ("delete", {"pk": item.pk})
    assert (await second.receive())["action"] == "create"


async def test_etag_of_a_row_that_was_not_there(connect: Any, item: Item) -> None:
    """The empty etag says that the row is not there: one that is back is a create, or else silent."""
    socket = await connect(ItemConsumer)
    await run_sql("DELETE FROM project_item")
    assert (await socket.subscribe(item.pk, 1, etag=""))["response_status"] == 201
    assert await socket.has_nothing()
    await run_sql("INSERT INTO project_item (id, name, rank) VALUES (%s, 'back', 1)", item.pk)
    assert (await socket.receive())["action"] == "create"

    await socket.subscribe(item.pk, 2, etag="")
    frame = await socket.receive()
    assert (frame["action"], frame["data"]["name"]) == ("create", "back")


@pytest.mark.parametrize("etag", ["x", "0" * 16, "🦆", "3f", "x" * 10_000])
async def test_etag_that_was_never_given(connect: Any, item: Item, etag: str) -> None:
    """An etag that nobody gave gets the row as it is."""
    socket = await connect(ItemConsumer)
    await socket.subscribe(item.pk, etag=etag)
    frame = await socket.receive()

    assert (frame["action"], frame["data"]["name"]) == ("update", "one")
    assert await socket.has_nothing()


async def test_etag_does_not_show_what_may_not_be_seen(connect: Any, item: Item) -> None:
    """An etag is no capability: a hidden row is answered exactly as one that is not there."""

    class Ranked(ItemConsumer):
        queryset = Item.objects.filter(rank=5)

    socket, other = await connect(Ranked), await connect(ItemConsumer)
    etag = (await other.subscribe(item.pk, snapshot=True))["etag"]
    answers = []
    for key in (item.pk, 99):
        reply = await socket.subscribe(key, etag=etag)
        frame = await socket.receive()
        assert (frame["action"], frame.pop("data")) == ("delete", {"pk": key})
        answers.append((reply, frame))

    assert answers[0] == answers[1]


@pytest.mark.parametrize("options", [{}, {"lookup_url_kwarg": "called"}])
async def test_etag_of_a_row_named_by_a_field(
    connect: Any, item: Item, options: dict[str, Any]
) -> None:
    """A row that has lost its name meanwhile is a delete, as it is for a client that stayed."""
    named = type("Named", (ItemConsumer,), {"lookup_field": "name", **options})
    argument = options.get("lookup_url_kwarg", "name")
    first, second = await connect(named), await connect(named)

    async def ask(socket: Any, **content: Any) -> Any:
        return await socket.ask("subscribe_instance", **{argument: "one"}, request_id=1, **content)

    etag = (await ask(first, snapshot=True))["etag"]
    await run_sql("DELETE FROM project_item")
    answer, gone = await ask(second, etag=etag), await second.receive()

    assert (answer["response_status"], answer["data"], set(answer)) == (201, None, PLAIN)
    assert gone == await first.receive()
    assert (gone["action"], gone["data"]) == ("delete", {"name": "one"})
    assert (await ask(second, etag=""))["response_status"] == 201
    assert await second.has_nothing()
    assert (await ask(second))["response_status"] == 404
    assert (await ask(second, etag=etag, snapshot=True))["response_status"] == 404


async def test_etag_of_a_hidden_row_named_by_a_field(connect: Any, item: Item) -> None:
    """A hidden row is answered as one that is not there, whatever names it."""

    class Ranked(ItemConsumer):
        queryset = Item.objects.filter(rank=5)
        lookup_field = "name"

    socket, answers = await connect(Ranked), []
    for name in ("one", "nobody"):
        reply = await socket.ask("subscribe_instance", name=name, request_id=1, etag="0" * 16)
        frame = await socket.receive()
        assert (frame["action"], frame.pop("data")) == ("delete", {"name": name})
        answers.append((reply, frame))

    assert answers[0] == answers[1]


class Retrieved(ItemConsumer):
    """Shows rows in a way of its own."""

    @action()
    async def retrieve(self, **kwargs: Any) -> Any:
        data, code = await super().retrieve(**kwargs)
        return {**data, "own": True}, code


async def test_etag_of_a_consumer_that_retrieves_by_itself(connect: Any, item: Item) -> None:
    """The etag is that of what the consumer's own method returns."""
    first, second = await connect(Retrieved), await connect(Retrieved)
    answer = await first.subscribe(item.pk, snapshot=True)
    assert (answer["data"]["own"], set(answer)) == (True, {*PLAIN, "etag"})
    await run_sql("UPDATE project_item SET rank = rank + 1")
    await first.receive()
    await second.subscribe(item.pk, etag=answer["etag"])
    assert await second.has_nothing()

    await run_sql(UPDATE, "two", item.pk)
    update = await second.receive()
    assert (update["data"]["name"], set(update)) == ("two", {*PLAIN, "etag"})
    assert update["etag"] == (await first.receive())["etag"]
    await first.subscribe(item.pk, 2, etag=answer["etag"])
    assert (await first.receive())["data"]["name"] == "two"


async def test_etag_of_a_consumer_that_retrieves_by_itself_and_the_row_is_gone(
    connect: Any, item: Item
) -> None:
    """A row that has gone is a delete, and a create if it comes back."""
    first, second = await connect(Retrieved), await connect(Retrieved)
    etag = (await first.subscribe(item.pk, snapshot=True))["etag"]
    await run_sql("DELETE FROM project_item")
    answer, gone = await second.subscribe(item.pk, etag=etag), await second.receive()
    await run_sql("INSERT INTO project_item (id, name, rank) VALUES (%s, 'back', 1)", item.pk)

    assert answer["response_status"] == 201
    assert gone == await first.receive()
    assert (await second.receive())["action"] == "create"


async def test_transaction_open_at_the_subscription(connect: Any, item: Item) -> None:
    """What a transaction wrote before the subscription and commits after it is delivered."""
    parameters = await sync_to_async(connection.get_connection_params)()
    plain = {
        k: parameters[k] for k in ("dbname", "user", "host", "port", "password") if k in parameters
    }
    socket = await connect(ItemConsumer)
    async with await psycopg.AsyncConnection.connect(**plain) as writer:
        await writer.execute("UPDATE project_item SET name = 'late'")
        answer = await socket.subscribe(item.pk, snapshot=True)
        await writer.commit()

        assert answer["data"]["name"] == "one"
        assert (await socket.receive())["data"]["name"] == "late"


async def test_no_update_is_lost_between_read_and_subscribed(connect: Any, item: Item) -> None:
    """While the row is written all the time, subscribers come, and each ends with its last state."""
    done = asyncio.Event()

    async def write() -> None:
        for number in range(200):
            await run_sql("UPDATE project_item SET name = %s", str(number))
        done.set()

    writer = asyncio.create_task(write())
    replicas: list[tuple[Any, str]] = []
    while not done.is_set() and len(replicas) < 40:
        socket = await connect(ItemConsumer)
        answer = await socket.subscribe(item.pk, snapshot=True)
        replicas.append((socket, answer["data"]["name"]))
    await writer
    for socket, first in replicas:
        last = first
        while last != "199":
            last = (await socket.receive())["data"]["name"]
        assert await socket.has_nothing()
    assert len(replicas) > 3


async def test_etag_and_snapshot(connect: Any, item: Item) -> None:
    """With both, the row is in the reply, with its etag, and is not sent a second time."""
    first, second = await connect(ItemConsumer), await connect(ItemConsumer)
    etag = (await first.subscribe(item.pk, snapshot=True))["etag"]
    await run_sql(UPDATE, "two", item.pk)
    answer = await second.subscribe(item.pk, etag=etag, snapshot=True)

    assert answer["data"]["name"] == "two"
    assert answer["etag"] != etag
    assert await second.has_nothing()


async def test_etag_and_snapshot_of_a_row_that_is_gone(connect: Any, item: Item) -> None:
    """With both, a row that is not there is answered like one that never was."""
    first, second = await connect(ItemConsumer), await connect(ItemConsumer)
    etag = (await first.subscribe(item.pk, snapshot=True))["etag"]
    await run_sql("DELETE FROM project_item")

    assert (await second.subscribe(item.pk, etag=etag, snapshot=True))["response_status"] == 404
