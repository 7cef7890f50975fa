"""An outbox that is broken, or full, never fails a write; readers learn that they begin again."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgobserve.triggers.bodies import outbox_bodies
from tests.integration.triggers.conftest import Ear, parameters
from tests.project.shapes import Plain, Raw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PLAIN = "project.plain"


@pytest.fixture(autouse=True)
def plain(make: Callable[..., None], install: Callable[..., Any]) -> None:
    """A plain table whose changes go to the outbox."""
    make(Plain)
    install(Plain)


@pytest.fixture
def transport() -> str:
    """Everything here goes to the outbox."""
    return "outbox"


@pytest.fixture
def listener(transactional_db: None) -> Iterator[Ear]:
    """Hear what is notified."""
    with contextlib.closing(Ear()) as ear:
        yield ear


@pytest.fixture
def warnings(writer: psycopg.Connection[Any]) -> list[str]:
    """What the server warns the writer of."""
    heard: list[str] = []
    writer.add_notice_handler(lambda d: heard.append(f"{d.message_primary} {d.message_hint}"))
    return heard


def _write(writer: psycopg.Connection[Any]) -> int:
    """Write in every way; return the transaction id of the last one."""
    writer.execute("INSERT INTO project_plain SELECT 1, '', 0")
    writer.execute("UPDATE project_plain SET rank = rank + 1")
    writer.execute("INSERT INTO project_plain SELECT i, '', 0 FROM generate_series(2, 900) i")
    writer.execute("DELETE FROM project_plain")
    with writer.transaction():
        writer.execute("TRUNCATE project_plain")
        (xid,) = writer.execute("SELECT pg_current_xact_id()::text::bigint").fetchone() or (0,)
    return int(xid)


BREAKAGES = [
    "DROP TABLE pgobserve.outbox",
    "DROP TABLE pgobserve.outbox_0",
    "ALTER TABLE pgobserve.outbox DETACH PARTITION pgobserve.outbox_0; DROP TABLE pgobserve.outbox_0",
    "ALTER TABLE pgobserve.outbox_0 RENAME TO away",
    "ALTER TABLE pgobserve.outbox RENAME new TO newer",
    "ALTER TABLE pgobserve.outbox DROP keys",
    "DROP TABLE pgobserve.outbox_state",
    "DROP SEQUENCE pgobserve.outbox_gate",
    "DROP FUNCTION pgobserve.outbox_mark(text, text); DROP FUNCTION pgobserve.outbox_fits(bigint, bigint)",
]


@pytest.mark.parametrize("breakage", BREAKAGES)
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_broken_storage(
    run: Callable[..., Any],
    writer: psycopg.Connection[Any],
    listener: Ear,
    warnings: list[str],
    breakage: str,
    warm: bool,
) -> None:
    """Whatever is missing, in a new session or an old one: writes go on, with a warning and a marker."""
    if warm:
        _write(writer)
    listener.texts()
    for statement in breakage.split(";"):
        run(statement)

    _write(writer)

    markers = [each for each in listener.payloads() if each["k"] is None and each["t"] == PLAIN]
    assert markers
    assert len(markers) == len(warnings)
    assert "can't write what changed in public.project_plain to the outbox" in warnings[0]
    assert warnings[0].endswith("Run manage.py pgobserve install project.Plain")


@pytest.mark.parametrize("breakage", ["ALTER TABLE pgobserve.outbox DROP keys"])
def test_lost_is_remembered(
    run: Callable[..., Any], writer: psycopg.Connection[Any], breakage: str
) -> None:
    """Where that can be kept, it is kept for readers that were not listening, too."""
    run(breakage)
    xid = _write(writer)
    ((lost,),) = run("SELECT last_value FROM pgobserve.outbox_lost")

    assert 0 < lost < xid


def test_rights_are_gone(
    run: Callable[..., Any],
    writer: psycopg.Connection[Any],
    listener: Ear,
    warnings: list[str],
) -> None:
    """The same holds if the triggers' owner may not write to the outbox any more."""
    run("CREATE ROLE powerless")
    try:
        for (function,) in run(
            "SELECT oid::regprocedure::text FROM pg_proc WHERE proname LIKE 'project_plain%'"
        ):
            run("GRANT CREATE, USAGE ON SCHEMA pgobserve TO powerless")
            run(f"ALTER FUNCTION {function} OWNER TO powerless")
        _write(writer)
    finally:
        run("DROP OWNED BY powerless CASCADE")
        run("DROP ROLE powerless")

    assert len(warnings) == 5
    assert [each["o"] for each in listener.payloads()] == ["I", "U", "I", "D", "T"]


def test_locked(
    run: Callable[..., Any], writer: psycopg.Connection[Any], listener: Ear, warnings: list[str]
) -> None:
    """A lock on the outbox that outlasts a writer's timeout fails no write."""
    writer.execute("SET lock_timeout = '20ms'")
    with psycopg.connect(**parameters()) as somebody:
        somebody.execute("LOCK TABLE pgobserve.outbox_0 IN SHARE MODE")
        writer.execute("INSERT INTO project_plain SELECT 1, '', 0")

    assert len(warnings) == 1
    assert [(each["t"], each["k"]) for each in listener.payloads()] == [(PLAIN, None)]


def test_cancelled(run: Callable[..., Any], writer: psycopg.Connection[Any]) -> None:
    """A statement that is cancelled stays cancelled."""
    writer.execute("SET statement_timeout = '100ms'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        writer.execute(
            "INSERT INTO project_plain SELECT i, '', 0 FROM generate_series(10, 3000000) i"
        )

    assert run("SELECT count(*) FROM project_plain") == [(0,)]


@pytest.fixture
def raw(run: Callable[..., Any], install: Callable[..., Any]) -> Iterator[None]:
    """A table with one row."""
    run("CREATE TABLE project_raw (id bigint PRIMARY KEY, a int)")
    install(Raw)
    run("INSERT INTO project_raw VALUES (1, 1)")
    yield
    run("DROP TABLE IF EXISTS project_raw")


@pytest.mark.usefixtures("raw")
@pytest.mark.parametrize(
    "change", ["RENAME id TO code", "DROP id", "ALTER id TYPE point USING '(1,2)'"]
)
def test_key_is_gone(
    run: Callable[..., Any],
    writer: psycopg.Connection[Any],
    listener: Ear,
    warnings: list[str],
    change: str,
) -> None:
    """Without its key column, or with one that can't be compared, a table can still be written."""
    if "point" in change:
        run("ALTER TABLE project_raw DROP CONSTRAINT project_raw_pkey")
    run(f"ALTER TABLE project_raw {change}")
    listener.texts()

    writer.execute("UPDATE project_raw SET a = 2")

    assert len(warnings) == 1
    assert [(each["t"], each["o"], each["k"]) for each in listener.payloads()] == [
        ("project.raw", "U", None)
    ]
    ((lost,),) = run("SELECT last_value FROM pgobserve.outbox_lost")
    assert lost > 0


@pytest.mark.usefixtures("raw")
def test_other_columns_come_and_go(
    run: Callable[..., Any], writer: psycopg.Connection[Any], warnings: list[str]
) -> None:
    """Columns that are no key may come, go and change within a session; images follow."""
    writer.execute("UPDATE project_raw SET a = 2")
    run("ALTER TABLE project_raw RENAME a TO b")
    writer.execute("UPDATE project_raw SET b = 3")
    run("ALTER TABLE project_raw ADD c text DEFAULT 'c'")
    writer.execute("UPDATE project_raw SET b = 4")
    run("ALTER TABLE project_raw DROP b")
    writer.execute("UPDATE project_raw SET c = 'd'")

    assert warnings == []
    assert [row for (row,) in run("SELECT new FROM pgobserve.outbox ORDER BY at")] == [
        [{"id": 1, "a": 1}],
        [{"id": 1, "a": 2}],
        [{"id": 1, "b": 3}],
        [{"id": 1, "b": 4, "c": "c"}],
        [{"id": 1, "c": "d"}],
    ]


class TestBound:
    """Without a reader or a rotation, the outbox stops growing at its limit."""

    LIMIT = 3_000_000

    @pytest.fixture(autouse=True)
    def limit(self, plain: None, run: Callable[..., Any]) -> None:
        """Let it grow to a few megabytes only."""
        run("UPDATE pgobserve.outbox_state SET max_bytes = %s", self.LIMIT)
        run("INSERT INTO project_plain VALUES (1, '', 0)")

    def _flood(self, writer: psycopg.Connection[Any], times: int) -> None:
        writer.execute(
            "DO $$ BEGIN FOR i IN 1.." + str(times) + " LOOP "
            "UPDATE project_plain SET rank = rank + 1, name = left(md5(i::text) || repeat(md5(random()::text), 40), 999); "
            "END LOOP; END $$"
        )

    def test_stops(self, run: Callable[..., Any], writer: psycopg.Connection[Any]) -> None:
        """Full, it is closed; writes go on, and the loss is remembered."""
        self._flood(writer, 3000)
        ((gate, size, rows),) = run(
            "SELECT g.last_value, pg_total_relation_size('pgobserve.outbox_0'), "
            "(SELECT count(*) FROM pgobserve.outbox) FROM pgobserve.outbox_gate g"
        )
        self._flood(writer, 1)
        ((after, lost),) = run(
            "SELECT (SELECT count(*) FROM pgobserve.outbox), last_value FROM pgobserve.outbox_lost"
        )

        assert gate == 3
        assert rows < 3000
        assert size < self.LIMIT
        assert after == rows
        assert lost > 0
        assert Plain.objects.get().rank == 3001

    def test_one_large_statement(
        self, run: Callable[..., Any], writer: psycopg.Connection[Any]
    ) -> None:
        """A statement that would not fit is not written at all, and its loss is remembered."""
        writer.execute(
            "INSERT INTO project_plain SELECT i, md5(i::text), 0 FROM generate_series(2, 30000) i"
        )
        ((rows, lost, gate),) = run(
            "SELECT (SELECT count(*) FROM pgobserve.outbox), l.last_value, g.last_value "
            "FROM pgobserve.outbox_lost l, pgobserve.outbox_gate g"
        )

        assert rows == 1
        assert lost > 0
        assert gate == 0
        assert Plain.objects.count() == 30000

    def test_rolled_back(self, run: Callable[..., Any], writer: psycopg.Connection[Any]) -> None:
        """Closing and losing hold at once, whatever becomes of the transaction."""
        with writer.transaction(force_rollback=True):
            self._flood(writer, 3000)
            self._flood(writer, 1)

        ((gate, lost),) = run(
            "SELECT g.last_value, l.last_value FROM pgobserve.outbox_gate g, pgobserve.outbox_lost l"
        )
        assert gate == 3
        assert lost > 0

    def test_no_lock_stays(self, run: Callable[..., Any], writer: psycopg.Connection[Any]) -> None:
        """Whoever closed it, or lost something, holds no lock of it until its transaction ends."""
        with writer.transaction():
            self._flood(writer, 3000)
            self._flood(writer, 1)
            locks = run(
                "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND objid >= 4 AND pid = %s",
                writer.info.backend_pid,
            )

        assert locks == []

    def test_greatest_wins(self, run: Callable[..., Any], writer: psycopg.Connection[Any]) -> None:
        """Of several losers the greatest transaction id is remembered, in whatever order they lose."""
        run("SELECT setval('pgobserve.outbox_gate', 3)")
        with psycopg.connect(**parameters()) as older:
            older.execute("SELECT pg_current_xact_id()")
            self._flood(writer, 1)
            ((first,),) = run("SELECT last_value FROM pgobserve.outbox_lost")
            older.execute("INSERT INTO project_plain VALUES (2, '', 0)")
            ((second,),) = run("SELECT last_value FROM pgobserve.outbox_lost")

        assert first == second > 0


def test_chunk_constants() -> None:
    """A chunk of small rows is cut by their number, well inside what JSON may take."""
    assert outbox_bodies.SMALL_STATEMENT_ROWS < outbox_bodies.CHUNK_ROWS
    assert outbox_bodies.CHUNK_BYTES % outbox_bodies.CHUNK_ROWS == 0
