"""A subscription begins at a snapshot, and a token leads back to one."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
from asgiref.sync import sync_to_async
from django.db import connection

from pgobserve.hub.snapshot import Snapshot
from tests.integration.deliver.conftest import run_sql
from tests.integration.deliver.test_instance import UPDATE, ItemConsumer
from tests.project.models import Item


async def test_snapshot_with_the_reply(connect: Any, item: Item) -> None:
    """With ``snapshot`` the reply has the row and a token, and so has each frame."""
    socket = await connect(ItemConsumer)
    answer = await socket.subscribe(item.pk, 1, snapshot=True)
    await run_sql(UPDATE, "two", item.pk)
    update = await socket.receive()

    assert answer["data"] == {"id": item.pk, "name": "one"}
    assert Snapshot.parse(answer["token"]).xmax <= Snapshot.parse(update["token"]).xmax
    assert set(update) == {"action", "errors", "data", "response_status", "request_id", "token"}


async def test_token_when_nothing_changed(connect: Any, item: Item) -> None:
    """With a token that has seen all, the reply is all; later changes follow."""
    first, second = await connect(ItemConsumer), await connect(ItemConsumer)
    token = (await first.subscribe(item.pk, snapshot=True))["token"]
    answer = await second.subscribe(item.pk, token=token)

    assert (answer["response_status"], answer["data"]) == (201, None)
    assert "token" in answer
    assert await second.has_nothing()
    await run_sql(UPDATE, "two", item.pk)
    assert (await second.receive())["data"]["name"] == "two"


async def test_token_with_a_change_since(connect: Any, item: Item) -> None:
    """With a token, what changed since is sent at once."""
    first, second = await connect(ItemConsumer), await connect(ItemConsumer)
    token = (await first.subscribe(item.pk, snapshot=True))["token"]
    await run_sql(UPDATE, "two", item.pk)
    answer = await second.subscribe(item.pk, 9, token=token)
    update = await second.receive()

    # The socket may break between the two: the reply alone must not lead past the change.
    assert (answer["response_status"], answer["token"]) == (201, token)
    assert (update["action"], update["data"]["name"], update["request_id"]) == ("update", "two", 9)
    assert Snapshot.parse(update["token"]).xmax > Snapshot.parse(token).xmax
    assert await second.has_nothing()


async def test_token_of_a_frame(connect: Any, item: Item) -> None:
    """The token of a frame has seen what the frame shows."""
    first, second = await connect(ItemConsumer), await connect(ItemConsumer)
    await first.subscribe(item.pk, snapshot=True)
    await run_sql(UPDATE, "two", item.pk)
    token = (await first.receive())["token"]
    await second.subscribe(item.pk, token=token)

    assert await second.has_nothing()


async def test_token_and_the_row_is_gone(connect: Any, item: Item) -> None:
    """With a token, a row that has gone since is a delete."""
    first, second = await connect(ItemConsumer), await connect(ItemConsumer)
    token = (await first.subscribe(item.pk, snapshot=True))["token"]
    await run_sql("DELETE FROM project_item")
    answer = await second.subscribe(item.pk, token=token)
    gone = await second.receive()
    await run_sql("INSERT INTO project_item (id, name, rank) VALUES (%s, 'back', 1)", item.pk)

    assert answer["response_status"] == 201
    assert (gone["action"], gone["data"]) == ("delete", {"pk": item.pk})
    assert (await second.receive())["action"] == "create"


async def test_token_from_the_future(connect: Any, item: Item) -> None:
    """A token of a server that was restored since gets the row as it is."""
    socket = await connect(ItemConsumer)
    await socket.subscribe(item.pk, token="999999999:999999999:")

    assert (await socket.receive())["data"]["name"] == "one"


async def test_token_of_another_run(connect: Any, item: Item) -> None:
    """A token of before a restart gets the row, whatever its transactions seem to say."""
    first, second = await connect(ItemConsumer), await connect(ItemConsumer)
    token = (await first.subscribe(item.pk, snapshot=True))["token"]
    seen, _, run = token.partition("@")
    answer = await second.subscribe(item.pk, token=f"{seen}@{int(run) - 1}")

    assert answer["response_status"] == 201
    update = await second.receive()
    assert update["data"]["name"] == "one"
    assert Snapshot.parse(update["token"]).run == int(run)


async def test_token_does_not_show_what_may_not_be_seen(connect: Any, item: Item) -> None:
    """A token is no capability: a row outside the queryset is a delete, without content."""

    class Ranked(ItemConsumer):
        queryset = Item.objects.filter(rank=5)

    socket = await connect(Ranked)
    await socket.subscribe(item.pk, token="3:3:")
    frame = await socket.receive()

    assert (frame["action"], frame["data"]) == ("delete", {"pk": item.pk})


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


async def test_token_and_snapshot(connect: Any, item: Item) -> None:
    """With both, the row is in the reply, with its token, and is not sent a second time."""
    first, second = await connect(ItemConsumer), await connect(ItemConsumer)
    token = (await first.subscribe(item.pk, snapshot=True))["token"]
    await run_sql(UPDATE, "two", item.pk)
    answer = await second.subscribe(item.pk, token=token, snapshot=True)

    assert answer["data"]["name"] == "two"
    assert answer["token"] != token
    assert await second.has_nothing()


async def test_token_and_snapshot_of_a_row_that_is_gone(connect: Any, item: Item) -> None:
    """With both, a row that is not there is answered like one that never was."""
    first, second = await connect(ItemConsumer), await connect(ItemConsumer)
    token = (await first.subscribe(item.pk, snapshot=True))["token"]
    await run_sql("DELETE FROM project_item")

    assert (await second.subscribe(item.pk, token=token, snapshot=True))["response_status"] == 404
