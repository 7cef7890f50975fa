"""A client that comes back to a list and says which rows it has is told what changed since."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection

from pgobserve.hub.snapshot import Snapshot
from pgobserve.runtime import runtime
from tests.integration.deliver.conftest import run_sql
from tests.integration.deliver.replica import Replica
from tests.integration.deliver.resuming import (
    DELETE,
    INSERT,
    MOVE,
    UPDATE,
    JudgedConsumer,
    NowhereConsumer,
    in_table,
)
from tests.integration.deliver.test_list import ItemListConsumer, RankedConsumer
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Callable

    Connect = Callable[..., Any]


@pytest.fixture
def items(observed: None) -> list[Item]:
    """Three rows."""
    return [Item.objects.create(id=n, name=name, rank=n) for n, name in enumerate("abc", 1)]


async def test_nothing_changed(connect: Connect, items: list[Item]) -> None:
    """Who missed nothing is told nothing, and is given no list."""
    replica = await Replica(connect, ItemListConsumer).come()
    await replica.leave()
    await replica.come_back()
    await replica.settle()

    assert (replica.told, replica.resets) == ([], 0)


async def test_changed_entered_left(connect: Connect, items: list[Item]) -> None:
    """Each row that changed, came or went is told once, and no other."""
    replica = await Replica(connect, RankedConsumer, rank=2).come()
    await replica.leave()
    await run_sql(UPDATE, "bb", 2)
    await run_sql(MOVE, 0, 3)
    await run_sql(MOVE, 7, 1)
    await run_sql(INSERT, 4, "d", 4)
    await run_sql(INSERT, 5, "e", 0)
    await replica.come_back()
    await replica.settle()

    assert sorted(replica.told) == [("create", 1), ("create", 4), ("delete", 3), ("update", 2)]
    assert replica.rows == await in_table(rank__gte=2)


async def test_shape_of_the_reply(connect: Connect, items: list[Item]) -> None:
    """The reply has no rows, and the client's own token until all is told; then there is another."""
    socket = await connect(ItemListConsumer)
    token = (await socket.ask("subscribe_list", request_id="r"))["token"]
    await run_sql(UPDATE, "bb", 2)
    await socket.receive()

    reply = await socket.ask("subscribe_list", request_id="s", token=token, keys=[1, 2, 3])
    told = await socket.receive()

    assert reply == {
        "action": "subscribe_list",
        "errors": [],
        "response_status": 201,
        "request_id": "s",
        "data": {"results": []},
        "token": token,
    }
    assert told["action"] == "update"
    assert told["response_status"] == 200
    assert Snapshot.parse(told["token"].partition("~")[0]).covers(
        Snapshot.parse(token.partition("~")[0])
    )


async def test_shape_of_a_reset(connect: Connect, items: list[Item]) -> None:
    """A reset comes in pages as the list does, with the token on the last."""
    socket = await connect(ItemListConsumer)
    listed = await socket.ask("subscribe_list", request_id=1)
    foreign = "f" * 12
    token = listed["token"].partition("~")[0] + "~" + foreign

    reply = await socket.ask("subscribe_list", request_id=2, token=token, keys=[1], max_rows=2)
    pages = [await socket.receive(), await socket.receive()]

    assert (reply["response_status"], reply["data"]) == (201, {"results": []})
    assert [page["response_status"] for page in pages] == [205, 205]
    assert [page["action"] for page in pages] == ["reset", "reset"]
    assert [page["request_id"] for page in pages] == [2, 2]
    assert [row for page in pages for row in page["data"]["results"]] == listed["data"]["results"]
    assert ["token" in page for page in pages] == [False, True]


async def test_changed_and_changed_back(connect: Connect, items: list[Item]) -> None:
    """A row that is as it was again is told, for the client may have seen it in between."""
    replica = await Replica(connect, ItemListConsumer).come()
    await replica.leave()
    await run_sql(UPDATE, "x", 1)
    await run_sql(UPDATE, "a", 1)
    await replica.come_back()
    await replica.settle()

    assert replica.told == [("update", 1)]


async def test_deleted_and_put_back(connect: Connect, items: list[Item]) -> None:
    """A row that the client has, and that was deleted and put back, is an update."""
    replica = await Replica(connect, ItemListConsumer).come()
    await replica.leave()
    await run_sql(DELETE, 1)
    await run_sql(INSERT, 1, "again", 1)
    await replica.come_back()
    await replica.settle()

    assert replica.told == [("update", 1)]
    assert replica.rows == await in_table()


async def test_locks_are_no_changes(connect: Connect, items: list[Item]) -> None:
    """A row that was locked, and not written, is not told."""
    replica = await Replica(connect, ItemListConsumer).come()
    await replica.leave()
    await run_sql("SELECT * FROM project_item WHERE id = 1 FOR UPDATE")
    await run_sql("SELECT * FROM project_item FOR SHARE")
    await replica.come_back()
    await replica.settle()

    assert replica.told == []


async def test_vacuum_is_no_change(connect: Connect, items: list[Item]) -> None:
    """Rows that were frozen are not told, though the server may forget who wrote them."""
    replica = await Replica(connect, ItemListConsumer).come()
    await replica.leave()
    await run_sql("VACUUM (FREEZE, ANALYZE) project_item")
    await replica.come_back()
    await replica.settle()

    assert (replica.told, replica.resets) == ([], 0)


async def test_savepoint_still_open(connect: Connect, items: list[Item]) -> None:
    """What a transaction wrote in a savepoint, before the token, and committed after, is told."""
    socket = await connect(ItemListConsumer)

    def begin() -> Any:
        raw = connection.get_new_connection(connection.get_connection_params())
        raw.autocommit = False
        raw.execute("SELECT pg_current_xact_id()")
        raw.execute("SAVEPOINT s")
        raw.execute(UPDATE, ["late", 1])
        raw.execute("RELEASE SAVEPOINT s")
        return raw

    raw = await asyncio.to_thread(begin)
    try:
        # A later id ends first: the savepoint's is between those that the snapshot lists.
        await run_sql(UPDATE, "bb", 2)
        replica = await Replica(connect, ItemListConsumer).come()
        assert replica.rows[1]["name"] == "a"
        await replica.leave()
        await asyncio.to_thread(raw.commit)
    finally:
        raw.close()
    await replica.come_back()
    await replica.settle()

    assert ("update", 1) in replica.told
    assert replica.rows == await in_table()
    await socket.close()


async def test_keys_that_are_not_on_the_list(connect: Connect, items: list[Item]) -> None:
    """Keys of rows that the client may not see are deletes, whether there are such rows or not."""
    replica = await Replica(connect, RankedConsumer, rank=2).come()
    await replica.leave()
    replica.rows |= {1: {"id": 1}, 99: {"id": 99}}
    await replica.come_back()
    await replica.settle()

    assert sorted(replica.told) == [("delete", 1), ("delete", 99)]
    assert replica.rows == await in_table(rank__gte=2)


async def test_object_permissions(connect: Connect, items: list[Item]) -> None:
    """A row that the permissions hide by now is a delete, and one that they show a create."""
    await run_sql(MOVE, 9, 1)
    replica = await Replica(connect, JudgedConsumer).come()
    assert set(replica.rows) == {2, 3}
    await replica.leave()
    await run_sql(MOVE, 1, 1)
    await run_sql(MOVE, 9, 2)
    await replica.come_back()
    await replica.settle()

    assert sorted(replica.told) == [("create", 1), ("delete", 2)]
    assert replica.rows == await in_table(rank__lt=5)


async def test_only_keys(connect: Connect, items: list[Item]) -> None:
    """With only keys, rows that came and went are told."""
    replica = await Replica(connect, ItemListConsumer, only="keys").come()
    await replica.leave()
    await run_sql(UPDATE, "x", 1)
    await run_sql(DELETE, 2)
    await run_sql(INSERT, 4, "d", 4)
    await replica.come_back()
    await replica.settle()

    assert sorted(replica.told) == [("create", 4), ("delete", 2)]
    assert replica.resets == 0


async def test_only_count(connect: Connect, items: list[Item]) -> None:
    """With only count, who comes back is given the number anew."""
    socket = await connect(ItemListConsumer)
    token = (await socket.ask("subscribe_list", request_id=1, only="count"))["token"]
    for keys in ({}, {"keys": [1, 2]}):
        reply = await socket.ask("subscribe_list", request_id=2, only="count", token=token, **keys)
        reset = await socket.receive()

        assert reply["data"] == {"results": []}
        assert (reset["action"], reset["response_status"]) == ("reset", 205)
        assert reset["data"] == {"count": 3}
    assert await socket.has_nothing()


async def test_two_who_come_back(connect: Connect, items: list[Item]) -> None:
    """Each is told what changed since his own token."""
    first = await Replica(connect, ItemListConsumer).come()
    await first.leave()
    await run_sql(UPDATE, "x", 1)
    second = await Replica(connect, ItemListConsumer).come()
    await second.leave()
    await run_sql(UPDATE, "y", 2)
    await asyncio.gather(first.come_back(), second.come_back())
    await first.settle()
    await second.settle()

    assert sorted(first.told) == [("update", 1), ("update", 2)]
    assert second.told == [("update", 2)]


async def test_undeclared_model(connect: Connect, items: list[Item]) -> None:
    """Keys are understood by the rows of the queryset, whatever the class declares."""
    replica = await Replica(connect, NowhereConsumer).come()
    await replica.leave()
    await run_sql(UPDATE, "x", 1)
    await replica.come_back()
    await replica.settle()

    assert replica.told == [("update", 1)]


@pytest.mark.parametrize("keys", [True, False])
async def test_another_process(
    connect: Connect, items: list[Item], transport: str, keys: bool
) -> None:
    """A token holds when the process that gave it has gone."""
    replica = await Replica(connect, ItemListConsumer).come()
    await replica.leave()
    await runtime.current().aclose()
    await run_sql(UPDATE, "bb", 2)
    await run_sql(DELETE, 1)
    await replica.come_back(keys=keys)
    await replica.settle()

    if keys or transport == "outbox":
        assert sorted(replica.told) == [("delete", 1), ("update", 2)]
    assert replica.rows == await in_table()
