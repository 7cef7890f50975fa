"""Who comes back to a list with a token that tells nothing is given it anew, and garbage is refused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command

from pgobserve.runtime import runtime
from tests.integration.deliver.conftest import run_sql
from tests.integration.deliver.replica import Replica
from tests.integration.deliver.resuming import (
    UPDATE,
    Both,
    FailingConsumer,
    OwnConsumer,
    SearchedConsumer,
    UserConsumer,
    in_table,
    resets,
)
from tests.integration.deliver.test_list import ItemListConsumer
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Callable

    Connect = Callable[..., Any]


@pytest.fixture
def items(observed: None) -> list[Item]:
    """Three rows."""
    return [Item.objects.create(id=n, name=name, rank=n) for n, name in enumerate("abc", 1)]


async def test_other_run(connect: Connect, items: list[Item]) -> None:
    """After a restart of the server a token says nothing."""
    replica = await Replica(connect, ItemListConsumer).come()
    assert replica.token is not None
    seen, _, rest = replica.token.partition("@")
    run, _, fingerprint = rest.partition("~")

    assert await resets(replica, f"{seen}@{int(run) - 1}~{fingerprint}")
    assert replica.rows == await in_table()


async def test_without_run(connect: Connect, items: list[Item]) -> None:
    """A token that does not say of which run of the server it is says nothing."""
    replica = await Replica(connect, ItemListConsumer).come()
    assert replica.token is not None
    seen, _, rest = replica.token.partition("@")

    assert await resets(replica, f"{seen}~{rest.partition('~')[2]}")


async def test_future(connect: Connect, items: list[Item]) -> None:
    """A token that has seen what is not yet there is another server's."""
    replica = await Replica(connect, ItemListConsumer).come()
    assert replica.token is not None
    tail = replica.token[replica.token.index("@") :]

    assert await resets(replica, f"999999999:999999999:{tail}")


async def test_other_query(connect: Connect, items: list[Item]) -> None:
    """A token of another query of the same rows says nothing."""
    one = await Replica(connect, SearchedConsumer, query={"search": "a"}).come()
    other = await Replica(connect, SearchedConsumer, query={"search": "b"}).come()
    await other.leave()

    assert await resets(other, one.token)
    assert set(other.rows) == {2}


async def test_other_user(connect: Connect, items: list[Item]) -> None:
    """A token of another user's list gives its bearer his own list, and nothing of the other's."""
    one = await Replica(connect, OwnConsumer, scope={"user": "a"}).come()
    other = Replica(connect, OwnConsumer, scope={"user": "b"})
    other.rows, other.token = one.rows, one.token

    assert await resets(other)
    assert set(other.rows) == {2}


async def test_shown_to_the_user(connect: Connect, items: list[Item]) -> None:
    """Where the serializer looks at the user, his rows are given anew: he may be another by now."""
    replica = await Replica(connect, UserConsumer, scope={"user": "one"}).come()
    await replica.leave()
    replica._scope = {"user": "two"}

    assert await resets(replica)
    assert {row["for"] for row in replica.rows.values()} == {"two"}


async def test_token_of_a_row(connect: Connect, items: list[Item]) -> None:
    """The token of a subscription to a row is none of a list, nor the other way round."""
    socket = await connect(Both)
    of_row = (await socket.subscribe(1, snapshot=True))["token"]
    of_list = (await socket.ask("subscribe_list", request_id=2))["token"]

    assert (await socket.subscribe(1, token=of_list))["response_status"] == 400
    reply = await socket.ask("subscribe_list", request_id=3, token=of_row, keys=[1])
    assert reply["response_status"] == 400


@pytest.mark.parametrize(
    "token",
    [
        "",
        "~",
        "nonsense",
        5,
        True,
        {},
        ["1:1:~ffffffffffff"],
        "1:1:~",
        "1:1:~zz' OR 1=1",
        "9:3:~ffffffffffff",
        "1:1:~" + "f" * 1_000_000,
        "1:999999999999999999:" + ",".join(map(str, range(1, 50_000))) + "~ffffffffffff",
        "1" * 500_000 + ":~ffffffffffff",
    ],
)
async def test_garbage(connect: Connect, items: list[Item], token: Any) -> None:
    """What is no token gets a 400 with a sentence, and the socket lives."""
    socket = await connect(ItemListConsumer)
    reply = await socket.ask("subscribe_list", request_id=1, token=token, keys=[1])

    assert (reply["response_status"], reply["data"]) == (400, None)
    assert "token" in reply["errors"][0]
    assert (await socket.ask("subscribe_list", request_id=1))["response_status"] == 201


@pytest.mark.parametrize("keys", [5, "1", {"1": 1}, [None], ["x"], [[1, 2]], [1.5], [2**70]])
async def test_garbage_keys(connect: Connect, items: list[Item], keys: Any) -> None:
    """What are no keys gets a 400 with a sentence."""
    socket = await connect(ItemListConsumer)
    token = (await socket.ask("subscribe_list", request_id=1))["token"]
    reply = await socket.ask("subscribe_list", request_id=2, token=token, keys=keys)

    assert reply["response_status"] == 400
    assert "keys" in reply["errors"][0]


async def test_too_many_keys(connect: Connect, items: list[Item], settings: Any) -> None:
    """More keys than a list can have rows get a 400 that says how many there can be."""
    settings.PGOBSERVE = {**settings.PGOBSERVE, "MAX_LIST_ROWS": 3}
    socket = await connect(ItemListConsumer)
    token = (await socket.ask("subscribe_list", request_id=1))["token"]
    fits = await socket.ask("subscribe_list", request_id=2, token=token, keys=[1, 2, 3])
    reply = await socket.ask("subscribe_list", request_id=2, token=token, keys=[1, 2, 3, 4])

    assert fits["response_status"] == 201
    assert reply["response_status"] == 400
    assert "3" in reply["errors"][0]


@pytest.mark.parametrize(
    "statement",
    [
        "TRUNCATE project_item CASCADE",
        "VACUUM FULL project_item",
        "ALTER TABLE project_item ALTER rank SET DEFAULT 0",
    ],
)
@pytest.mark.parametrize("keys", [True, False])
async def test_table_made_anew(
    connect: Connect, items: list[Item], statement: str, keys: bool
) -> None:
    """After a table was emptied, rebuilt or altered its list is given anew."""
    replica = await Replica(connect, ItemListConsumer).come()
    await replica.leave()
    await run_sql(statement)

    assert await resets(replica, keys=keys)
    assert replica.rows == await in_table()


async def test_table_exchanged(connect: Connect, items: list[Item]) -> None:
    """After another table took the name, its rows are given anew, however old they are."""
    await run_sql("CREATE TABLE other (LIKE project_item INCLUDING ALL)")
    await run_sql("INSERT INTO other SELECT id, 'other', rank FROM project_item")
    replica = await Replica(connect, ItemListConsumer).come()
    await replica.leave()
    await run_sql("ALTER TABLE project_item RENAME TO gone")
    await run_sql("ALTER TABLE other RENAME TO project_item")
    try:
        runtime.current().feeds["default"]._installed.clear()
        await asyncio.to_thread(call_command, "pgobserve", "install", "project.Item", verbosity=0)

        assert await resets(replica)
        assert {row["name"] for row in replica.rows.values()} == {"other"}
    finally:
        await run_sql("DROP TABLE project_item")
        await run_sql("ALTER TABLE gone RENAME TO project_item")


async def test_failed_query(connect: Connect, items: list[Item]) -> None:
    """Where a list could not be read in one snapshot, it is given anew."""
    replica = await Replica(connect, FailingConsumer).come()
    await replica.leave()
    await run_sql(UPDATE, "fails", 1)

    assert await resets(replica)
    assert replica.rows == await in_table()
