"""What the triggers write to the outbox: rows as they were and are, in order, for no strange eyes."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.db import connection, transaction

from pgobserve.triggers.bodies import outbox_bodies
from pgobserve.wire import ALONE, OUTBOX_WAKE_UP
from tests.integration.triggers.conftest import Ear, OutboxEar, parameters
from tests.project import shapes
from tests.project.shapes import Plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PLAIN = "project.plain"


@pytest.fixture
def transport() -> str:
    """Everything here goes to the outbox."""
    return "outbox"


@pytest.fixture(autouse=True)
def plain(make: Callable[..., None], install: Callable[..., Any]) -> None:
    """A plain table with its triggers."""
    make(Plain)
    install(Plain)


def _entries(ear: Ear) -> list[tuple[str, Any, Any, Any]]:
    """Return (operation, key, old, new) of each row that changed until now."""
    assert isinstance(ear, OutboxEar)
    entries = []
    for _, op, _, *images in ear.rows():
        keys, old, new = (None if image is None else json.loads(image) for image in images)
        nothing = [None] * len(keys)
        entries += [(op, *each) for each in zip(keys, old or nothing, new or nothing, strict=True)]
    return entries


def test_images(ear: Ear) -> None:
    """Each changed row is there as it was and as it is, under its key."""
    row = Plain.objects.create(name="a", rank=1)
    Plain.objects.update(rank=2)
    Plain.objects.all().delete()

    a = {"id": row.pk, "name": "a", "rank": 1}
    b = {**a, "rank": 2}
    assert _entries(ear) == [("I", row.pk, None, a), ("U", row.pk, a, b), ("D", row.pk, b, None)]


def test_changed_key(ear: Ear) -> None:
    """A changed key is two entries: the old key lost its row, the new one got it."""
    row = Plain.objects.create(name="a")
    ear.texts()
    Plain.objects.update(id=row.pk + 1)

    a = {"id": row.pk, "name": "a", "rank": 0}
    b = {**a, "id": row.pk + 1}
    assert sorted(_entries(ear), key=lambda each: each[1]) == [
        ("U", row.pk, a, None),
        ("U", row.pk + 1, None, b),
    ]


def test_order_within_a_transaction(ear: Ear) -> None:
    """The statements of a transaction are in their order, and carry its one id."""
    with transaction.atomic():
        row = Plain.objects.create(name="a")
        with transaction.atomic():
            Plain.objects.update(rank=1)
        Plain.objects.update(rank=2)
        Plain.objects.all().delete()
        Plain.objects.create(pk=row.pk, name="b")

    assert isinstance(ear, OutboxEar)
    rows = ear.rows()
    assert [op for _, op, *_ in rows] == ["I", "U", "U", "D", "I"]
    assert len({xid for _, _, xid, *_ in rows}) == 1


def test_one_transaction_id(run: Callable[..., Any], writer: psycopg.Connection[Any]) -> None:
    """A statement of a few rows takes no transaction id of its own."""

    def taken() -> int:
        with writer.transaction():
            (first,) = writer.execute("SELECT pg_current_xact_id()::text::bigint").fetchone() or (
                0,
            )
            for rank in range(100):
                writer.execute("INSERT INTO project_plain (name, rank) VALUES ('', %s)", [rank])
        ((last,),) = run("SELECT pg_current_xact_id()::text::bigint")
        return int(last - first)

    # Autovacuum may take one meanwhile, hardly each time.
    assert any(taken() == 1 for _ in range(3))


def test_users_last_value(writer: psycopg.Connection[Any]) -> None:
    """``lastval()`` is the user's own: nothing of ours draws from a sequence."""
    writer.execute("INSERT INTO project_plain (name, rank) VALUES ('', 0)")
    last = writer.execute("SELECT lastval(), max(id) FROM project_plain").fetchone()

    assert last is not None
    assert last[0] == last[1]


@pytest.mark.parametrize("operation", ["I", "U", "D"])
def test_many_rows(ear: Ear, run: Callable[..., Any], operation: str) -> None:
    """A statement of many rows is cut into chunks, in which each row is once."""
    assert isinstance(ear, OutboxEar)
    count = 3 * outbox_bodies.CHUNK_ROWS + 7
    run(f"INSERT INTO project_plain SELECT i, '', 0 FROM generate_series(1, {count}) i")
    run("UPDATE project_plain SET rank = id")
    run("DELETE FROM project_plain")

    chunks = [json.loads(keys) for _, op, _, keys, *_ in ear.rows() if op == operation]
    assert sorted(key for chunk in chunks for key in chunk) == list(range(1, count + 1))
    assert [len(chunk) <= outbox_bodies.CHUNK_ROWS for chunk in chunks] == [True] * 4


def test_images_of_many_rows(ear: Ear, run: Callable[..., Any]) -> None:
    """In the chunks, too, key, old and new row stand at the same place."""
    run("INSERT INTO project_plain SELECT i, i::text, 0 FROM generate_series(1, 1200) i")
    ear.texts()
    run("UPDATE project_plain SET rank = id * 2")

    entries = _entries(ear)
    assert len(entries) == 1200
    for _, key, old, new in entries:
        assert old == {"id": key, "name": str(key), "rank": 0}
        assert new == {"id": key, "name": str(key), "rank": key * 2}


@pytest.mark.parametrize(
    "count", [3, outbox_bodies.SMALL_STATEMENT_ROWS, outbox_bodies.SMALL_STATEMENT_ROWS + 1]
)
def test_large_rows(ear: Ear, run: Callable[..., Any], count: int) -> None:
    """Large rows are cut by their size: no image of a chunk goes far beyond the limit."""
    assert isinstance(ear, OutboxEar)
    size = outbox_bodies.CHUNK_BYTES // 2
    run(
        f"INSERT INTO project_plain SELECT i, repeat('x', {size}), 0 FROM generate_series(1, {count}) i"
    )

    rows = ear.rows()
    assert sum(len(json.loads(keys)) for *_, keys, _, _ in rows) == count
    assert max(len(new) for *_, new in rows) <= outbox_bodies.CHUNK_BYTES + size + 1000


def test_types(ear: Ear, run: Callable[..., Any], install: Callable[..., Any]) -> None:
    """Values of any type are in the image, exact and readable back into the row's type; JSON as text."""
    run(
        "CREATE TABLE project_raw (id bigint PRIMARY KEY, amount numeric, big bigint, facts json, "
        "moment timestamptz, many text[], bytes bytea, span interval, place point)"
    )
    run(
        "CREATE TABLE project_copy (LIKE project_raw)",
    )
    try:
        install(shapes.Raw)
        run(
            "INSERT INTO project_raw VALUES (1, 0.10, 9223372036854775807, %s, now(), '{a,NULL}', "
            "'\\x00ff', '1 day 2 hours', '(1,2)')",
            '{"b": 1, "a": 1e400}',
        )
        run(
            "INSERT INTO project_copy SELECT r.* FROM pgobserve.outbox o, "
            "json_populate_recordset(NULL::project_raw, o.new) r"
        )
        assert run(
            "SELECT to_jsonb(c) - 'facts' = to_jsonb(r) - 'facts', c.facts #>> '{}' = r.facts::text "
            "FROM project_copy c, project_raw r"
        ) == [(True, True)]
    finally:
        run("DROP TABLE project_raw, project_copy")


class TestWakeUp:
    """The NOTIFY that wakes readers."""

    @pytest.fixture
    def listener(self, transactional_db: None) -> Iterator[Ear]:
        """Hear what is notified."""
        with contextlib.closing(Ear()) as ear:
            yield ear

    def test_constant(self, listener: Ear) -> None:
        """A transaction of many statements sends one constant text."""
        with transaction.atomic():
            row = Plain.objects.create(name="a")
            Plain.objects.filter(pk=row.pk).update(rank=1)
            row.delete()

        assert listener.texts() == [OUTBOX_WAKE_UP]

    def test_nothing_changed(self, listener: Ear, run: Callable[..., Any]) -> None:
        """A statement that changes nothing wakes no reader, and writes nothing."""
        Plain.objects.update(rank=1)
        row = Plain.objects.create(name="a", rank=1)
        listener.texts()
        Plain.objects.filter(pk=row.pk).update(rank=1)

        assert listener.texts() == []
        assert run("SELECT count(*) FROM pgobserve.outbox") == [(1,)]

    def test_gate(self, listener: Ear, writer: psycopg.Connection[Any]) -> None:
        """While writers that have notified are at work, others do not notify."""
        with contextlib.ExitStack() as stack:
            for number in range(40):  # more than there are slots
                busy = stack.enter_context(psycopg.connect(**parameters()))
                busy.execute("INSERT INTO project_plain (name, rank) VALUES ('', 0)")
                if number >= 8:
                    break
            writer.execute("INSERT INTO project_plain (name, rank) VALUES ('', 0)")
            assert listener.texts() == []

        assert set(listener.texts()) == {OUTBOX_WAKE_UP}

    def test_poll(
        self, listener: Ear, install: Callable[..., Any], run: Callable[..., Any]
    ) -> None:
        """Where readers poll, nothing is notified."""
        from pgobserve.triggers import installer, registry

        (registration,) = registry.build([Plain], transport="outbox", wake="poll")
        installer.install(registration, using="default")
        Plain.objects.create(name="a")

        assert listener.texts() == []
        assert run("SELECT count(*) FROM pgobserve.outbox") == [(1,)]

    def test_poll_lets_transactions_be_prepared(self, run: Callable[..., Any]) -> None:
        """Then a transaction can be prepared, and is in the outbox once it is committed."""
        from pgobserve.triggers import installer, registry

        (registration,) = registry.build([Plain], transport="outbox", wake="poll")
        installer.install(registration, using="default")
        with contextlib.closing(psycopg.connect(**parameters())) as writer:
            if writer.execute("SHOW max_prepared_transactions").fetchone() == ("0",):
                pytest.skip("the server allows no prepared transactions")
            writer.rollback()
            writer.tpc_begin(writer.xid(1, "outbox", ""))
            writer.execute("INSERT INTO project_plain (name, rank) VALUES ('', 0)")
            writer.tpc_prepare()
            assert run("SELECT count(*) FROM pgobserve.outbox") == [(0,)]
            writer.tpc_commit()

        assert run("SELECT count(*) FROM pgobserve.outbox") == [(1,)]


@pytest.fixture
def stranger(run: Callable[..., Any], writer: psycopg.Connection[Any]) -> Iterator[str]:
    """A role with rights on one table, and none in our schema."""
    run("CREATE ROLE stranger")
    run("GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON project_plain TO stranger")
    yield "stranger"
    writer.execute("RESET ROLE")
    run("DROP OWNED BY stranger")
    run("DROP ROLE stranger")


class TestPrivileges:
    """Who writes needs no right on the outbox, and gets none."""

    @pytest.mark.parametrize("name", ["outbox", "outbox_0", "outbox_state", "outbox_gate"])
    @pytest.mark.parametrize("usage", [False, True])
    def test_reading(
        self,
        run: Callable[..., Any],
        writer: psycopg.Connection[Any],
        stranger: str,
        name: str,
        usage: bool,
    ) -> None:
        """A role without the right can't read row images, not even with USAGE on the schema."""
        if usage:
            run(f"GRANT USAGE ON SCHEMA pgobserve TO {stranger}")
        writer.execute(f"SET ROLE {stranger}")
        writer.execute("INSERT INTO project_plain (id, name, rank) VALUES (1, '', 0)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            writer.execute(f"SELECT * FROM pgobserve.{name}")

    def test_forging(
        self, run: Callable[..., Any], writer: psycopg.Connection[Any], stranger: str
    ) -> None:
        """Nor can it hang our trigger functions on a table of its own, to write what it likes."""
        run(f"GRANT USAGE ON SCHEMA pgobserve TO {stranger}")
        run(f"GRANT CREATE ON SCHEMA public TO {stranger}")
        ((function,),) = run("SELECT proname FROM pg_proc WHERE proname LIKE 'project_plain%\\_i'")
        writer.execute(f"SET ROLE {stranger}")
        writer.execute("CREATE TABLE forgery (id bigint, name text, rank int)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            writer.execute(
                "CREATE TRIGGER t AFTER INSERT ON forgery REFERENCING NEW TABLE AS pgobserve_new "
                f'FOR EACH STATEMENT EXECUTE FUNCTION pgobserve."{function}"()'
            )

    @pytest.mark.parametrize(
        "call", ["outbox_lose()", "outbox_mark('a.b', 'T')", "outbox_rotate(0)", "outbox_turn(1)"]
    )
    def test_functions(
        self, run: Callable[..., Any], writer: psycopg.Connection[Any], stranger: str, call: str
    ) -> None:
        """Nor can it call what is for us alone."""
        run(f"GRANT USAGE ON SCHEMA pgobserve TO {stranger}")
        writer.execute(f"SET ROLE {stranger}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            writer.execute(f"SELECT pgobserve.{call}")

    def test_muted_by_a_stranger(
        self, ear: Ear, writer: psycopg.Connection[Any], stranger: str
    ) -> None:
        """``muted`` can mark the table without a right on the outbox."""
        from pgobserve.mute import muted

        with connection.cursor() as cursor:
            cursor.execute(f"SET ROLE {stranger}")
        try:
            with muted(Plain):
                Plain.objects.filter(name="x").delete()
        finally:
            with connection.cursor() as cursor:
                cursor.execute("RESET ROLE")

        assert ear.changes() == [(PLAIN, "U", None)]


def test_channel_is_ours() -> None:
    """The wake-up is a payload of ours, about no table."""
    assert json.loads(OUTBOX_WAKE_UP) == {
        "v": 1,
        "t": "pgobserve.outbox",
        "o": "I",
        "x": "0",
        "k": None,
    }
    assert ALONE.channel == "pgobserve"
