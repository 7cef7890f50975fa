"""Installing and removing: idempotent, with few locks, all or nothing, and ours alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.db import connection, transaction

from pgobserve.errors import TriggerError
from pgobserve.triggers import installer, registry, trigger_statements
from pgobserve.triggers.installer import InstallAction
from pgobserve.triggers.server import catalog
from pgobserve.wire import ALONE
from tests.integration.conftest import ANNOUNCEMENTS
from tests.integration.triggers.conftest import by_each_transport, parameters
from tests.project.models import Item
from tests.project.shapes import Raw, View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.triggers.conftest import Ear


def _locks() -> set[str]:
    """Return the locks that this transaction has on the table."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT mode FROM pg_locks WHERE pid = pg_backend_pid() "
            "AND relation = 'project_item'::regclass"
        )
        return {mode for (mode,) in cursor.fetchall()}


def _ours() -> list[Any]:
    """Return all that an installation leaves in the database."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT 'trigger', tgname, tgrelid::regclass::text FROM pg_trigger WHERE tgname LIKE 'pgobserve%' "
            "UNION ALL SELECT 'function', proname, '' FROM pg_proc "
            "WHERE pronamespace = to_regnamespace('pgobserve') "
            "UNION ALL SELECT 'schema', nspname, '' FROM pg_namespace WHERE nspname = 'pgobserve' "
            "ORDER BY 1, 2, 3"
        )
        return cursor.fetchall()


def _uninstall(model: Any = Item) -> installer.Outcome:
    (registration,) = registry.build([model])
    table = catalog.relations(connection, [registration.table])[registration.table]
    return installer.uninstall(table, registration.title, namespace=ALONE, using="default")


def test_install_is_idempotent(install: Callable[..., Any]) -> None:
    """Installing again changes nothing, says so, and takes no lock to speak of."""
    (first,) = install(Item)
    before = catalog.triggers(connection, ALONE)
    with transaction.atomic():
        (second,) = install(Item)
        locks = _locks()

    assert (first.action, second.action) == (InstallAction.INSTALLED, InstallAction.UNCHANGED)
    assert locks <= {"AccessShareLock"}
    assert catalog.triggers(connection, ALONE) == before


@by_each_transport
def test_install_is_announced(
    ear: Ear,
    install: Callable[..., Any],
    run: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Readers read a table again whose triggers are new or repaired, and no other."""
    monkeypatch.setattr(trigger_statements, "announcements", ANNOUNCEMENTS)
    install(Item)
    assert ear.changes() == [("project.item", "U", None)]
    install(Item)
    assert ear.changes() == []
    run("ALTER TABLE project_item DISABLE TRIGGER pgobserve_u")
    install(Item)
    assert ear.changes() == [("project.item", "U", None)]


@pytest.mark.parametrize("always", [None, True])
def test_lock_of_a_reinstallation(install: Callable[..., Any], always: bool | None) -> None:
    """An update of the triggers takes no lock stronger than SHARE ROW EXCLUSIVE."""
    install(Item)
    with transaction.atomic():
        (outcome,) = install(Item, columns=["rank"], always=always)
        locks = _locks()

    assert outcome.action is InstallAction.UPDATED
    assert locks <= {"AccessShareLock", "ShareRowExclusiveLock"}


def test_readers_go_on_during_an_installation(
    install: Callable[..., Any], writer: psycopg.Connection[Any]
) -> None:
    """Whoever reads the table meanwhile does not wait."""
    with transaction.atomic():
        install(Item)
        writer.execute("SET lock_timeout = '1s'")
        rows = writer.execute("SELECT count(*) FROM project_item").fetchone()

    assert rows == (0,)


@pytest.mark.usefixtures("clean")
def test_lock_timeout() -> None:
    """A table that is in use is left alone after the time given, and nothing is half-installed."""
    (registration,) = registry.build([Item])
    with psycopg.connect(**parameters()) as busy:
        busy.execute("LOCK TABLE project_item IN ROW EXCLUSIVE MODE")
        with pytest.raises(
            TriggerError, match=r"could not be locked within 0\.05 s: .*--lock-timeout"
        ):
            installer.install(registration, using="default", lock_timeout=0.05)

    assert _ours() == []


def test_uninstall_leaves_nothing(install: Callable[..., Any]) -> None:
    """After the last uninstallation triggers, functions and schema are gone."""
    before = _ours()
    install(Item)
    assert len(_ours()) == 9

    assert _uninstall().action is InstallAction.REMOVED
    assert _ours() == before == []
    assert _uninstall().action is InstallAction.ABSENT


def test_uninstall_keeps_what_others_use(
    ear: Ear, run: Callable[..., Any], install: Callable[..., Any]
) -> None:
    """Removing one table's triggers leaves those of another at work."""
    run("CREATE TABLE project_raw (id bigint PRIMARY KEY)")
    try:
        install(Item, Raw)
        _uninstall(Item)
        run("INSERT INTO project_raw VALUES (1)")
    finally:
        run("DROP TABLE project_raw")

    assert ear.changes() == [("project.raw", "I", [1])]
    assert [kind for kind, *_ in _ours()] == ["function"] * 4 + ["schema"]


def test_foreign_objects_stay(run: Callable[..., Any], install: Callable[..., Any]) -> None:
    """Another package's triggers on the table, and its things in our schema, are left alone."""
    install(Item)
    run("CREATE TABLE pgobserve.theirs (id int)")
    run("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    run("CREATE TRIGGER theirs AFTER INSERT ON project_item FOR EACH ROW EXECUTE FUNCTION f()")
    try:
        _uninstall()
        left = run(
            "SELECT tgname FROM pg_trigger WHERE tgrelid = 'project_item'::regclass AND NOT tgisinternal"
        )
        assert left == [("theirs",)]
        assert run("SELECT 1 FROM pgobserve.theirs") == []
    finally:
        run("DROP FUNCTION f CASCADE")


def test_renamed_table_gets_new_functions(
    run: Callable[..., Any], install: Callable[..., Any]
) -> None:
    """Installing on a table that was renamed leaves no function of its old name."""
    run("CREATE TABLE other_name (id bigint PRIMARY KEY, name text)")
    old = Raw._meta.db_table
    try:
        Raw._meta.db_table = "other_name"
        install(Raw)
        run("ALTER TABLE other_name RENAME TO project_raw")
        Raw._meta.db_table = old
        (outcome,) = install(Raw)
    finally:
        Raw._meta.db_table = old
        run("DROP TABLE IF EXISTS project_raw, other_name")

    assert outcome.action is InstallAction.UPDATED
    functions = [name for kind, name, _ in _ours() if kind == "function"]
    assert len(functions) == 4
    assert all(name.startswith("project_raw_") for name in functions)


@pytest.fixture
def stranger(clean: None, run: Callable[..., Any]) -> Iterator[None]:
    """Work as a role that may write the table and no more."""
    run("CREATE ROLE stranger")
    run("GRANT ALL ON project_item TO stranger")
    run("REVOKE TRIGGER ON project_item FROM stranger")
    run("SET ROLE stranger")
    yield
    run("RESET ROLE")
    run("DROP OWNED BY stranger")
    run("DROP ROLE stranger")


@pytest.mark.usefixtures("stranger")
def test_missing_privilege(install: Callable[..., Any]) -> None:
    """A role without the right gets an error that names the owner, and nothing is half-installed."""
    with pytest.raises(
        TriggerError, match=r"may not do this for project.Item \(permission denied .*pgobserve sql"
    ):
        install(Item)

    assert _ours() == []


@pytest.fixture
def owner(clean: None, run: Callable[..., Any]) -> Iterator[None]:
    """Work as a role that owns a table and may create nothing in the database."""
    ((database,),) = run("SELECT current_database()")
    run("CREATE ROLE owner")
    run("CREATE TABLE project_raw (id bigint PRIMARY KEY)")
    run("ALTER TABLE project_raw OWNER TO owner")
    run(f'REVOKE CREATE ON DATABASE "{database}" FROM PUBLIC')
    run("SET ROLE owner")
    yield
    run("RESET ROLE")
    run("DROP SCHEMA IF EXISTS pgobserve CASCADE")
    run("DROP OWNED BY owner")
    run("DROP ROLE owner")


@pytest.mark.usefixtures("owner")
def test_owner_who_may_not_create_schemas(
    install: Callable[..., Any], writer: psycopg.Connection[Any]
) -> None:
    """An owner of tables alone needs our schema made for it; then all works, and removal leaves it."""
    with pytest.raises(TriggerError, match=r"permission denied for database.*pgobserve sql"):
        install(Raw)
    writer.execute("CREATE SCHEMA pgobserve")
    writer.execute("GRANT USAGE, CREATE ON SCHEMA pgobserve TO owner")

    assert [each.action for each in install(Raw)] == [InstallAction.INSTALLED]
    assert [each.action for each in install(Raw)] == [InstallAction.UNCHANGED]
    assert _uninstall(Raw).action is InstallAction.REMOVED
    assert _ours() == [("schema", "pgobserve", "")]


def test_read_only(run: Callable[..., Any], install: Callable[..., Any]) -> None:
    """A read-only session gets an error that says so."""
    run("SET default_transaction_read_only = on")
    try:
        with pytest.raises(TriggerError, match=r"takes no changes.*read-only transaction"):
            install(Item)
    finally:
        run("RESET default_transaction_read_only")


def test_view(run: Callable[..., Any], install: Callable[..., Any]) -> None:
    """A view can't be observed, and the message says what can."""
    run("CREATE VIEW project_view AS SELECT id FROM project_item")
    try:
        with pytest.raises(
            TriggerError, match=r"public.project_view is a view.*observe_related.*'project.Item'"
        ):
            install(View)
    finally:
        run("DROP VIEW project_view")


def test_no_table(install: Callable[..., Any]) -> None:
    """A model without a table and an unknown model have different errors."""
    with pytest.raises(
        TriggerError, match=r'project.Raw has no table "project_raw" .*migrate first'
    ):
        install(Raw)


@pytest.mark.parametrize("is_first", [True, False], ids=["first", "later"])
def test_two_installations_at_once(
    install: Callable[..., Any], writer: psycopg.Connection[Any], is_first: bool
) -> None:
    """An installation waits for another one, whatever its table, instead of failing on a race."""
    (registration,) = registry.build([Item])
    if not is_first:
        writer.execute("CREATE SCHEMA pgobserve")
    with writer.transaction():
        writer.execute(
            trigger_statements.schema_statement(ALONE)
            if is_first
            else trigger_statements.lock_statement(ALONE)
        )
        with pytest.raises(TriggerError, match="could not be locked"):
            installer.install(registration, using="default", lock_timeout=0.05)

    (outcome,) = install(Item)
    assert outcome.action is InstallAction.INSTALLED
    assert set(catalog.triggers(connection, ALONE).popitem()[1]) == set(ALONE.triggers)
