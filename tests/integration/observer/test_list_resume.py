"""A client that comes back to a list with a token is told what changed since, or given it anew."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection
from django.db.models import F
from django.db.models.functions import Now
from rest_framework.filters import SearchFilter
from rest_framework.permissions import BasePermission

from pgobserve.feed import runtime
from pgobserve.feed.snapshot import Snapshot
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelInstanceMixin, ObserverModelListMixin
from tests.integration.observer.conftest import run_sql
from tests.integration.observer.replica import Replica
from tests.integration.observer.test_list import ItemListConsumer, ItemSerializer, RankedConsumer
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Callable

    Connect = Callable[..., Any]

UPDATE = "UPDATE project_item SET name = %s WHERE id = %s"
DELETE = "DELETE FROM project_item WHERE id = %s"
INSERT = "INSERT INTO project_item (id, name, rank) VALUES (%s, %s, %s)"
MOVE = "UPDATE project_item SET rank = %s WHERE id = %s"

#: Without an outbox there is nothing to tell from.
outbox_only = pytest.mark.parametrize("transport", ["outbox"], indirect=True)


class SearchedConsumer(ItemListConsumer):
    filter_backends = [SearchFilter]
    search_fields = ["name"]


class Both(ObserverModelInstanceMixin, ItemListConsumer):
    """Rows and lists."""


class LooksAtUser(ItemSerializer):
    def to_representation(self, instance: Any) -> Any:
        shown = super().to_representation(instance)
        return {**shown, "for": self.context["scope"].get("user")}


class UserConsumer(ItemListConsumer):
    serializer_class = LooksAtUser


class OwnConsumer(ItemListConsumer):
    def get_queryset(self, **kwargs: Any) -> Any:
        return super().get_queryset(**kwargs).filter(name__startswith=self.scope["user"])


class LowRanks(BasePermission):
    def has_object_permission(self, request: Any, view: Any, obj: Any) -> bool:
        return bool(obj.rank < 5)


class JudgedConsumer(ItemListConsumer):
    permission_classes = [LowRanks]


class ClockConsumer(ItemListConsumer):
    queryset = Item.objects.annotate(moment=Now()).filter(moment__isnull=False, rank__lt=F("id"))


@pytest.fixture
def items(observed: None) -> list[Item]:
    """Three rows."""
    return [Item.objects.create(id=n, name=name, rank=n) for n, name in enumerate("abc", 1)]


def table(**where: Any) -> dict[Any, Any]:
    """Return what a client should have."""
    try:
        return {
            item.pk: {"id": item.pk, "name": item.name, "rank": item.rank}
            for item in Item.objects.filter(**where)
        }
    finally:
        connection.close()


async def in_table(**where: Any) -> dict[Any, Any]:
    """Return what a client should have, from another thread."""
    return await asyncio.to_thread(lambda: table(**where))


# With the keys of what the client has


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


# When it can't be told


async def resets(replica: Replica, token: str | None = None, **said: Any) -> bool:
    """Tell whether a client that comes back is given the list anew, and nothing else."""
    replica.token = token or replica.token
    await replica.come_back(**said)
    await replica.settle()
    return replica.resets == 1 and replica.told == []


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


# Without keys


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
    monkeypatch.setattr("pgobserve.feed.since.ENTRIES", 3)
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


# Other processes


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


# A serializer whose query fails


class QueryFails(ItemSerializer):
    """Asks what can't be answered, of one row."""

    def to_representation(self, instance: Any) -> Any:
        if instance.name == "fails":
            with suppress(DatabaseError):
                Item.objects.raw("SELECT 1/0 AS id")[0]
        return super().to_representation(instance)


class FailingConsumer(ItemListConsumer):
    serializer_class = QueryFails


async def test_failed_query(connect: Connect, items: list[Item]) -> None:
    """Where a list could not be read in one snapshot, it is given anew."""
    replica = await Replica(connect, FailingConsumer).come()
    await replica.leave()
    await run_sql(UPDATE, "fails", 1)

    assert await resets(replica)
    assert replica.rows == await in_table()


class NowhereConsumer(ObserverModelListMixin, GenericAsyncAPIConsumer):
    """Does not say before it is asked which rows it is about."""

    def get_queryset(self, **kwargs: Any) -> Any:
        return Item.objects.order_by("id")

    def get_serializer_class(self, **kwargs: Any) -> Any:
        return ItemSerializer


async def test_undeclared_model(connect: Connect, items: list[Item]) -> None:
    """Keys are understood by the rows of the queryset, whatever the class declares."""
    replica = await Replica(connect, NowhereConsumer).come()
    await replica.leave()
    await run_sql(UPDATE, "x", 1)
    await replica.come_back()
    await replica.settle()

    assert replica.told == [("update", 1)]
