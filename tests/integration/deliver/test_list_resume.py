"""A client that comes back to a list with the etags of what it holds receives the difference."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.db import connection

from pgobserve.runtime import runtime
from tests.integration.deliver.conftest import run_sql
from tests.integration.deliver.replica import Replica
from tests.integration.deliver.resuming import (
    DELETE,
    INSERT,
    MOVE,
    UPDATE,
    Both,
    ClockConsumer,
    FailingConsumer,
    JudgedConsumer,
    LowListedConsumer,
    NowhereConsumer,
    OwnConsumer,
    RaisingConsumer,
    SearchedConsumer,
    UserConsumer,
    in_table,
)
from tests.integration.deliver.test_list import ItemListConsumer, RankedConsumer
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    Connect = Callable[..., Any]


@pytest.fixture
def items(observed: None) -> list[Item]:
    """Three rows."""
    return [Item.objects.create(id=n, name=name, rank=n) for n, name in enumerate("abc", 1)]


async def away(replica: Replica, *statements: tuple[Any, ...]) -> list[tuple[str, Any]]:
    """Let a client miss statements and come back; return what it receives then."""
    await replica.leave()
    for statement in statements:
        await run_sql(*statement)
    await replica.come_back()
    await replica.settle()
    return sorted(replica.told)


async def test_nothing_changed(connect: Connect, items: list[Item]) -> None:
    """A client that missed nothing receives nothing but the reply."""
    replica = await Replica(connect, ItemListConsumer).come()

    assert await away(replica) == []


async def test_changed_entered_left(connect: Connect, items: list[Item]) -> None:
    """Each row that changed, came or went is in one frame, and no other row is."""
    replica = await Replica(connect, RankedConsumer, rank=2).come()
    told = await away(
        replica,
        (UPDATE, "bb", 2),
        (MOVE, 0, 3),
        (MOVE, 7, 1),
        (INSERT, 4, "d", 4),
        (INSERT, 5, "e", 0),
    )

    assert told == [("create", 1), ("create", 4), ("delete", 3), ("update", 2)]
    assert replica.rows == await in_table(rank__gte=2)


async def test_shape_of_the_frames(connect: Connect, items: list[Item]) -> None:
    """The frames of a list and of a return have the keys that the reference lists, and no others."""
    plain = {"action", "errors", "response_status", "request_id", "data"}
    socket = await connect(ItemListConsumer)
    first = await socket.ask("subscribe_list", request_id=1, max_rows=2)
    last = await socket.receive()
    assert (set(first), set(last)) == (
        plain | {"keys", "etags", "more"},
        plain | {"keys", "etags"},
    )
    assert (first["keys"], last["keys"], first["more"]) == (["1", "2"], ["3"], True)
    assert last["data"] == {"results": [{"id": 3, "name": "c", "rank": 3}]}

    etags = first["etags"] + last["etags"]
    have = {"1": etags[0], "2": "x", "9": etags[2]}
    reply = await socket.ask("subscribe_list", request_id="r", have=have)
    frames = [await socket.receive() for _ in range(3)]

    assert reply == {
        "action": "subscribe_list",
        "errors": [],
        "response_status": 201,
        "request_id": "r",
        "data": None,
    }
    update, create, delete = frames
    assert set(update) == set(create) == plain | {"key", "etag"}
    assert set(delete) == plain | {"key"}
    assert [(f["action"], f["response_status"], f["key"]) for f in frames] == [
        ("update", 200, "2"),
        ("create", 200, "3"),
        ("delete", 204, "9"),
    ]
    assert (update["etag"], create["etag"]) == (etags[1], etags[2])
    assert delete["data"] == {"pk": 9}
    assert await socket.has_nothing()


async def test_changed_and_changed_back(connect: Connect, items: list[Item]) -> None:
    """A row that is as it was again is silent, deleted and put back included."""
    replica = await Replica(connect, ItemListConsumer).come()

    assert (
        await away(replica, (UPDATE, "x", 1), (UPDATE, "a", 1), (DELETE, 2), (INSERT, 2, "b", 2))
        == []
    )


async def test_deleted_and_put_back_otherwise(connect: Connect, items: list[Item]) -> None:
    """A row that the client holds, and that was deleted and put back, is an update."""
    replica = await Replica(connect, ItemListConsumer).come()

    assert await away(replica, (DELETE, 1), (INSERT, 1, "again", 1)) == [("update", 1)]
    assert replica.rows == await in_table()


async def test_rewritten(connect: Connect, items: list[Item]) -> None:
    """A table that was rewritten, truncated and filled anew, or altered, is the rows that it has."""
    replica = await Replica(connect, ItemListConsumer).come()

    assert (
        await away(
            replica,
            ("CREATE TABLE kept AS SELECT * FROM project_item",),
            ("TRUNCATE project_item CASCADE",),
            ("INSERT INTO project_item SELECT * FROM kept",),
            ("DROP TABLE kept",),
            ("ALTER TABLE project_item ALTER rank TYPE bigint",),
            ("ALTER TABLE project_item ALTER rank TYPE integer",),
            ("VACUUM (FULL, FREEZE, ANALYZE) project_item",),
        )
        == []
    )


async def test_while_nobody_noted_it(connect: Connect, items: list[Item]) -> None:
    """Changes that no trigger told of are found all the same."""
    replica = await Replica(connect, ItemListConsumer).come()

    assert await away(
        replica,
        ("ALTER TABLE project_item DISABLE TRIGGER USER",),
        (UPDATE, "x", 1),
        (DELETE, 2),
        ("ALTER TABLE project_item ENABLE TRIGGER USER",),
    ) == [("delete", 2), ("update", 1)]


async def test_object_permissions(connect: Connect, items: list[Item]) -> None:
    """A row that the permissions hide by now is a delete, and one that they show a create."""
    await run_sql(MOVE, 9, 1)
    replica = await Replica(connect, JudgedConsumer).come()
    assert set(replica.rows) == {2, 3}

    assert await away(replica, (MOVE, 1, 1), (MOVE, 9, 2)) == [("create", 1), ("delete", 2)]
    assert replica.rows == await in_table(rank__lt=5)


async def test_only_keys(connect: Connect, items: list[Item]) -> None:
    """With only keys, rows that came and went are told, and one that changed is not."""
    replica = await Replica(connect, ItemListConsumer, only="keys").come()
    told = await away(replica, (UPDATE, "x", 1), (DELETE, 2), (INSERT, 4, "d", 4))

    assert told == [("create", 4), ("delete", 2)]


async def test_serializer_that_looks_at_the_user(connect: Connect, items: list[Item]) -> None:
    """What each user is shown is compared with what that user holds."""
    ann, bob = (Replica(connect, UserConsumer, scope={"user": name}) for name in ("ann", "bob"))
    await asyncio.gather(ann.come(), bob.come())
    await bob.leave()

    assert await away(ann, (UPDATE, "x", 1)) == [("update", 1)]
    await bob.come_back()
    await bob.settle()
    assert bob.told == [("update", 1)]
    assert [replica.rows[1]["for"] for replica in (ann, bob)] == ["ann", "bob"]


async def test_list_serializer_that_leaves_out(connect: Connect, items: list[Item]) -> None:
    """What the list's serializer leaves out by now is a delete."""
    replica = await Replica(connect, LowListedConsumer).come()
    assert set(replica.rows) == {1, 2}

    assert await away(replica, (MOVE, 5, 1), (MOVE, 0, 3)) == [("create", 3), ("delete", 1)]


async def test_queryset_that_looks_at_the_clock(connect: Connect, items: list[Item]) -> None:
    """A queryset that is another one each time has the rows that it has."""
    await run_sql("UPDATE project_item SET rank = 0")
    replica = await Replica(connect, ClockConsumer).come()

    assert await away(replica, (MOVE, 99, 1)) == [("delete", 1)]


async def test_serializer_whose_query_fails(connect: Connect, items: list[Item]) -> None:
    """A list that is shown from several snapshots is compared as any other."""
    replica = await Replica(connect, FailingConsumer).come()

    assert await away(replica, (UPDATE, "fails", 1), (DELETE, 2)) == [("delete", 2), ("update", 1)]


async def test_row_that_cannot_be_shown(connect: Connect, items: list[Item]) -> None:
    """A row that can't be shown is an error that names it; when it can, it is sent as it is."""
    replica = await Replica(connect, RaisingConsumer).come()
    await replica.leave()
    await run_sql(UPDATE, "fails", 1)
    await replica.come_back()
    error = await replica.socket.receive()
    await run_sql(UPDATE, "a", 1)

    assert (error["response_status"], error["key"], error["data"]) == (500, "1", {"pk": 1})
    assert (await replica.socket.receive())["data"]["name"] == "a"
    assert await replica.socket.has_nothing()


async def test_to_another_list(connect: Connect, items: list[Item]) -> None:
    """A client may come back to another list: what is on both, and as it was, is not sent."""
    socket = await connect(SearchedConsumer)
    listed = await socket.ask("subscribe_list", request_id=1, query={"search": "a"})
    have = dict(zip(listed["keys"], listed["etags"], strict=True))
    await socket.ask("subscribe_list", request_id=1, have=have)

    created = [await socket.receive(), await socket.receive()]
    assert [(frame["action"], frame["key"]) for frame in created] == [
        ("create", "2"),
        ("create", "3"),
    ]
    await socket.ask("subscribe_list", request_id=1, query={"search": "b"}, have=have)
    changed = [await socket.receive(), await socket.receive()]
    assert [(frame["action"], frame["key"]) for frame in changed] == [
        ("create", "2"),
        ("delete", "1"),
    ]
    assert await socket.has_nothing()


async def test_two_who_come_back(connect: Connect, items: list[Item]) -> None:
    """Clients of one list that hold different states receive different frames."""
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


async def test_live_afterwards(connect: Connect, items: list[Item]) -> None:
    """After the difference the subscription goes on, from what is true."""
    replica = await Replica(connect, ItemListConsumer).come()
    await away(replica, (UPDATE, "x", 1))
    await run_sql(UPDATE, "y", 1)
    await run_sql(DELETE, 2)
    replica.told = []
    await replica.settle()

    assert sorted(replica.told) == [("delete", 2), ("update", 1)]
    assert replica.rows == await in_table()


async def test_undeclared_model(connect: Connect, items: list[Item]) -> None:
    """Keys are understood by the rows of the queryset, whatever the class declares."""
    replica = await Replica(connect, NowhereConsumer).come()

    assert await away(replica, (UPDATE, "x", 1), (DELETE, 3)) == [("delete", 3), ("update", 1)]


async def test_another_process(connect: Connect, items: list[Item]) -> None:
    """Etags hold when the process that gave them has gone."""
    replica = await Replica(connect, ItemListConsumer).come()
    await replica.leave()
    await runtime.current().aclose()
    await run_sql(UPDATE, "bb", 2)
    await run_sql(DELETE, 1)
    await replica.come_back()
    await replica.settle()

    assert sorted(replica.told) == [("delete", 1), ("update", 2)]
    assert replica.rows == await in_table()


async def test_rows_and_lists_agree(connect: Connect, items: list[Item]) -> None:
    """A row has one etag, watched by itself or on a list."""
    socket = await connect(Both)
    listed = await socket.ask("subscribe_list", request_id=1)
    row = await socket.ask("subscribe_instance", request_id=2, pk=1, snapshot=True)

    assert listed["etags"][0] == row["etag"]


# Clients that claim what they were never given


async def test_never_given(connect: Connect, items: list[Item]) -> None:
    """Etags and keys that were never given lead to the list as it is, and to nothing else."""
    socket = await connect(RankedConsumer)
    hidden = (await Replica(connect, ItemListConsumer).come()).etags["1"]
    junk = {"1": hidden, "2": "f" * 16, "99": "0" * 16, "zork": "", "": "x", "02": "y", "é": "🦆"}
    await socket.ask("subscribe_list", request_id=1, rank=2, have=junk)
    frames = [await socket.receive() for _ in range(8)]

    assert await socket.has_nothing()
    assert [(frame["action"], frame["key"]) for frame in frames] == [
        ("update", "2"),
        ("create", "3"),
        *(("delete", key) for key in ("1", "99", "zork", "", "02", "é")),
    ]
    assert [frame["data"]["pk"] for frame in frames[2:]] == [1, 99, "zork", "", "02", "é"]


async def test_ten_thousand_entries_of_garbage(connect: Connect, items: list[Item]) -> None:
    """As many rows as a list may have, all of them made up, are deleted; those that exist come."""
    socket = await connect(ItemListConsumer)
    await socket.ask("subscribe_list", request_id=1, have={f"k{n}": "x" for n in range(10_000)})
    frames = [await socket.receive() for _ in range(10_003)]

    assert Counter(frame["action"] for frame in frames) == {"create": 3, "delete": 10_000}
    assert await socket.has_nothing()
    await run_sql(UPDATE, "x", 1)
    assert (await socket.receive())["action"] == "update"


async def test_etags_of_somebody_else(connect: Connect, items: list[Item]) -> None:
    """Somebody else's etags open no row: a hidden one is answered exactly as a missing one."""
    theirs = await Replica(connect, OwnConsumer, scope={"user": "b"}).come()
    assert set(theirs.etags) == {"2"}
    answers = []
    for key in ("2", "77"):
        socket = await connect(OwnConsumer, user="a")
        await socket.ask("subscribe_list", request_id=1, have={key: theirs.etags["2"]})
        answers.append([await socket.receive(), await socket.receive()])
        assert await socket.has_nothing()

    hidden, missing = (
        [_without_key(frame, key) for frame in a]
        for a, key in zip(answers, ("2", "77"), strict=True)
    )
    assert hidden == missing
    assert [frame["action"] for frame in answers[0]] == ["create", "delete"]
    assert answers[0][0]["data"]["name"] == "a"


async def test_hidden_by_a_permission(connect: Connect, items: list[Item]) -> None:
    """The same where a permission hides the row, in its place among others that are gone."""
    everything = await Replica(connect, ItemListConsumer).come()
    await run_sql(MOVE, 9, 2)
    answers = []
    for key in ("2", "77"):
        socket = await connect(JudgedConsumer)
        have = {"50": "x", key: everything.etags["2"], "60": "x"}
        await socket.ask("subscribe_list", request_id=1, have=have)
        frames = [await socket.receive() for _ in range(5)]
        assert await socket.has_nothing()
        answers.append([_without_key(frame, key) for frame in frames])

    assert answers[0] == answers[1]
    assert [frame["action"] for frame in answers[0]] == ["create", "create", *["delete"] * 3]


def _without_key(frame: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a frame with a client's own key blotted out."""
    if frame["key"] != key:
        return frame
    assert frame["data"] == {"pk": int(key)}
    return {**frame, "key": "?", "data": "?"}


# What it costs


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The queries of the table, by whatever connection."""
    queries: list[str] = []
    execute = psycopg.Cursor.execute

    def note(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        if 'FROM "project_item"' in str(query):
            queries.append(str(query))
        return execute(self, query, *args, **kwargs)

    monkeypatch.setattr(psycopg.Cursor, "execute", note)
    return queries


@pytest.mark.parametrize("transport", ["notify"], indirect=True)
async def test_a_thousand_come_back(connect: Connect, items: list[Item], reads: list[str]) -> None:
    """A thousand clients that come back to one list at once cost few reads of it, not a thousand."""
    held = (await Replica(connect, ItemListConsumer).come()).etags
    await run_sql(UPDATE, "x", 1)
    sockets = [await connect(ItemListConsumer) for _ in range(1000)]
    hub = runtime.current().feeds["default"].hub
    async with locked("project_item"):
        for socket in sockets:
            await socket.send(action="subscribe_list", request_id=1, have=held)
        while len(hub) < len(sockets):  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0.01)
        reads.clear()  # those that the lock ended
    for socket in sockets:
        frames = [await socket.receive(), await socket.receive()]
        assert [(frame["action"], frame.get("key")) for frame in frames] == [
            ("subscribe_list", None),
            ("update", "1"),
        ]

    # One that the first of them waited for, and one for all others.
    assert 1 <= len(reads) <= 2


@contextlib.asynccontextmanager
async def locked(table: str) -> AsyncIterator[None]:
    """Have whatever reads a table wait."""

    def lock() -> Any:
        raw = connection.get_new_connection(connection.get_connection_params())
        raw.autocommit = False
        raw.execute(f"LOCK TABLE {table}")
        return raw

    raw = await asyncio.to_thread(lock)
    try:
        yield
    finally:
        await asyncio.to_thread(raw.close)
