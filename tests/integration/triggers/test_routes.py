"""Payloads carry old and new values of columns: what leads from a row to those that show it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection

from pgobserve.testing import capture_changes
from pgobserve.triggers import installer, migration_file, registry
from pgobserve.triggers.installer import InstallAction
from pgobserve.triggers.server.drift import State
from tests.integration.triggers.routed import chapters, raw, route, told_by
from tests.project import shapes
from tests.project.models import Item
from tests.project.shapes import Child, Parent, Plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    from tests.integration.triggers.conftest import Ear

__all__ = ["chapters", "raw"]  # fixtures


@pytest.mark.usefixtures("chapters")
def test_payload(ear: Ear, writer: psycopg.Connection[Any]) -> None:
    """The values follow the keys."""
    with writer.transaction():
        row = writer.execute("SELECT pg_current_xact_id()::text").fetchone()
        assert row is not None
        writer.execute("INSERT INTO project_raw VALUES (1, 7)")

    assert ear.texts() == [
        f'{{"v":1,"t":"project.raw","o":"I","x":"{row[0]}","k":[1],"r":{{"book":[7]}}}}'
    ]


@pytest.mark.usefixtures("chapters")
@pytest.mark.parametrize("others", [0, 1, 20])
def test_each_operation(ear: Ear, run: Callable[..., Any], others: int) -> None:
    """The values are those before and after, for one row or many."""
    run("INSERT INTO project_raw SELECT -i, 90 FROM generate_series(1, %s) i", others)
    ear.texts()
    run(f"INSERT INTO project_raw VALUES (1, 7){', (2, 8)' * bool(others)}")
    run("UPDATE project_raw SET name = 'x' WHERE id > 0")
    run("UPDATE project_raw SET book = 9 WHERE id = 1 OR id < 0")
    run("DELETE FROM project_raw")

    keys = [*range(-others, 0), 1]
    more = [8] if others else []
    assert told_by(ear, "book") == [
        ("I", [1, 2] if others else [1], {"book": [7, *more]}),
        ("U", [1, 2] if others else [1], {"book": [7, *more]}),
        ("U", keys, {"book": [7, 9, *([90] if others else [])]}),
        ("D", [*keys, 2] if others else [1], {"book": [*more, 9]}),
    ]


@pytest.mark.usefixtures("chapters")
def test_nulls(ear: Ear, run: Callable[..., Any]) -> None:
    """A row without a parent sends no value, before or after."""
    run("INSERT INTO project_raw VALUES (1, NULL)")
    run("UPDATE project_raw SET name = 'x'")
    run("UPDATE project_raw SET book = 7")
    run("UPDATE project_raw SET book = NULL")
    run("INSERT INTO project_raw VALUES (2, NULL), (3, NULL), (4, 8)")
    run("UPDATE project_raw SET name = 'y' WHERE id < 4")

    assert told_by(ear, "book") == [
        ("I", [1], {"book": []}),
        ("U", [1], {"book": []}),
        ("U", [1], {"book": [7]}),
        ("U", [1], {"book": [7]}),
        ("I", [2, 3, 4], {"book": [8]}),
        ("U", [1, 2, 3], {"book": []}),
    ]


@pytest.mark.usefixtures("chapters")
def test_rows_that_stay_as_they_are(ear: Ear, run: Callable[..., Any]) -> None:
    """Rows that an UPDATE leaves unchanged send neither key nor value."""
    run("INSERT INTO project_raw VALUES (1, 7), (2, 8), (3, 8), (4, 9)")
    ear.texts()
    run("UPDATE project_raw SET book = 8")
    run("UPDATE project_raw SET book = 8")

    assert told_by(ear, "book") == [("U", [1, 4], {"book": [7, 8, 9]})]


@pytest.mark.usefixtures("chapters")
@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO project_raw SELECT 1, 1 WHERE false",
        "UPDATE project_raw SET book = 1 WHERE false",
        "DELETE FROM project_raw WHERE false",
    ],
)
def test_no_row(ear: Ear, run: Callable[..., Any], statement: str) -> None:
    """A statement that touches no row is silent."""
    run(statement)

    assert ear.texts() == []


@pytest.mark.usefixtures("chapters")
def test_changed_key(ear: Ear, run: Callable[..., Any]) -> None:
    """A changed key sends old and new keys and values, swapped keys included."""
    run("INSERT INTO project_raw VALUES (1, 7), (2, 8)")
    ear.texts()
    run("UPDATE project_raw SET id = 5, book = 9 WHERE id = 1")
    run("ALTER TABLE project_raw DROP CONSTRAINT project_raw_pkey")
    run("UPDATE project_raw SET id = 7 - id")

    assert told_by(ear, "book") == [
        ("U", [1, 5], {"book": [7, 9]}),
        ("U", [2, 5], {"book": [8, 9]}),
    ]


def test_several_columns(ear: Ear, run: Callable[..., Any], raw: Callable[..., None]) -> None:
    """Every payload has all columns, each with its own values, even equal ones."""
    raw("a bigint, b text, c bigint", "a", "b", "c")
    run("INSERT INTO project_raw VALUES (1, 1, NULL, 1)")
    run("UPDATE project_raw SET b = '1'")
    run("INSERT INTO project_raw VALUES (2, 1, '1', 2), (3, NULL, 'x', 1)")
    run("UPDATE project_raw SET a = 5 WHERE id > 1")

    assert told_by(ear, "a", "b", "c") == [
        ("I", [1], {"a": [1], "b": [], "c": [1]}),
        ("U", [1], {"a": [1], "b": ["1"], "c": [1]}),
        ("I", [2, 3], {"a": [1], "b": ["1", "x"], "c": [1, 2]}),
        ("U", [2, 3], {"a": [1, 5], "b": ["1", "x"], "c": [1, 2]}),
    ]


@pytest.mark.usefixtures("chapters")
def test_upsert_merge_copy(ear: Ear, writer: psycopg.Connection[Any]) -> None:
    """Whatever the statement, each kind of action sends its own values."""
    with writer.cursor() as cursor, cursor.copy("COPY project_raw FROM STDIN") as copy:
        for key in (1, 2, 3):
            copy.write_row((key, key * 10, ""))
    writer.execute(
        "INSERT INTO project_raw VALUES (1, 70), (4, 40) "
        "ON CONFLICT (id) DO UPDATE SET book = excluded.book"
    )
    told = told_by(ear, "book")
    assert told[0] == ("I", [1, 2, 3], {"book": [10, 20, 30]})
    assert sorted(told[1:]) == [("I", [4], {"book": [40]}), ("U", [1], {"book": [10, 70]})]

    writer.execute(
        "WITH gone AS (DELETE FROM project_raw WHERE id = 4 RETURNING *) "
        "INSERT INTO project_raw SELECT id + 10, book + 1 FROM gone"
    )
    assert sorted(told_by(ear, "book")) == [("D", [4], {"book": [40]}), ("I", [14], {"book": [41]})]

    if writer.info.server_version < 150000:
        return
    writer.execute(
        "MERGE INTO project_raw i USING (VALUES (1, 9), (2, 0), (5, 50)) s(id, book) ON i.id = s.id "
        "WHEN MATCHED AND s.book = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET book = s.book "
        "WHEN NOT MATCHED THEN INSERT (id, book) VALUES (s.id, s.book)"
    )
    assert sorted(told_by(ear, "book")) == [
        ("D", [2], {"book": [20]}),
        ("I", [5], {"book": [50]}),
        ("U", [1], {"book": [9, 70]}),
    ]


@pytest.fixture
def family(run: Callable[..., Any], clean: None) -> Iterator[None]:
    """Two tables with cascades of the database's between them."""
    run("CREATE TABLE project_parent (id bigint PRIMARY KEY)")
    run(
        "CREATE TABLE project_child (id bigint PRIMARY KEY, parent_id bigint REFERENCES "
        "project_parent ON DELETE CASCADE ON UPDATE CASCADE)"
    )
    for each in registry.build([Parent, Child], routes={Child: ["parent_id"]}):
        installer.install(each, using="default")
    yield
    run("DROP TABLE project_child, project_parent")


@pytest.mark.usefixtures("family")
def test_cascades(ear: Ear, run: Callable[..., Any]) -> None:
    """Rows deleted by a cascade send their former parent, though that is gone."""
    run("INSERT INTO project_parent VALUES (1), (2)")
    run("INSERT INTO project_child VALUES (10, 1), (11, 1), (12, 2)")
    ear.texts()
    run("UPDATE project_parent SET id = 3 WHERE id = 2")
    run("DELETE FROM project_parent")

    told = [each for each in ear.payloads() if each["t"] == "project.child"]
    assert sorted(
        (each["o"], sorted(each["k"]), sorted(each["r"]["parent_id"])) for each in told
    ) == [
        ("D", [10, 11, 12], [1, 3]),
        ("U", [12], [2, 3]),
    ]


@pytest.mark.usefixtures("family")
def test_moved(ear: Ear) -> None:
    """A row that moves from one parent to another sends both."""
    first, second = Parent.objects.create(pk=1), Parent.objects.create(pk=2)
    child = Child.objects.create(pk=10, parent=first)
    ear.texts()
    child.parent = second
    child.save()
    child.delete()

    assert told_by(ear, "parent_id") == [
        ("U", [10], {"parent_id": [1, 2]}),
        ("D", [10], {"parent_id": [2]}),
    ]


@pytest.mark.usefixtures("chapters")
def test_many_writes_of_one_row_in_a_transaction(ear: Ear, writer: psycopg.Connection[Any]) -> None:
    """Ten updates of a row in one transaction are one payload."""
    writer.execute("INSERT INTO project_raw VALUES (1, 7)")
    ear.texts()
    with writer.transaction():
        for number in range(10):
            writer.execute("UPDATE project_raw SET name = %s", [str(number)])

    assert len(ear.texts()) == 1


@pytest.mark.usefixtures("chapters")
def test_muted(ear: Ear, writer: psycopg.Connection[Any]) -> None:
    """A muted transaction is silent."""
    with writer.transaction():
        writer.execute("SET LOCAL pgobserve.mute = 'on'")
        writer.execute("INSERT INTO project_raw VALUES (1, 7), (2, 8)")

    assert ear.texts() == []


def test_columns_option(ear: Ear, make: Callable[..., None]) -> None:
    """With ``columns`` a change of only a route is sent as well."""
    make(shapes.Wide)
    route(shapes.Wide, "owner_id", columns=["shown"])
    shapes.Wide.objects.create(pk=1, owner_id=1)
    shapes.Wide.objects.update(hidden="x")
    shapes.Wide.objects.update(shown="x")
    shapes.Wide.objects.update(owner_id=2)

    assert told_by(ear, "owner_id") == [
        ("I", [1], {"owner_id": [1]}),
        ("U", [1], {"owner_id": [1]}),
        ("U", [1], {"owner_id": [1, 2]}),
    ]


@pytest.mark.parametrize("transport", ["outbox"])
def test_columns_option_of_the_outbox(ear: Ear, make: Callable[..., None]) -> None:
    """So it is with the outbox."""
    make(shapes.Wide)
    route(shapes.Wide, "owner_id", columns=["shown"], transport="outbox")
    shapes.Wide.objects.create(pk=1, owner_id=1)
    shapes.Wide.objects.update(hidden="x")
    shapes.Wide.objects.update(owner_id=2)

    assert ear.changes() == [("project.wide", "I", [1]), ("project.wide", "U", [1])]


def test_upgrade(ear: Ear, make: Callable[..., None], run: Callable[..., Any]) -> None:
    """Installing again brings routes to a table, others, and takes them away."""
    make(Plain)
    (bare,) = registry.build([Plain])
    outcomes = []
    for routes in ((), ("rank",), ("rank",), ("name", "rank"), ("name",), ()):
        done = installer.install(replace(bare, routes=routes), using="default")
        outcomes.append((done.action, done.was))
        run("INSERT INTO project_plain (name, rank) VALUES ('x', 1)")

    assert [each.get("r") for each in ear.payloads()] == [
        None,
        {"rank": [1]},
        {"rank": [1]},
        {"name": ["x"], "rank": [1]},
        {"name": ["x"]},
        None,
    ]
    assert outcomes == [
        (InstallAction.INSTALLED, State.MISSING),
        (InstallAction.UPDATED, State.OUTDATED),
        (InstallAction.UNCHANGED, State.OK),
        *[(InstallAction.UPDATED, State.OUTDATED)] * 3,
    ]


def test_migration(ear: Ear, make: Callable[..., None], run: Callable[..., Any]) -> None:
    """A migration that was written stays valid: it leaves what an installation leaves."""
    make(Plain)
    (wanted,) = registry.build([Plain], routes={Plain: ["rank"]})
    text = migration_file.write(
        "project", [], [(wanted, installer.target(connection, wanted), False)]
    )
    namespace: dict[str, Any] = {}
    exec(compile(text, "0002", "exec"), namespace)
    (operation,) = namespace["Migration"].operations
    for statement in operation.sql:
        run(statement)
    run("INSERT INTO project_plain (name, rank) VALUES ('x', 1)")

    assert [each["r"] for each in ear.payloads()] == [{"rank": [1]}]
    assert installer.install(wanted, using="default").action is InstallAction.UNCHANGED
    for statement in operation.reverse_sql:
        run(statement)
    assert installer.install(wanted, using="default").was is State.MISSING


def test_status_of_what_nobody_wants_now(
    command: Callable[..., tuple[int, str, str]], settings: Any
) -> None:
    """A table that was installed with routes and is observed no more is judged by its comment."""
    settings.PGOBSERVE = {"MODELS": ["auth.Group"]}
    command("install")
    route(Item, "rank")
    code, out, _ = command("status", "--json")

    assert (code, [each["state"] for each in json.loads(out)]) == (0, ["ok", "ok"])


def test_capture(ear: Ear) -> None:
    """After a block whose changes were captured, the table sends what it sent before."""
    route(Item, "rank")
    with capture_changes(Item) as changes:
        Item.objects.create(name="x", rank=7)
    Item.objects.update(rank=8)

    assert [each.action for each in changes] == ["create"]
    assert [each["r"] for each in ear.payloads()] == [{"rank": [8, 7]}]
