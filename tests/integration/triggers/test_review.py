"""Deployment by review: SQL and migrations have the same result as ``install``."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command
from django.db import connection

from pgobserve.demo.postgres import binaries
from tests.integration.triggers.conftest import parameters
from tests.project.models import Item
from tests.project.shapes import Measurement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Command = Callable[..., tuple[int, str, str]]

LABELS = ["project.Item", "auth.User", "project.Measurement"]


def _catalog() -> list[Any]:
    """Return all that an installation leaves, but for object ids."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tgrelid::regclass::text, tgname, tgtype, tgenabled, tgoldtable, tgnewtable, "
            "tgattr::text, tgargs, tgqual::text, tgfoid::regproc::text, "
            "obj_description(oid, 'pg_trigger') "
            "FROM pg_trigger WHERE tgname LIKE 'pgobserve%' ORDER BY 1, 2"
        )
        triggers = cursor.fetchall()
        cursor.execute(
            "SELECT proname, prosrc, prosecdef, proconfig, provolatile, proowner, proacl::text "
            "FROM pg_proc WHERE pronamespace = to_regnamespace('pgobserve') ORDER BY 1"
        )
        functions = cursor.fetchall()
        cursor.execute("SELECT nspname, nspacl::text FROM pg_namespace WHERE nspname = 'pgobserve'")
        return [triggers, functions, cursor.fetchall()]


EMPTY: list[Any] = [[], [], []]


@pytest.fixture(autouse=True)
def partitioned(run: Callable[..., Any], clean: None) -> Iterator[None]:
    """A partitioned table among the others, with a name that needs quotes."""
    run(
        "CREATE TABLE project_measurement (id bigint PRIMARY KEY, name text) PARTITION BY RANGE (id)"
    )
    run('CREATE TABLE "a % part" PARTITION OF project_measurement FOR VALUES FROM (0) TO (100)')
    yield
    run("DROP TABLE project_measurement")


@pytest.fixture(params=[[], ["--always"]], ids=["origin", "always"])
def arguments(request: pytest.FixtureRequest) -> list[str]:
    """With and without ENABLE ALWAYS."""
    given: list[str] = request.param
    return given


@pytest.fixture
def installed(command: Command, arguments: list[str]) -> list[Any]:
    """What ``install`` leaves; it is removed again."""
    assert command("install", *LABELS, *arguments)[0] == 0
    left = _catalog()
    assert command("uninstall", *LABELS)[0] == 0
    assert _catalog() == EMPTY
    assert len(left[0]) == 16
    return left


def test_sql(
    command: Command, run: Callable[..., Any], installed: list[Any], arguments: list[str]
) -> None:
    """What ``sql`` prints does what ``install`` does, and its reverse removes it."""
    code, out, err = command("sql", *LABELS, *arguments)
    assert (code, err) == (0, "")

    run(out)
    assert _catalog() == installed
    run(command("sql", *LABELS, "--reverse")[1])
    assert _catalog() == EMPTY


def test_psql(command: Command, installed: list[Any], arguments: list[str]) -> None:
    """So it does in ``psql``, which has a mind of its own about colons and quotes."""
    for options, left in (
        (["sql", *LABELS, *arguments], installed),
        (["sql", *LABELS, "--reverse"], EMPTY),
    ):
        subprocess.run(
            [str(binaries() / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-"],
            input=command(*options)[1],
            env={**os.environ, **_libpq()},
            text=True,
            check=True,
        )
        assert _catalog() == left


def _libpq() -> dict[str, str]:
    names = {
        "host": "PGHOST",
        "port": "PGPORT",
        "user": "PGUSER",
        "password": "PGPASSWORD",
        "dbname": "PGDATABASE",
    }
    given = parameters()
    return {variable: str(given[key]) for key, variable in names.items() if key in given}


def test_sql_of_what_is_installed(command: Command) -> None:
    """``sql`` prints what is left to do, and with ``--all`` everything."""
    empty = command("sql", "project.Item", "--all")[1]
    command("install", "project.Item")

    assert command("sql", "project.Item")[1] == (
        "-- project.Item on public.project_item\n-- has its triggers: nothing to do\n\n"
    )
    assert command("sql", "project.Item", "--all")[1] == empty


@pytest.fixture
def migrations(tmp_path: Path, settings: Any) -> Iterator[Path]:
    """An app with a package of migrations that is empty."""
    package = tmp_path / "written_migrations"
    package.mkdir()
    (package / "__init__.py").touch()
    sys.path.insert(0, str(tmp_path))
    settings.MIGRATION_MODULES = {"project": package.name}
    yield package
    sys.path.remove(str(tmp_path))
    for name in [name for name in sys.modules if name.startswith(package.name)]:
        del sys.modules[name]


def test_migration(
    command: Command, migrations: Path, installed: list[Any], arguments: list[str]
) -> None:
    """The migration leaves what ``install`` leaves, and nothing when it is reversed."""
    code, out, err = command("migration", "project", *LABELS, *arguments)
    assert (code, err) == (0, "")
    assert out == f"Wrote {migrations / '0001_pgobserve.py'}\n"

    call_command("migrate", "project", verbosity=0)
    assert _catalog() == installed
    call_command("migrate", "project", "zero", verbosity=0)
    assert _catalog() == EMPTY


def test_migration_finds_its_place(command: Command, migrations: Path) -> None:
    """A migration follows the last of its app and those that make the tables."""
    command("migration", "project", "auth.User")
    command("migration", "project", "project.Item", "--name", "more")
    text = (migrations / "0001_pgobserve.py").read_text()
    more = (migrations / "0002_more.py").read_text()

    assert "        ('auth', '0012_alter_user_first_name_max_length'),\n" in text
    assert "    dependencies = [\n        ('project', '0001_pgobserve'),\n    ]\n" in more
    compile(text, "0001", "exec")


def test_migration_meets_other_partitions(
    command: Command, migrations: Path, run: Callable[..., Any]
) -> None:
    """Partitions that a database has when it migrates get their triggers, whatever there was."""
    command("migration", "project", "project.Measurement")
    run('DROP TABLE "a % part"')
    run("CREATE TABLE later PARTITION OF project_measurement FOR VALUES FROM (5) TO (9)")

    call_command("migrate", "project", verbosity=0)

    assert command("status", Measurement._meta.label)[0] == 0
    call_command("migrate", "project", "zero", verbosity=0)
    assert _catalog() == EMPTY


def test_dry_run(command: Command, migrations: Path) -> None:
    """With ``--dry-run`` the migration is printed and nothing is written."""
    code, out, _ = command("migration", "project", "project.Item", "--dry-run")

    assert code == 0
    assert "class Migration(migrations.Migration):" in out
    assert [path.name for path in migrations.iterdir() if path.suffix == ".py"] == ["__init__.py"]


@pytest.mark.parametrize(
    ("app", "message"),
    [
        ("nope", "There is no app nope; name it by its label."),
        (
            "project",
            "The app project has no migrations: run manage.py makemigrations",
        ),
        ("auth", "The app auth is an installed package, with its migrations at "),
    ],
)
def test_bad_app(command: Command, app: str, message: str) -> None:
    """An app that can't get a migration is refused."""
    code, out, err = command("migration", app, Item._meta.label)

    assert (code, out) == (2, "")
    assert err.startswith(message)
