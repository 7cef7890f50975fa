"""Switching the transport is one setting and one ``install``; each command knows of it."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.core import checks
from django.core.management import call_command
from django.db import connection

from pgobserve.install.migrating import needs_outbox
from pgobserve.triggers import installer, registry
from pgobserve.triggers.server import outbox_storage
from pgobserve.wire import ALONE
from tests.integration.triggers.conftest import Ear, OutboxEar, parameters
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[..., tuple[int, str, str]]

OUTBOX = {"MODELS": ["project.Item"], "TRANSPORT": "outbox"}
NOTIFY = {"MODELS": ["project.Item"]}


def _facts(command: Command) -> dict[str, Any]:
    _, out, _ = command("status", "--json")
    (facts,) = json.loads(out)
    return dict(facts)


def test_switch(command: Command, settings: Any, run: Callable[..., Any]) -> None:
    """A changed setting makes the triggers outdated, and ``install`` makes what is wanted, outbox included."""
    settings.PGOBSERVE = NOTIFY
    command("install")
    settings.PGOBSERVE = OUTBOX
    assert _facts(command)["state"] == "no outbox"

    code, out, _ = command("install")
    assert (code, out) == (0, "project.Item: updated on public.project_item (was no outbox)\n")
    assert {k: _facts(command)[k] for k in ("state", "transport")} == {
        "state": "ok",
        "transport": "outbox",
    }
    Item.objects.create(name="a")
    assert run("SELECT label, op FROM pgobserve.outbox") == [("project.item", "I")]


def test_switch_back(command: Command, settings: Any, run: Callable[..., Any]) -> None:
    """After a change back, the outbox stays for its readers until the last trigger goes."""
    settings.PGOBSERVE = OUTBOX
    command("install")
    Item.objects.create(name="a")
    settings.PGOBSERVE = NOTIFY
    assert _facts(command)["state"] == "outdated"
    command("install")

    assert _facts(command)["state"] == "ok"
    assert run("SELECT count(*) FROM pgobserve.outbox") == [(1,)]
    Item.objects.create(name="b")
    assert run("SELECT count(*) FROM pgobserve.outbox") == [(1,)]
    assert run("SELECT bool_or(prosecdef) FROM pg_proc WHERE proname LIKE 'project_item%'") == [
        (False,)
    ]
    command("uninstall")
    assert run("SELECT to_regnamespace('pgobserve')") == [(None,)]


def test_each_model(command: Command, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """``MODELS`` says it for a model alone."""
    # Model observers of other tests live on.
    monkeypatch.setattr("pgobserve.install.targets.evented_models", list)
    settings.PGOBSERVE = {"MODELS": {"project.Item": {"transport": "outbox"}, "auth.Group": {}}}
    command("install")
    _, out, _ = command("status")

    assert "project.Item  public.project_item  ok     origin  outbox" in out
    assert "auth.Group    public.auth_group    ok     origin  notify" in out
    assert "The outbox takes" in out


def test_nothing_is_lost_while_switching(
    command: Command, settings: Any, writer: psycopg.Connection[Any]
) -> None:
    """Each change travels by the old transport or the new one, whenever it comes."""
    settings.PGOBSERVE = OUTBOX
    command("install")  # the outbox is there
    ears = [Ear(), OutboxEar()]
    done = threading.Event()
    written: list[int] = []

    def write() -> None:
        with psycopg.connect(**parameters(), autocommit=True) as each:
            while not done.is_set():
                row = each.execute(
                    "INSERT INTO project_item (name, rank) VALUES ('', 0) RETURNING id"
                ).fetchone()
                assert row is not None
                written.append(row[0])

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for wanted in (NOTIFY, OUTBOX, NOTIFY, OUTBOX):
        settings.PGOBSERVE = wanted
        assert command("install")[0] == 0
        before = len(written)
        while len(written) < before + 20:
            assert all(thread.is_alive() for thread in threads)
    done.set()
    for thread in threads:
        thread.join()

    told = [
        key
        for ear in ears
        for each in ear.payloads()
        if each["t"] == "project.item"
        for key in each["k"]
    ]
    for ear in ears:
        ear.close()
    assert sorted(told) == sorted(written)


@pytest.mark.parametrize(
    ("damage", "detail"),
    [
        ("DROP TABLE pgobserve.outbox", "there is no pgobserve.outbox"),
        ("DROP TABLE pgobserve.outbox_1", "there is no pgobserve.outbox_1"),
        ("DROP TABLE pgobserve.outbox_state", "there is no pgobserve.outbox_state"),
        (
            "ALTER TABLE pgobserve.outbox DROP old",
            "pgobserve.outbox has other columns than it should",
        ),
        (
            "DROP FUNCTION pgobserve.outbox_lose()",
            "the function pgobserve.outbox_lose does not match",
        ),
        (
            "CREATE OR REPLACE FUNCTION pgobserve.outbox_lose() RETURNS void LANGUAGE plpgsql AS 'BEGIN END'",
            "the function pgobserve.outbox_lose does not match",
        ),
    ],
)
def test_damage(
    command: Command, settings: Any, run: Callable[..., Any], damage: str, detail: str
) -> None:
    """``status`` and the check say what is wrong with the outbox, and ``install`` mends it."""
    settings.PGOBSERVE = OUTBOX
    command("install")
    run(damage)

    facts = _facts(command)
    assert facts["state"] == "no outbox"
    assert facts["detail"].startswith(detail)
    (message,) = checks.run_checks(tags=[checks.Tags.database], databases=["default"])
    assert message.id == "pgobserve.W017"
    assert detail in message.msg

    assert command("install")[0] == 0
    assert _facts(command)["state"] == "ok"
    Item.objects.create(name="a")
    assert run("SELECT count(*) FROM pgobserve.outbox") == [(1,)]


def test_repair_keeps_named_places(
    command: Command, settings: Any, run: Callable[..., Any]
) -> None:
    """An outbox made anew begins behind every place that was read before, so that readers notice."""
    settings.PGOBSERVE = OUTBOX
    command("install")
    ((place,),) = run("SELECT pg_current_snapshot()::text")
    run("DROP TABLE pgobserve.outbox")
    Item.objects.create(name="not written")
    command("install")

    assert run(
        "SELECT pg_snapshot_xmax(%s::pg_snapshot) >= pg_snapshot_xmax(horizon) FROM pgobserve.outbox_state",
        place,
    ) == [(False,)]


def test_tampered(command: Command, settings: Any, run: Callable[..., Any]) -> None:
    """A trigger function that lost its rights or its search_path is reported."""
    settings.PGOBSERVE = OUTBOX
    command("install")
    ((function,),) = run(
        "SELECT oid::regprocedure::text FROM pg_proc WHERE proname LIKE 'project_item%\\_u\\_write'"
    )
    for change in ("SECURITY INVOKER", "RESET search_path"):
        run(f"ALTER FUNCTION {function} {change}")
        assert _facts(command)["state"] == "tampered"
        command("install")
        assert _facts(command)["state"] == "ok"


def test_status_for_everybody(command: Command, settings: Any, run: Callable[..., Any]) -> None:
    """A role without a right on the outbox sees the state of the triggers only."""
    settings.PGOBSERVE = OUTBOX
    command("install")
    run("CREATE ROLE stranger")
    run("SET ROLE stranger")
    try:
        code, out, _ = command("status")
        assert checks.run_checks(tags=[checks.Tags.database], databases=["default"]) == []
    finally:
        run("RESET ROLE")
        run("DROP ROLE stranger")

    assert code == 0
    assert "ok     origin  outbox" in out
    assert "The outbox takes" not in out


def test_wake(command: Command, settings: Any) -> None:
    """Another way to wake readers makes the triggers outdated."""
    settings.PGOBSERVE = OUTBOX
    command("install")
    settings.PGOBSERVE = {**OUTBOX, "OUTBOX_WAKE": "poll"}

    assert _facts(command)["state"] == "outdated"
    command("install")
    assert _facts(command)["state"] == "ok"


def test_nobody_observes_it_any_more(command: Command, settings: Any) -> None:
    """A table that is no longer observed is compared with its recorded registration."""
    settings.PGOBSERVE = {**OUTBOX, "OUTBOX_WAKE": "poll"}
    command("install")
    settings.PGOBSERVE = {"MODELS": []}
    settings.ASGI_APPLICATION = "tests.project.asgi.application"

    assert _facts(command)["state"] == "ok"


def test_sql(command: Command, settings: Any, run: Callable[..., Any]) -> None:
    """``sql`` prints the outbox, too; and what removes it."""
    settings.PGOBSERVE = OUTBOX
    _, out, _ = command("sql")
    assert "CREATE TABLE pgobserve.outbox" in out
    with psycopg.connect(**parameters(), autocommit=True) as each:
        each.execute(out)
    assert _facts(command)["state"] == "ok"
    Item.objects.create(name="a")

    _, out, _ = command("sql", "--reverse")
    with psycopg.connect(**parameters(), autocommit=True) as each:
        each.execute(out)
    assert run("SELECT to_regnamespace('pgobserve')") == [(None,)]


def test_migration_of_the_triggers(command: Command, settings: Any) -> None:
    """``migration`` writes the outbox into it."""
    settings.PGOBSERVE = OUTBOX
    code, out, _ = command("migration", "auth", "--dry-run")

    assert code == 0
    assert "CREATE TABLE pgobserve.outbox" in out
    assert "DROP TABLE IF EXISTS pgobserve.outbox" in out
    compile(out, "migration", "exec")


class TestMigrationOfTheApp:
    """``pgobserve.0001_outbox`` creates the outbox where the settings require it."""

    @pytest.fixture(autouse=True)
    def unapplied(self, clean: None) -> Any:
        """Begin before the migration, end after it."""
        call_command("migrate", "pgobserve", "zero", verbosity=0)
        yield
        call_command("migrate", "pgobserve", verbosity=0)

    @pytest.mark.parametrize(
        ("given", "made"),
        [
            ({}, False),
            (NOTIFY, False),
            ({"TRANSPORT": "outbox"}, True),
            ({"MODELS": {"project.Item": {"transport": "outbox"}}}, True),
            ({"MODELS": {"project.Item": {"transport": "notify"}, "auth.Group": {}}}, False),
        ],
    )
    def test_made(self, settings: Any, given: dict[str, Any], made: bool) -> None:
        """Only where a model's changes go there."""
        settings.PGOBSERVE = given
        call_command("migrate", "pgobserve", verbosity=0)

        assert outbox_storage.exists(connection, ALONE) is made

    def test_reverse(self, settings: Any, run: Callable[..., Any]) -> None:
        """Reversed, it is gone, and so is our schema."""
        settings.PGOBSERVE = {"TRANSPORT": "outbox", "OUTBOX_MAX_BYTES": 12345678}
        call_command("migrate", "pgobserve", verbosity=0)
        assert outbox_storage.problem(connection, ALONE) == ""
        assert outbox_storage.status(connection, ALONE).max_bytes == 12345678
        call_command("migrate", "pgobserve", "zero", verbosity=0)

        assert run("SELECT to_regnamespace('pgobserve')") == [(None,)]

    def test_installed_before(
        self, settings: Any, command: Command, run: Callable[..., Any]
    ) -> None:
        """What ``install`` made already is left as it is."""
        settings.PGOBSERVE = OUTBOX
        command("install")
        Item.objects.create(name="a")
        call_command("migrate", "pgobserve", verbosity=0)

        assert run("SELECT count(*) FROM pgobserve.outbox") == [(1,)]

    def test_no_change_to_make(self) -> None:
        """``makemigrations`` finds nothing to do."""
        call_command("makemigrations", "pgobserve", check=True, dry_run=True, verbosity=0)


def test_router(settings: Any) -> None:
    """A database that the routers keep the model out of needs no outbox."""
    settings.PGOBSERVE = {"MODELS": {"project.Item": {"transport": "outbox"}}}
    assert needs_outbox("default")
    settings.DATABASE_ROUTERS = ["tests.integration.triggers.test_transport.Nowhere"]
    assert not needs_outbox("default")


class Nowhere:
    """Keeps everything out of every database."""

    def allow_migrate(self, *_: Any, **__: Any) -> bool:
        """Say no."""
        return False


def test_bad_wake(settings: Any) -> None:
    """A way to wake readers that is none is a check error."""
    settings.PGOBSERVE = {**OUTBOX, "OUTBOX_WAKE": "bell"}
    (message,) = (each for each in checks.run_checks(app_configs=[]) if each.id == "pgobserve.E001")
    assert "OUTBOX_WAKE'] must be one of notify, poll, not 'bell'" in message.msg


def test_installer_says_it_changed(install: Callable[..., Any]) -> None:
    """An outbox that went missing is reason enough to install."""
    (registration,) = registry.build([Item], transport="outbox")
    installer.install(registration, using="default")
    outbox_storage.drop(connection, ALONE)

    outcome = installer.install(registration, using="default")
    assert (outcome.action, outcome.was) == ("updated", "no outbox")
