"""Several databases: the alias named is worked on, and no other."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.db import connection, connections
from psycopg import sql

from pgobserve.demo import postgres
from tests.integration.triggers.conftest import parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Command = Callable[..., tuple[int, str, str]]

OTHER = "pgobserve_other"
TABLE = "CREATE TABLE project_item (id bigint PRIMARY KEY, name text, rank int)"


class Router:
    """Keeps users in ``default`` and items in ``other``."""

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return (db == "other") == (app_label == "project")


# Not by the django_db mark: Django's test case would refuse aliases that it does not know.
@pytest.fixture(scope="module")
def aliases(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Two more PostgreSQL databases, one of them out of reach, and one that is not PostgreSQL."""
    with django_db_blocker.unblock():
        _recreate(f"CREATE DATABASE {OTHER}")
        default = connection.settings_dict
        connections.settings["other"] = {**default, "NAME": OTHER}
        connections.settings["away"] = {**default, "HOST": "127.0.0.1", "PORT": "1"}
        connections.settings["lite"] = {
            **default,
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": ":memory:",
            "OPTIONS": {},
        }
        with psycopg.connect(**{**parameters(), "dbname": OTHER}) as other:
            other.execute(TABLE)
        yield
        for name in ("other", "away", "lite"):
            connections[name].close()
            del connections[name]
            del connections.settings[name]
        _recreate("SELECT 1")


def _recreate(statement: str) -> None:
    with psycopg.connect(**{**parameters(), "dbname": "postgres"}, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(OTHER)))
        admin.execute(statement)


@pytest.fixture
def command(aliases: None, bare_command: Command) -> Iterator[Command]:
    """Run the command; remove what it did in both databases."""
    yield bare_command
    for alias in ("default", "other"):
        with connections[alias].cursor() as cursor:
            cursor.execute("DROP SCHEMA IF EXISTS pgobserve CASCADE")


def test_database(command: Command) -> None:
    """``--database`` says where to install; the others are left alone."""
    code, out, _ = command("install", "project.Item", "--database", "other")

    assert (code, out) == (0, "project.Item: installed on public.project_item\n")
    assert command("status", "project.Item", "--database", "other")[0] == 0
    assert command("status", "project.Item")[0] == 1
    with connections["other"].cursor() as cursor:
        cursor.execute("DROP TRIGGER pgobserve_i ON project_item")
    _, out, _ = command("status", "project.Item", "--database", "other")
    assert "run manage.py pgobserve install project.Item --database other" in out


def test_routers(command: Command, settings: Any) -> None:
    """Models that a router keeps out of a database are left out, or refused if named."""
    settings.DATABASE_ROUTERS = [f"{__name__}.Router"]
    settings.PGOBSERVE = {"MODELS": ["auth.Group", "project.Item"]}

    for database, label in (("default", "auth.Group"), ("other", "project.Item")):
        code, out, _ = command("install", "--json", "--database", database)
        assert code == 0
        assert [each["label"] for each in json.loads(out)] == [label]
    code, _, err = command("install", "project.Item")
    assert code == 2
    assert err == (
        "The database routers keep project.Item out of the database 'default'. "
        "Name the right one with --database."
    )


@pytest.mark.parametrize("sub", ["install", "uninstall", "status", "sql", "migration"])
@pytest.mark.parametrize(
    ("alias", "message"),
    [
        ("nope", "There is no database alias 'nope'. DATABASES has: default, "),
        ("lite", "The database 'lite' is SQLite; pgobserve needs PostgreSQL."),
        ("away", "The database 'away' can't be reached: "),
    ],
)
def test_unusable_alias(command: Command, sub: str, alias: str, message: str) -> None:
    """An alias that can't be used is refused in a sentence by each sub-command."""
    app = ["auth"] if sub == "migration" else []
    code, out, err = command(sub, *app, "project.Item", "--database", alias)

    assert (code, out) == (2, "")
    assert err.startswith(message)
    assert len(err.splitlines()) == 1


def test_standby(command: Command) -> None:
    """A standby is recognised before anything is tried."""
    with postgres.embedded() as server:
        _restart_as_standby(server)
        connections.settings["standby"] = {
            **connection.settings_dict,
            "PORT": str(server.port),
            "NAME": "postgres",
            "PASSWORD": server.password,
        }
        try:
            code, _, err = command("install", "project.Item", "--database", "standby")
        finally:
            connections["standby"].close()
            del connections["standby"]
            del connections.settings["standby"]

    assert code == 2
    assert "The database 'standby' is a standby, which takes no changes. Name the primary" in err


def _restart_as_standby(server: postgres.Server) -> None:
    program = [str(server.bin / "pg_ctl"), "-D", str(server.directory), "-w"]
    options = f"-p {server.port} -h 127.0.0.1 -c unix_socket_directories="
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "cwd": "/"}
    quiet |= postgres._environment()
    subprocess.run([*program, "-m", "fast", "stop"], check=True, **quiet)
    (server.directory / "standby.signal").touch()
    log = str(server.directory / "standby.log")
    subprocess.run([*program, "-l", log, "-o", options, "start"], check=True, **quiet)
