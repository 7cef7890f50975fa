"""Roles that may connect, own tables or own types neither stop writers nor gain a right."""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.db import connection

from pgobserve.errors import TriggerError
from pgobserve.triggers.bodies import outbox_bodies, trigger_body
from pgobserve.triggers.installer import InstallAction
from pgobserve.triggers.server import outbox_storage
from pgobserve.wire import ALONE, OUTBOX_WAKE_SLOTS, TRANSPORTS
from tests.integration.triggers.conftest import Ear, parameters
from tests.project.models import Item
from tests.project.shapes import Plain, Raw, Typed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.triggers.conftest import OutboxEar

RETENTION = 3600.0

#: Names of the advisory locks that earlier versions waited for, and of those that are tried today.
LOCKS = [(ALONE.outbox_lock, number) for number in (*range(OUTBOX_WAKE_SLOTS), 16, 17)] + [
    (1885825890, 1936029302)
]


@pytest.fixture
def transport() -> str:
    """Everything here goes to the outbox."""
    return "outbox"


@pytest.fixture
def roles(run: Callable[..., Any]) -> Iterator[None]:
    """A role that may only connect, one that writes a table, and one that owns things."""
    names = ("nobody", "author", "owner")
    for name in names:
        run(f"CREATE ROLE {name}")
    run("GRANT CREATE ON DATABASE " + connection.settings_dict["NAME"] + " TO owner")
    yield
    run("RESET ROLE")
    for name in names:
        run(f"DROP OWNED BY {name} CASCADE")
        run(f"DROP ROLE {name}")


@pytest.fixture
def plain(make: Callable[..., None], install: Callable[..., Any], run: Callable[..., Any]) -> None:
    """A plain table whose changes go to the outbox."""
    make(Plain)
    install(Plain)


@pytest.fixture
def raw(run: Callable[..., Any], clean: None, roles: None) -> Iterator[None]:
    """A table that belongs to ``owner``; the test installs its triggers as a superuser."""
    run("CREATE TABLE project_raw (id bigint PRIMARY KEY, a int)")
    run("ALTER TABLE project_raw OWNER TO owner")
    run("CREATE SCHEMA evil AUTHORIZATION owner")
    yield
    run("RESET ROLE")
    run("DROP TABLE IF EXISTS project_raw CASCADE")
    run("DROP SCHEMA IF EXISTS evil CASCADE")


@contextlib.contextmanager
def locked(run: Callable[..., Any]) -> Iterator[None]:
    """Let a role that may only connect hold every advisory lock that we know of."""
    with psycopg.connect(**parameters(), autocommit=True) as nobody:
        nobody.execute("SET ROLE nobody")
        for pair in LOCKS:
            nobody.execute("SELECT pg_advisory_lock(%s, %s)", pair)
        yield


@pytest.mark.usefixtures("plain", "roles")
class TestLocks:
    """No lock that any role can take is waited for."""

    @pytest.fixture(autouse=True)
    def impatient(self, writer: psycopg.Connection[Any]) -> None:
        """End what waits."""
        writer.execute("SET statement_timeout = '20s'")

    def test_misfit(self, run: Callable[..., Any], writer: psycopg.Connection[Any]) -> None:
        """A trigger that does not fit its table notes the loss, and the write succeeds."""
        run("ALTER TABLE project_plain RENAME id TO code")
        with locked(run):
            writer.execute("INSERT INTO project_plain (code, name, rank) VALUES (1, '', 0)")
            writer.execute("UPDATE project_plain SET rank = 1")
        ((lost,),) = run("SELECT last_value FROM pgobserve.outbox_lost")

        assert lost > 0

    def test_full(self, run: Callable[..., Any], writer: psycopg.Connection[Any]) -> None:
        """The outbox is measured and closed, and writes go on."""
        run("UPDATE pgobserve.outbox_state SET max_bytes = 200000")
        with locked(run):
            writer.execute(
                "DO $$ BEGIN FOR i IN 1..2000 LOOP "
                "INSERT INTO project_plain VALUES (i, repeat(md5(i::text), 20), 0); END LOOP; END $$"
            )
        ((gate, lost),) = run(
            "SELECT g.last_value, l.last_value FROM pgobserve.outbox_gate g, pgobserve.outbox_lost l"
        )

        assert gate == 3
        assert lost > 0

    def test_rotation(self, run: Callable[..., Any]) -> None:
        """The outbox goes round."""
        Plain.objects.create(name="a")
        with locked(run):
            run("SET statement_timeout = '20s'")
            run("UPDATE pgobserve.outbox_state SET rotated_at = rotated_at - interval '2 hours'")
            try:
                steps = outbox_storage.rotate(connection, ALONE, RETENTION)
            finally:
                run("RESET statement_timeout")

        assert "advanced" in steps

    def test_install(self, run: Callable[..., Any], install: Callable[..., Any]) -> None:
        """Triggers are installed and removed."""
        with locked(run):
            (outcome,) = install(Item)

        assert outcome.action is InstallAction.INSTALLED

    def test_wake_up(self, run: Callable[..., Any], writer: psycopg.Connection[Any]) -> None:
        """A write is in the outbox, where readers look once a second, also without a wake-up."""
        with locked(run):
            writer.execute("INSERT INTO project_plain VALUES (1, '', 0)")

        assert run("SELECT count(*) FROM pgobserve.outbox") == [(1,)]

    @pytest.mark.parametrize("table", ["outbox_0", "outbox_state", "outbox_cursor"])
    def test_own_tables(
        self, run: Callable[..., Any], writer: psycopg.Connection[Any], table: str
    ) -> None:
        """No role but the owner can lock the outbox, not even by preparing a statement."""
        writer.execute("SET ROLE nobody")
        for statement in (
            f"LOCK TABLE pgobserve.{table} IN ACCESS SHARE MODE",
            f"PREPARE p AS DELETE FROM pgobserve.{table}",
            f"SELECT FROM pgobserve.{table}",
        ):
            with writer.transaction(), pytest.raises(psycopg.errors.InsufficientPrivilege):
                writer.execute(statement)


class TestEscalation:
    """What a table's or a type's owner has made never runs with the rights of the installing role."""

    CAST = (
        "CREATE TYPE evil.mood AS ENUM ('a')",
        (
            "CREATE FUNCTION evil.take(evil.mood) RETURNS json LANGUAGE plpgsql AS "
            "$$ BEGIN EXECUTE 'ALTER ROLE owner SUPERUSER'; RETURN '1'; END $$"
        ),
        "CREATE CAST (evil.mood AS json) WITH FUNCTION evil.take(evil.mood)",
        "ALTER TABLE project_raw ADD COLUMN m evil.mood DEFAULT 'a'",
    )
    DEEP = (
        *CAST[:3],
        "CREATE TYPE evil.pair AS (m evil.mood)",
        "CREATE DOMAIN evil.moods AS evil.mood[]",
        "ALTER TABLE project_raw ADD COLUMN m evil.pair DEFAULT ROW('a')",
        "ALTER TABLE project_raw ADD COLUMN n evil.moods DEFAULT '{a}'",
    )
    KEY = (
        "CREATE TYPE evil.key AS (n int)",
        (
            "CREATE FUNCTION evil.take(evil.key) RETURNS text LANGUAGE plpgsql AS "
            "$$ BEGIN EXECUTE 'ALTER ROLE owner SUPERUSER'; RETURN '1'; END $$"
        ),
        "CREATE CAST (evil.key AS text) WITH FUNCTION evil.take(evil.key) AS IMPLICIT",
        "ALTER TABLE project_raw DROP id",
        "ALTER TABLE project_raw ADD id evil.key DEFAULT ROW(1)",
    )

    @pytest.mark.parametrize("attack", [CAST, DEEP, KEY], ids=["cast", "deep", "key"])
    @pytest.mark.parametrize("rows", [1, 60, 2000])
    @pytest.mark.usefixtures("raw")
    def test_casts(
        self,
        run: Callable[..., Any],
        writer: psycopg.Connection[Any],
        install: Callable[..., Any],
        attack: tuple[str, ...],
        rows: int,
    ) -> None:
        """Casts of the owner's run as the writer, in small and in large statements."""
        install(Raw)
        run("SET ROLE owner")
        for statement in attack:
            run(statement)
        run("RESET ROLE")
        writer.execute("SET ROLE owner")
        columns = "(a) SELECT i" if attack is self.KEY else "(id, a) SELECT i, i"
        writer.execute(f"INSERT INTO project_raw {columns} FROM generate_series(1, {rows}) i")
        writer.execute("UPDATE project_raw SET a = a + 1")
        writer.execute("DELETE FROM project_raw")

        assert run("SELECT rolsuper FROM pg_roles WHERE rolname = 'owner'") == [(False,)]
        assert run("SELECT count(*) FROM project_raw") == [(0,)]

    @pytest.mark.parametrize("rows", [1, 60, 2000])
    @pytest.mark.usefixtures("raw")
    def test_types_of_others_have_images(
        self, run: Callable[..., Any], ear: OutboxEar, install: Callable[..., Any], rows: int
    ) -> None:
        """Rows with types of another role have their images, however many a statement changes."""
        install(Raw)
        run("SET ROLE owner")
        run(self.CAST[0])
        run(self.CAST[3])
        run("RESET ROLE")
        run(f"INSERT INTO project_raw SELECT i, i FROM generate_series(1, {rows}) i")
        run("UPDATE project_raw SET a = -a")
        told = ear.rows()
        run("DROP TABLE project_raw")

        assert [operation for _, operation, *_ in told] == sorted(o for _, o, *_ in told)
        assert sum(text.count('"id"') for *_, text in told if text) == 2 * rows

    @pytest.mark.usefixtures("raw")
    @pytest.mark.parametrize("transport", TRANSPORTS)
    @pytest.mark.parametrize("rows", [1, 60])
    def test_failing_cast(
        self,
        run: Callable[..., Any],
        writer: psycopg.Connection[Any],
        install: Callable[..., Any],
        rows: int,
    ) -> None:
        """An assertion that fails in a cast of a type's owner does not fail the write."""
        install(Raw)
        run("SET ROLE owner")
        run("CREATE TYPE evil.key AS (n int)")
        run(
            "CREATE FUNCTION evil.take(evil.key) RETURNS json LANGUAGE plpgsql AS "
            "$$ BEGIN ASSERT false; END $$"
        )
        run("CREATE CAST (evil.key AS json) WITH FUNCTION evil.take(evil.key)")
        run("ALTER TABLE project_raw DROP id")
        run("ALTER TABLE project_raw ADD id evil.key DEFAULT ROW(1)")
        run("RESET ROLE")
        writer.execute("SET ROLE owner")
        writer.execute(f"INSERT INTO project_raw (a) SELECT i FROM generate_series(1, {rows}) i")

        assert run("SELECT count(*) FROM project_raw") == [(rows,)]

    @pytest.mark.usefixtures("roles", "clean")
    def test_schema_that_was_there(
        self, run: Callable[..., Any], install: Callable[..., Any]
    ) -> None:
        """A schema of our name that another role made is refused, with its owner."""
        run("SET ROLE owner")
        run("CREATE SCHEMA pgobserve")
        run("RESET ROLE")
        with pytest.raises(TriggerError, match=r"schema pgobserve belongs to owner"):
            install(Item)

        assert run("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'pgobserve%'") == [(0,)]

    @pytest.mark.usefixtures("roles", "clean")
    def test_migrate_goes_on(
        self, run: Callable[..., Any], settings: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Such a schema does not stop the project's migrations; the outbox is not made in it."""
        settings.PGOBSERVE = {"TRANSPORT": "outbox", "MODELS": ["project.Item"]}
        run("SET ROLE owner")
        run("CREATE SCHEMA pgobserve")
        run("RESET ROLE")
        migration = importlib.import_module("pgobserve.migrations.0001_outbox")
        with connection.schema_editor() as editor:
            migration.create(None, editor)

        assert "schema pgobserve belongs to owner" in caplog.text
        assert run("SELECT to_regclass('pgobserve.outbox')") == [(None,)]

    @pytest.mark.usefixtures("roles", "clean")
    @pytest.mark.parametrize(
        ("statement", "found"),
        [
            ("GRANT ALL ON SCHEMA pgobserve TO PUBLIC", "every role may create in it"),
            ("GRANT CREATE ON SCHEMA pgobserve TO author", "author may create in it"),
            (
                (
                    "CREATE FUNCTION pgobserve.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; "
                    "ALTER FUNCTION pgobserve.f() OWNER TO owner"
                ),
                r"function pgobserve\.f\(\) belongs to owner",
            ),
            (
                "CREATE TABLE pgobserve.outbox (); ALTER TABLE pgobserve.outbox OWNER TO owner",
                r"table pgobserve\.outbox belongs to owner",
            ),
            (
                "CREATE TYPE pgobserve.t AS ENUM (); ALTER TYPE pgobserve.t OWNER TO owner",
                r"type pgobserve\.t belongs to owner",
            ),
        ],
    )
    def test_strangers_in_the_schema(
        self, run: Callable[..., Any], install: Callable[..., Any], statement: str, found: str
    ) -> None:
        """What others have there, or may put there, is named, and nothing is installed."""
        run("CREATE SCHEMA pgobserve")
        for each in statement.split(";"):
            run(each)
        if "OWNER TO" in statement:
            run("REVOKE CREATE ON SCHEMA pgobserve FROM owner")
        with pytest.raises(TriggerError, match=found):
            install(Item)

    @pytest.mark.usefixtures("plain")
    def test_definers(self, run: Callable[..., Any]) -> None:
        """Functions with their owner's rights have a pinned search_path, and no role may call them."""
        rows = run(
            "SELECT p.proname, p.proconfig::text, has_function_privilege('public', p.oid, 'EXECUTE') "
            "FROM pg_proc p WHERE p.pronamespace = 'pgobserve'::regnamespace AND p.prosecdef"
        )

        assert len(rows) == 5  # three that write, that of TRUNCATE, and the rotation
        assert {"search_path=pg_catalog, pg_temp" in config for _, config, _ in rows} == {True}
        assert {callable_ for *_, callable_ in rows} == {False}
        assert run(
            "SELECT has_schema_privilege('public', 'pgobserve', 'USAGE'), "
            "has_schema_privilege('public', 'pgobserve', 'CREATE')"
        ) == [(False, False)]


@pytest.mark.usefixtures("plain", "roles")
class TestForging:
    """A role that writes to a table can't forge changes."""

    @pytest.fixture(autouse=True)
    def author(
        self, plain: None, roles: None, run: Callable[..., Any], writer: psycopg.Connection[Any]
    ) -> None:
        """Write as a role that may do that and nothing else."""
        run("GRANT INSERT, UPDATE (rank), DELETE ON project_plain TO author")
        run("GRANT SELECT (id, rank) ON project_plain TO author")
        run("INSERT INTO project_plain VALUES (1, 'secret', 0)")
        writer.execute("SET ROLE author")

    FORGED = (
        """[1]\\x1f[{"id":1,"name":"forged","rank":9}]\\x1f[{"id":1,"name":"forged","rank":9}]"""
    )

    @pytest.mark.parametrize("mute", ["", "on", "mark"])
    def test_setting(
        self, run: Callable[..., Any], writer: psycopg.Connection[Any], mute: str
    ) -> None:
        """What a session puts where one trigger leaves images for the other is not taken over."""
        writer.execute(f"SET pgobserve.images = E'{self.FORGED}'")
        writer.execute(f"SET pgobserve.mute = '{mute}'")
        writer.execute("UPDATE project_plain SET rank = rank WHERE id = 1")
        writer.execute("UPDATE project_plain SET rank = 1 WHERE false")
        writer.execute("UPDATE project_plain SET rank = 2 WHERE id = 1")
        writer.execute("INSERT INTO project_plain VALUES (2, '', 0)")
        writer.execute("DELETE FROM project_plain WHERE id = 2")
        texts = run("SELECT concat(keys, old, new) FROM pgobserve.outbox")

        assert not any("forged" in text for (text,) in texts)

    def test_default(self, run: Callable[..., Any]) -> None:
        """Nor is a default that the role has given itself."""
        run(f"ALTER ROLE author SET pgobserve.images = E'{self.FORGED}'")
        run("ALTER ROLE author LOGIN PASSWORD 'x'")
        with psycopg.connect(
            **{**parameters(), "user": "author", "password": "x"}, autocommit=True
        ) as author:
            author.execute("UPDATE project_plain SET rank = rank WHERE id = 1")
        texts = run("SELECT concat(keys, old, new) FROM pgobserve.outbox")

        assert not any("forged" in text for (text,) in texts)

    def test_failed(self, run: Callable[..., Any], writer: psycopg.Connection[Any]) -> None:
        """Nor where images could not be made."""
        run("ALTER TABLE project_plain RENAME id TO code")
        writer.execute(f"SET pgobserve.images = E'{self.FORGED}'")
        writer.execute("UPDATE project_plain SET rank = 3")
        texts = run("SELECT concat(keys, old, new) FROM pgobserve.outbox WHERE op = 'U'")

        assert texts == []

    def test_nothing_is_left_to_see(self, writer: psycopg.Connection[Any]) -> None:
        """Columns that the writer may not read are not in its session afterwards."""
        with writer.transaction():
            writer.execute("UPDATE project_plain SET rank = 4 WHERE id = 1")
            left = writer.execute("SELECT current_setting('pgobserve.images', true)").fetchone()
            with pytest.raises(psycopg.errors.InsufficientPrivilege), writer.transaction():
                writer.execute("SELECT name FROM project_plain")

        assert left == ("",)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize(
    "setting",
    [
        "plpgsql.extra_errors = 'all'",
        "check_function_bodies = off",
        "row_security = off",
        "lock_timeout = '1ms'",
        "search_path = ''",
        "DateStyle = 'SQL, DMY'",
        "standard_conforming_strings = off",
        "bytea_output = 'escape'",
        "default_transaction_isolation = 'serializable'",
        "array_nulls = off",
        "client_encoding = 'LATIN1'",
    ],
)
def test_odd_settings(
    run: Callable[..., Any], writer: psycopg.Connection[Any], setting: str
) -> None:
    """Whatever a session has set, its writes succeed, are sent, and cause no warning."""
    warnings: list[str] = []
    writer.add_notice_handler(lambda d: warnings.append(str(d.message_primary)))
    writer.execute(f"SET {setting}")
    table = "public.project_plain"
    writer.execute(f"INSERT INTO {table} VALUES (1, '', 0)")
    writer.execute(f"UPDATE {table} SET rank = 1")
    writer.execute(f"INSERT INTO {table} SELECT i, '', 0 FROM generate_series(2, 200) i")
    writer.execute(f"DELETE FROM {table}")
    writer.execute(f"TRUNCATE {table}")
    told = run("SELECT op, sum(json_array_length(keys)) FROM pgobserve.outbox GROUP BY op")

    assert warnings == []
    assert sorted(told) == [("D", 200), ("I", 200), ("T", None), ("U", 1)]


@pytest.mark.usefixtures("plain")
def test_rotation_is_not_waited_for(run: Callable[..., Any]) -> None:
    """A session that rotates, and stays in its transaction, keeps no writer waiting that loses."""
    with psycopg.connect(**parameters()) as other:
        other.execute("SELECT pgobserve.outbox_rotate(0)")
        run("SET statement_timeout = '20s'")
        try:
            run("SELECT setval('pgobserve.outbox_gate', 3)")
            Plain.objects.create(name="lost")
        finally:
            run("RESET statement_timeout")
    ((lost,),) = run("SELECT last_value FROM pgobserve.outbox_lost")

    assert lost > 0


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_full_queue(
    make: Callable[..., None],
    install: Callable[..., Any],
    run: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    transport: str,
) -> None:
    """Once the notification queue is as full as it may be, triggers keep silent and writes go on."""
    for module in (trigger_body, outbox_bodies):
        monkeypatch.setattr(module, "QUEUE_FULL", 0.0)
    make(Plain)
    install(Plain)
    with contextlib.closing(Ear()) as listener:
        row = Plain.objects.create(name="a")
        run("UPDATE project_plain SET rank = 1")
        run("ALTER TABLE project_plain RENAME id TO code")
        run("UPDATE project_plain SET rank = 2")
        run("ALTER TABLE project_plain RENAME code TO id")
        run("TRUNCATE project_plain")
        heard = listener.texts()

    assert row.pk
    assert heard == []


@pytest.mark.parametrize(
    "setting",
    [
        "DateStyle = 'SQL, DMY'",
        "IntervalStyle = 'sql_standard'",
        "extra_float_digits = -15",
        "bytea_output = 'escape'",
    ],
)
@pytest.mark.parametrize("rows", [1, 60])
def test_images_are_the_rows(
    make: Callable[..., None],
    install: Callable[..., Any],
    writer: psycopg.Connection[Any],
    run: Callable[..., Any],
    setting: str,
    rows: int,
) -> None:
    """What a session has set changes no value in a row image."""
    make(Typed)
    install(Typed)
    writer.execute(f"SET {setting}")
    writer.execute(
        "INSERT INTO project_typed SELECT i, 0.1::float8 + 0.2::float8, '-1 day -02:03:04', "
        "'\\x005c27ff', '[2024-02-03,2024-11-12)' FROM generate_series(1, %s) i",
        [rows],
    )
    ((image,),) = run("SELECT new->0 FROM pgobserve.outbox LIMIT 1")

    del image["id"]
    assert image == {
        "ratio": 0.30000000000000004,
        "took": "-1 days -02:03:04",
        "raw": "\\x005c27ff",
        "days": "[2024-02-03,2024-11-12)",
    }
