"""A table of each shape, its triggers, and an ear on a connection of its own."""

from __future__ import annotations

import io
import itertools
import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection

from pgobserve.triggers import installer, names, registry
from pgobserve.wire import ALONE, TRANSPORTS
from tests.project import shapes  # noqa: F401 (tests name its models by their labels)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.models import Model

    from pgobserve.triggers.installer import InstallOutcome


def parameters() -> dict[str, Any]:
    """Return psycopg's keywords for the test database."""
    given = connection.get_connection_params()
    return {k: v for k, v in given.items() if k not in ("cursor_factory", "context")}


class Ear:
    """Hears what is committed, from a connection of its own."""

    def __init__(self, channel: str = ALONE.channel) -> None:
        self.channel = channel
        self.connection = psycopg.connect(**parameters(), autocommit=True)
        self.connection.execute(f'LISTEN "{channel}"')
        self.other = psycopg.connect(**parameters(), autocommit=True)
        self.silences = 0

    def texts(self) -> list[str]:
        """Return all payloads until now: up to a mark that is sent behind them."""
        self.silences += 1
        mark = f"silence {self.silences}"
        self.other.execute("SELECT pg_notify(%s, %s)", [self.channel, mark])
        heard: list[str] = []
        while mark not in heard:
            notes = list(self.connection.notifies(timeout=60, stop_after=1))
            assert notes, "the mark did not come"
            heard += [note.payload for note in notes]
        assert heard[-1] == mark
        return heard[:-1]

    def payloads(self) -> list[dict[str, Any]]:
        """Return all payloads until now, read."""
        return [json.loads(text) for text in self.texts()]

    def changes(self) -> list[tuple[str, str, Any]]:
        """Return (label, operation, keys) of all payloads until now, keys sorted."""
        return [
            (each["t"], each["o"], each["k"] and sorted(each["k"], key=repr))
            for each in self.payloads()
        ]

    def close(self) -> None:
        self.connection.close()
        self.other.close()


class OutboxEar(Ear):
    """Hears what is committed, from the outbox; rows are shown as payloads."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = self._snapshot()

    def _snapshot(self) -> str:
        row = self.other.execute("SELECT pg_current_snapshot()::text").fetchone()
        assert row is not None
        return str(row[0])

    def rows(self) -> list[tuple[Any, ...]]:
        """Return (label, operation, transaction id, keys, old, new) of the rows until now, as text."""
        if self.other.execute("SELECT to_regclass('pgobserve.outbox')").fetchone() == (None,):
            return []
        rows = self.other.execute(
            "SELECT pg_current_snapshot()::text, label, op, xid::text, keys::text, old::text, new::text "
            "FROM (VALUES (1)) one LEFT JOIN pgobserve.outbox "
            "ON NOT pg_visible_in_snapshot(xid, %s::pg_snapshot) ORDER BY at, pgobserve.outbox.cmin::text::int",
            [self.seen],
        ).fetchall()
        self.seen = rows[0][0]
        return [row[1:] for row in rows if row[1] is not None]

    def texts(self) -> list[str]:
        """Return all rows until now as payloads with all their keys; of equal neighbours, one."""
        texts = [
            f'{{"v":1,"t":"{label}","o":"{op}","x":"{xid}","k":{keys or "null"}}}'
            for label, op, xid, keys, *_ in self.rows()
        ]
        return [text for text, _ in itertools.groupby(texts)]


#: For tests of what is told whatever the way: ``ear`` and ``install`` follow it.
by_each_transport = pytest.mark.parametrize("transport", TRANSPORTS)


@pytest.fixture
def transport() -> str:
    """How changes travel, unless a test says otherwise."""
    return "notify"


@pytest.fixture
def ear(transactional_db: None, transport: str) -> Iterator[Ear]:
    """Listen on our channel, or read the outbox."""
    ear = OutboxEar() if transport == "outbox" else Ear()
    yield ear
    ear.close()


@pytest.fixture
def run(transactional_db: None) -> Callable[..., list[Any]]:
    """Run SQL on Django's connection, each statement in a transaction of its own."""

    def run(statement: str, *arguments: Any) -> list[Any]:
        with connection.cursor() as cursor:
            cursor.execute(statement, list(arguments) or None)
            return list(cursor.fetchall()) if cursor.description else []

    return run


@pytest.fixture
def writer(transactional_db: None) -> Iterator[psycopg.Connection[Any]]:
    """A program that has never heard of Django: a psycopg connection in autocommit."""
    with psycopg.connect(**parameters(), autocommit=True) as each:
        yield each


@pytest.fixture
def clean(transactional_db: None) -> Iterator[None]:
    """Begin without triggers, and leave none, whatever the test did to them."""
    _drop()
    yield
    _drop()


def _drop() -> None:
    with connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS pgobserve CASCADE")


@pytest.fixture
def make(clean: None) -> Iterator[Callable[..., None]]:
    """Make the tables of models that Django does not manage."""
    made: list[type[Model]] = []

    def make(*models: type[Model]) -> None:
        for model in models:
            made.append(model)
            with connection.schema_editor() as editor:
                editor.create_model(model)

    yield make
    connection.close()  # a schema editor that failed leaves its transaction open
    for model in reversed(made):
        for each in (*(m2m.remote_field.through for m2m in model._meta.local_many_to_many), model):
            with connection.cursor() as cursor:
                cursor.execute(f"DROP TABLE IF EXISTS {names.quote(each._meta.db_table)} CASCADE")


@pytest.fixture
def install(clean: None, transport: str) -> Callable[..., list[InstallOutcome]]:
    """Install the triggers of models."""

    def install(*models: type[Model], **options: Any) -> list[InstallOutcome]:
        settings = {model._meta.label: options for model in models} if options else {}
        return [
            installer.install(each, using="default")
            for each in registry.build(models, settings, transport=transport)
        ]

    return install


@pytest.fixture
def bare_command(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Run ``manage.py pgobserve``; return exit code, output and errors. No consumer is imported."""
    settings.ASGI_APPLICATION = None
    monkeypatch.setattr("pgobserve.install.targets.observed_models", list)
    monkeypatch.setattr("pgobserve.install.targets.observed_routes", dict)
    monkeypatch.setattr("pgobserve.install.targets.read_columns", dict)

    def command(*arguments: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        try:
            call_command("pgobserve", *arguments, stdout=out, stderr=err)
        except CommandError as error:
            return error.returncode, out.getvalue(), f"{err.getvalue()}{error}"
        return 0, out.getvalue(), err.getvalue()

    return command


@pytest.fixture
def command(
    clean: None, bare_command: Callable[..., tuple[int, str, str]]
) -> Callable[..., tuple[int, str, str]]:
    """Run ``manage.py pgobserve`` on the test database."""
    return bare_command
