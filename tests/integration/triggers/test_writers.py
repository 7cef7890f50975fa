"""Every way to write a row fires the triggers, for every role."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.db import connection, transaction

from tests.integration.triggers.conftest import by_each_transport, parameters
from tests.project.shapes import Child, Parent, Plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.triggers.conftest import Ear

PLAIN = "project.plain"


@pytest.fixture(autouse=True)
def plain(make: Callable[..., None], install: Callable[..., Any]) -> None:
    """A plain table with its triggers."""
    make(Plain)
    install(Plain)


def _insert(writer: psycopg.Connection[Any], key: int, rank: int = 0) -> None:
    writer.execute("INSERT INTO project_plain (id, name, rank) VALUES (%s, '', %s)", [key, rank])


@by_each_transport
def test_insert(ear: Ear, writer: psycopg.Connection[Any]) -> None:
    """One INSERT is one payload with all its keys."""
    writer.execute("INSERT INTO project_plain (id, name, rank) VALUES (1, '', 0), (2, '', 0)")

    assert ear.changes() == [(PLAIN, "I", [1, 2])]


@by_each_transport
def test_update(ear: Ear, writer: psycopg.Connection[Any]) -> None:
    """An UPDATE names the rows that it changed."""
    for key in (1, 2, 3):
        _insert(writer, key, rank=key)
    ear.texts()

    writer.execute("UPDATE project_plain SET rank = 2")

    assert ear.changes() == [(PLAIN, "U", [1, 3])]


@by_each_transport
def test_delete(ear: Ear, writer: psycopg.Connection[Any]) -> None:
    """A DELETE names the rows that are gone."""
    _insert(writer, 1)
    _insert(writer, 2)
    ear.texts()

    writer.execute("DELETE FROM project_plain")

    assert ear.changes() == [(PLAIN, "D", [1, 2])]


@by_each_transport
def test_truncate(ear: Ear, writer: psycopg.Connection[Any]) -> None:
    """TRUNCATE marks the whole table."""
    writer.execute("TRUNCATE project_plain")

    assert ear.changes() == [(PLAIN, "T", None)]


@by_each_transport
@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO project_plain SELECT 1, '', 0 WHERE false",
        "UPDATE project_plain SET rank = 1 WHERE false",
        "DELETE FROM project_plain WHERE false",
        "COPY project_plain FROM '/dev/null'",
    ],
)
def test_no_row(ear: Ear, writer: psycopg.Connection[Any], statement: str) -> None:
    """A statement that touches no row is silent, and takes no transaction id."""
    with writer.transaction():
        writer.execute(statement)
        xid = writer.execute("SELECT pg_current_xact_id_if_assigned()").fetchone()

    assert ear.texts() == []
    if not statement.startswith("COPY"):
        assert xid == (None,)


def test_payload_names_the_transaction(ear: Ear, writer: psycopg.Connection[Any]) -> None:
    """The payload carries version, label, operation, top-level transaction id and keys."""
    with writer.transaction():
        row = writer.execute("SELECT pg_current_xact_id()::text").fetchone()
        assert row is not None
        with writer.transaction():  # a savepoint
            _insert(writer, 1)

    assert ear.texts() == [f'{{"v":1,"t":"project.plain","o":"I","x":"{row[0]}","k":[1]}}']


@by_each_transport
def test_on_conflict_do_update(ear: Ear, writer: psycopg.Connection[Any]) -> None:
    """An upsert sends which rows it changed and which it made."""
    _insert(writer, 1)
    ear.texts()

    writer.execute(
        "INSERT INTO project_plain (id, name, rank) VALUES (1, '', 5), (2, '', 5) "
        "ON CONFLICT (id) DO UPDATE SET rank = excluded.rank"
    )

    assert sorted(ear.changes()) == [(PLAIN, "I", [2]), (PLAIN, "U", [1])]


@by_each_transport
def test_on_conflict_do_nothing(ear: Ear, writer: psycopg.Connection[Any]) -> None:
    """Rows that an INSERT leaves alone are not sent."""
    _insert(writer, 1)
    ear.texts()

    upsert = "INSERT INTO project_plain (id, name, rank) VALUES (%s, '', 5) ON CONFLICT DO NOTHING"
    writer.execute(upsert, [1])

    assert ear.texts() == []


@by_each_transport
def test_merge(ear: Ear, writer: psycopg.Connection[Any]) -> None:
    """MERGE sends each kind of action it took."""
    if writer.info.server_version < 150000:
        pytest.skip("MERGE came with PostgreSQL 15")
    for key in (1, 2, 3):
        _insert(writer, key, rank=key)
    ear.texts()

    writer.execute(
        "MERGE INTO project_plain i USING (VALUES (1, 9), (2, 0), (4, 4)) s(id, rank) ON i.id = s.id "
        "WHEN MATCHED AND s.rank = 0 THEN DELETE "
        "WHEN MATCHED THEN UPDATE SET rank = s.rank "
        "WHEN NOT MATCHED THEN INSERT (id, name, rank) VALUES (s.id, '', s.rank)"
    )

    assert sorted(ear.changes()) == [(PLAIN, "D", [2]), (PLAIN, "I", [4]), (PLAIN, "U", [1])]


@by_each_transport
def test_data_modifying_cte(ear: Ear, writer: psycopg.Connection[Any]) -> None:
    """Each modifying part of a WITH is sent."""
    _insert(writer, 1)
    _insert(writer, 2)
    ear.texts()

    writer.execute(
        "WITH gone AS (DELETE FROM project_plain WHERE id = 1 RETURNING *), "
        "more AS (INSERT INTO project_plain (id, name, rank) SELECT id + 10, name, rank FROM gone) "
        "UPDATE project_plain SET rank = 7 WHERE id = 2"
    )

    assert sorted(ear.changes()) == [(PLAIN, "D", [1]), (PLAIN, "I", [11]), (PLAIN, "U", [2])]


@by_each_transport
def test_copy(ear: Ear, writer: psycopg.Connection[Any]) -> None:
    """COPY is sent as an INSERT."""
    with writer.cursor() as cursor, cursor.copy("COPY project_plain FROM STDIN") as copy:
        for key in (1, 2):
            copy.write_row((key, "", 0))

    assert ear.changes() == [(PLAIN, "I", [1, 2])]


@pytest.fixture
def family(run: Callable[..., Any], install: Callable[..., Any]) -> Iterator[None]:
    """Two tables with a cascade of the database's between them."""
    run("CREATE TABLE project_parent (id bigint PRIMARY KEY)")
    run(
        "CREATE TABLE project_child (id bigint PRIMARY KEY, parent_id bigint REFERENCES "
        "project_parent ON DELETE CASCADE ON UPDATE CASCADE)"
    )
    install(Parent, Child)
    yield
    run("DROP TABLE project_child, project_parent")


@by_each_transport
@pytest.mark.usefixtures("family")
def test_cascade(ear: Ear, writer: psycopg.Connection[Any]) -> None:
    """A cascade sends the rows of the other table too."""
    writer.execute("INSERT INTO project_parent VALUES (1), (2)")
    writer.execute("INSERT INTO project_child VALUES (10, 1), (11, 1), (12, 2)")
    ear.texts()

    writer.execute("UPDATE project_parent SET id = 3 WHERE id = 2")
    writer.execute("DELETE FROM project_parent")

    assert sorted(ear.changes()) == [
        ("project.child", "D", [10, 11, 12]),
        ("project.child", "U", [12]),
        ("project.parent", "D", [1, 3]),
        ("project.parent", "U", [2, 3]),
    ]


@by_each_transport
def test_django(ear: Ear) -> None:
    """Each of Django's ways to write is sent, those without a signal included."""
    first = Plain.objects.create(name="a")
    second, third = Plain.objects.bulk_create([Plain(name="b"), Plain(name="c")])
    first.rank = 1
    first.save()
    second.rank = third.rank = 2
    Plain.objects.bulk_update([second, third], ["rank"])
    Plain.objects.filter(pk=first.pk).update(rank=3)
    Plain.objects.filter(pk=first.pk)._raw_delete("default")
    key = second.pk
    second.delete()

    assert ear.changes() == [
        (PLAIN, "I", [first.pk]),
        (PLAIN, "I", [key, third.pk]),
        (PLAIN, "U", [first.pk]),
        (PLAIN, "U", [key, third.pk]),
        (PLAIN, "U", [first.pk]),
        (PLAIN, "D", [first.pk]),
        (PLAIN, "D", [key]),
    ]


@by_each_transport
def test_rolled_back(ear: Ear) -> None:
    """What is rolled back is silent, to a savepoint or altogether."""
    with transaction.atomic():
        kept = Plain.objects.create(name="kept")
        with transaction.atomic():  # a savepoint
            Plain.objects.create(name="lost")
            transaction.set_rollback(True)
    with transaction.atomic():
        Plain.objects.create(name="lost")
        transaction.set_rollback(True)

    assert ear.changes() == [(PLAIN, "I", [kept.pk])]


def test_many_writes_of_one_row_in_a_transaction(ear: Ear) -> None:
    """Ten updates of a row in one transaction are one payload."""
    row = Plain.objects.create(name="")
    ear.texts()

    with transaction.atomic():
        for rank in range(1, 11):
            Plain.objects.filter(pk=row.pk).update(rank=rank)

    assert ear.changes() == [(PLAIN, "U", [row.pk])]


@by_each_transport
def test_another_search_path(ear: Ear, writer: psycopg.Connection[Any]) -> None:
    """A writer's search_path, and what it finds there under our names, changes nothing."""
    with writer.transaction(force_rollback=False):
        writer.execute("CREATE SCHEMA trap")
        writer.execute(
            "CREATE FUNCTION trap.pg_notify(text, text) RETURNS void LANGUAGE sql "
            "AS 'SELECT 1/0; SELECT'"
        )
        writer.execute(
            "CREATE FUNCTION trap.no(bigint, bigint) RETURNS bool LANGUAGE sql AS 'SELECT false'"
        )
        writer.execute(
            "CREATE OPERATOR trap.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = trap.no)"
        )
        writer.execute("CREATE TABLE trap.pgobserve_new (id bigint)")
    try:
        writer.execute("SET search_path = trap, pg_catalog")
        writer.execute("INSERT INTO public.project_plain (id, name, rank) VALUES (1, '', 0)")
        writer.execute("UPDATE public.project_plain SET rank = 1")
        writer.execute("UPDATE public.project_plain SET rank = 1")
    finally:
        writer.execute("RESET search_path")
        writer.execute("DROP SCHEMA trap CASCADE")

    assert ear.changes() == [(PLAIN, "I", [1]), (PLAIN, "U", [1])]


@pytest.fixture
def stranger(run: Callable[..., Any], writer: psycopg.Connection[Any]) -> Iterator[str]:
    """A role with rights on one table, and none in our schema."""
    run("CREATE ROLE stranger")
    run("GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON project_plain TO stranger")
    yield "stranger"
    run("DROP OWNED BY stranger")
    run("DROP ROLE stranger")


@by_each_transport
def test_role_with_rights_on_the_table_alone(
    ear: Ear, writer: psycopg.Connection[Any], stranger: str
) -> None:
    """A role that may only write to the table fires the triggers like any other."""
    writer.execute(f"SET ROLE {stranger}")
    _insert(writer, 1)
    writer.execute("UPDATE project_plain SET rank = 1")
    writer.execute("DELETE FROM project_plain")
    writer.execute("TRUNCATE project_plain")
    writer.execute("RESET ROLE")

    assert ear.changes() == [
        (PLAIN, "I", [1]),
        (PLAIN, "U", [1]),
        (PLAIN, "D", [1]),
        (PLAIN, "T", None),
    ]


@by_each_transport
def test_replication_is_silent_by_default(ear: Ear, writer: psycopg.Connection[Any]) -> None:
    """Under session_replication_role = replica ordinary triggers do not fire."""
    writer.execute("SET session_replication_role = replica")
    _insert(writer, 1)

    assert ear.texts() == []


@by_each_transport
def test_always(ear: Ear, writer: psycopg.Connection[Any], install: Callable[..., Any]) -> None:
    """Installed with ``always`` they fire there, too."""
    install(Plain, always=True)
    writer.execute("SET session_replication_role = replica")
    _insert(writer, 1)
    writer.execute("UPDATE project_plain SET rank = 1")
    writer.execute("DELETE FROM project_plain")
    writer.execute("TRUNCATE project_plain")

    assert [operation for _, operation, _ in ear.changes()] == ["I", "U", "D", "T"]


@by_each_transport
def test_own_triggers(ear: Ear, writer: psycopg.Connection[Any], run: Callable[..., Any]) -> None:
    """A table's own triggers continue to work, and their changes are sent."""
    run(
        "CREATE FUNCTION bump() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN NEW.rank := NEW.rank + 1; RETURN NEW; END'"
    )
    run(
        "CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN UPDATE project_plain SET name = ''seen'' WHERE name = ''''; RETURN NULL; END'"
    )
    run("CREATE TRIGGER bump BEFORE UPDATE ON project_plain FOR EACH ROW EXECUTE FUNCTION bump()")
    run("CREATE TRIGGER zz AFTER INSERT ON project_plain FOR EACH ROW EXECUTE FUNCTION follow()")
    try:
        _insert(writer, 1)
        writer.execute("UPDATE project_plain SET rank = rank - 1")
    finally:
        run("DROP FUNCTION bump, follow CASCADE")

    assert sorted(ear.changes()) == [(PLAIN, "I", [1]), (PLAIN, "U", [1])]


def test_prepared_transaction_needs_mute(ear: Ear) -> None:
    """PostgreSQL refuses to prepare a transaction that notified; a muted one it prepares."""
    with contextlib.closing(psycopg.connect(**parameters())) as writer:
        if writer.execute("SHOW max_prepared_transactions").fetchone() == ("0",):
            pytest.skip("the server allows no prepared transactions")
        writer.rollback()
        writer.tpc_begin(writer.xid(1, "loud", ""))
        _insert(writer, 1)
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="cannot PREPARE"):
            writer.tpc_prepare()
    with contextlib.closing(psycopg.connect(**parameters())) as writer:
        writer.tpc_begin(writer.xid(1, "muted", ""))
        writer.execute("SET LOCAL pgobserve.mute = 'on'")
        _insert(writer, 1)
        writer.tpc_prepare()
        writer.tpc_commit()

    assert ear.texts() == []
    assert Plain.objects.filter(pk=1).exists()


def test_notifications_are_per_database(ear: Ear, writer: psycopg.Connection[Any]) -> None:
    """Another database of the same server hears nothing."""
    other = {**parameters(), "dbname": "postgres"}
    with psycopg.connect(**other, autocommit=True) as elsewhere:
        elsewhere.execute("LISTEN pgobserve")
        _insert(writer, 1)
        assert len(ear.texts()) == 1
        elsewhere.execute("SELECT pg_notify('pgobserve', 'mark')")
        heard = [note.payload for note in elsewhere.notifies(timeout=60, stop_after=1)]

    assert heard == ["mark"]
    assert connection.settings_dict["NAME"] != "postgres"
