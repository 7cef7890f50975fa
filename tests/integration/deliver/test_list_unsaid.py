"""Who comes back to a list and does not say which rows he has is told what the outbox knows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command

from tests.integration.deliver.conftest import run_sql
from tests.integration.deliver.replica import Replica
from tests.integration.deliver.resuming import (
    DELETE,
    INSERT,
    MOVE,
    UPDATE,
    ClockConsumer,
    JudgedConsumer,
    LowListedConsumer,
    UserConsumer,
    in_table,
    outbox_only,
    resets,
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


async def test_unsaid_without_outbox(connect: Connect, items: list[Item], transport: str) -> None:
    """Who does not say what he has is given the list anew, unless the outbox can tell."""
    replica = await Replica(connect, ItemListConsumer).come()
    await replica.leave()
    await replica.come_back(keys=False)
    await replica.settle()

    assert replica.resets == (0 if transport == "outbox" else 1)
    assert replica.told == []


@outbox_only
async def test_unsaid(connect: Connect, items: list[Item]) -> None:
    """Rows that came, changed and went are told from the outbox; rows not on the list are not."""
    for n in range(4, 10):
        await run_sql(INSERT, n, "x", n)
    replica = await Replica(connect, RankedConsumer, rank=2).come()
    await replica.leave()
    await run_sql(UPDATE, "bb", 2)
    await run_sql(DELETE, 3)
    await run_sql(MOVE, 0, 4)
    await run_sql(MOVE, 2, 1)
    await run_sql(INSERT, 20, "in", 5)
    await run_sql(INSERT, 21, "out", 0)
    await run_sql(INSERT, 22, "out and gone", 0)
    await run_sql(DELETE, 22)
    await run_sql("UPDATE project_item SET id = 30 WHERE id = 5")
    await run_sql(MOVE, 7, 6)
    await run_sql(MOVE, 0, 6)
    await replica.come_back(keys=False)
    await replica.settle()

    assert sorted(replica.told) == [
        ("create", 1),
        ("create", 20),
        ("create", 30),
        ("delete", 3),
        ("delete", 4),
        ("delete", 5),
        ("delete", 6),
        ("update", 2),
    ]
    assert replica.resets == 0
    assert replica.rows == await in_table(rank__gte=2)


@outbox_only
async def test_unsaid_and_passing(connect: Connect, items: list[Item]) -> None:
    """A row that was on the list for a while is a delete: the client may have been told of it."""
    replica = await Replica(connect, RankedConsumer, rank=2).come()
    await replica.leave()
    await run_sql(INSERT, 8, "passing", 9)
    await run_sql(DELETE, 8)
    await run_sql(INSERT, 9, "passing", 9)
    await run_sql(MOVE, 0, 9)
    await replica.come_back(keys=False)
    await replica.settle()

    assert sorted(replica.told) == [("delete", 8), ("delete", 9)]


@outbox_only
async def test_unsaid_with_only_keys(connect: Connect, items: list[Item]) -> None:
    """With only keys, a row that changed and stayed is silent."""
    replica = await Replica(connect, RankedConsumer, rank=2, only="keys").come()
    await replica.leave()
    await run_sql(UPDATE, "bb", 2)
    await run_sql(MOVE, 0, 3)
    await run_sql(INSERT, 4, "d", 4)
    await replica.come_back(keys=False)
    await replica.settle()

    assert sorted(replica.told) == [("create", 4), ("delete", 3)]
    assert replica.resets == 0


@outbox_only
async def test_unsaid_after_a_marked_change(connect: Connect, items: list[Item]) -> None:
    """After changes that were not written down row by row the list is given anew."""
    replica = await Replica(connect, ItemListConsumer).come()
    await replica.leave()
    await run_sql(
        "SELECT set_config('pgobserve.mute', 'mark', false); UPDATE project_item SET rank = 9"
    )

    assert await resets(replica, keys=False)


@outbox_only
async def test_unsaid_after_a_loss(connect: Connect, items: list[Item]) -> None:
    """After changes that the outbox could not take the list is given anew."""
    replica = await Replica(connect, ItemListConsumer).come()
    await replica.leave()
    await run_sql("SELECT setval('pgobserve.outbox_gate', 3)")  # full
    await run_sql(UPDATE, "lost", 1)
    await run_sql("SELECT setval('pgobserve.outbox_gate', 0)")

    assert await resets(replica, keys=False)
    assert replica.rows == await in_table()


@outbox_only
async def test_unsaid_after_the_retention(connect: Connect, items: list[Item]) -> None:
    """After the outbox was emptied the list is given anew."""
    replica = await Replica(connect, ItemListConsumer).come()
    await replica.leave()
    await run_sql(DELETE, 1)
    await run_sql(
        "UPDATE pgobserve.outbox_state SET horizon = pg_current_snapshot();"
        "TRUNCATE pgobserve.outbox_0"
    )

    assert await resets(replica, keys=False)
    assert replica.rows == await in_table()


@outbox_only
@pytest.mark.parametrize(
    "meanwhile",
    [
        "ALTER TABLE project_item DISABLE TRIGGER ALL; {} ALTER TABLE project_item ENABLE TRIGGER ALL",
        "DROP SCHEMA pgobserve CASCADE; {}",
    ],
)
async def test_unsaid_after_a_time_without_triggers(
    connect: Connect, items: list[Item], meanwhile: str
) -> None:
    """After a time in which nobody noted what changed the list is given anew."""
    replica = await Replica(connect, ItemListConsumer).come()
    await replica.leave()
    await run_sql(meanwhile.format("DELETE FROM project_item WHERE id = 1;"))
    await asyncio.to_thread(
        call_command, "pgobserve", "install", "project.Item", "auth.User", verbosity=0
    )

    assert await resets(replica, keys=False)
    assert replica.rows == await in_table()


@outbox_only
async def test_unsaid_and_too_much(
    connect: Connect, items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After too many changes the list is given anew."""
    monkeypatch.setattr("pgobserve.outbox.since.ENTRIES", 3)
    replica = await Replica(connect, ItemListConsumer).come()
    await replica.leave()
    for _ in range(4):
        await run_sql(UPDATE, "x", 1)
        await run_sql(UPDATE, "y", 1)

    assert await resets(replica, keys=False)


@outbox_only
@pytest.mark.parametrize("consumer", [JudgedConsumer, UserConsumer, ClockConsumer])
async def test_unsaid_and_unknowable(connect: Connect, items: list[Item], consumer: Any) -> None:
    """Where more than the row decides who saw it, the list is given anew."""
    replica = await Replica(connect, consumer, scope={"user": "u"}).come()
    await replica.leave()

    assert await resets(replica, keys=False)


@outbox_only
async def test_unsaid_and_row_security(connect: Connect, items: list[Item]) -> None:
    """Where the server itself hides rows, the list is given anew."""
    await run_sql("ALTER TABLE project_item ENABLE ROW LEVEL SECURITY")
    try:
        replica = await Replica(connect, ItemListConsumer).come()
        await replica.leave()
        await run_sql(DELETE, 1)

        assert await resets(replica, keys=False)
    finally:
        await run_sql("ALTER TABLE project_item DISABLE ROW LEVEL SECURITY")


@outbox_only
async def test_unsaid_where_the_list_serializer_leaves_rows_out(
    connect: Connect, items: list[Item]
) -> None:
    """A row that the list serializer leaves out is not named when the client comes back."""
    replica = await Replica(connect, LowListedConsumer).come()
    assert sorted(replica.rows) == [1, 2]
    await replica.leave()
    await run_sql(UPDATE, "hidden", 3)
    await replica.come_back(keys=False)
    await replica.settle()

    assert replica.resets == 1
    assert replica.told == []
    assert sorted(replica.rows) == [1, 2]
