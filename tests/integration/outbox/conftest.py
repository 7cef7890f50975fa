"""A table that writes to the outbox, writers whose transactions overlap, and a reader."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.db import OperationalError, connection

from pgobserve.outbox import outbox_page
from pgobserve.outbox.cursor import Cursor
from pgobserve.outbox.event import events_of, folded
from pgobserve.outbox.outbox_page import qualified
from pgobserve.triggers import installer, registry
from pgobserve.wire import ALONE
from tests.installing import install_by
from tests.integration.conftest import parameters
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.models import Model

    from pgobserve.outbox.event import Event, Reset
    from pgobserve.outbox.outbox_page import Page

INSERT = "INSERT INTO project_item (id, name, rank) VALUES (%s, %s, 0)"
UPDATE = "UPDATE project_item SET name = %s WHERE id = %s"
DELETE = "DELETE FROM project_item WHERE id = %s"


def install(*models: type[Model], **options: Any) -> None:
    """Install triggers that write to the outbox."""
    for each in registry.build(models, transport="outbox", **options):
        installer.install(each, using="default")


def execute(statement: str, *params: Any) -> list[Any]:
    """Run a statement on Django's connection, in a transaction of its own."""
    with connection.cursor() as cursor:
        cursor.execute(statement, params or None)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def boxed(transactional_db: None) -> Iterator[None]:
    """Triggers on the table of items; they, and all that they wrote, are gone afterwards."""
    install_by("boxed", lambda: install(Item))
    yield
    drop_outbox()


def drop_outbox() -> None:
    """Remove our schema; a reader that was cut off may still hold locks on its tables for a moment."""
    for _ in range(10):
        with contextlib.suppress(OperationalError):
            execute("DROP SCHEMA IF EXISTS pgobserve CASCADE")
            return
    raise AssertionError("The schema can't be dropped: a session keeps its tables locked.")


class Session:
    """A connection of somebody's, with a transaction that is open as long as he likes."""

    def __init__(self) -> None:
        self.connection = psycopg.connect(**parameters())

    def run(self, statement: str, *params: Any) -> None:
        """Run a statement in the transaction."""
        self.connection.execute(statement, params or None)

    def commit(self) -> None:
        """End the transaction."""
        self.connection.commit()

    def rollback(self) -> None:
        """End it, and undo what it did."""
        self.connection.rollback()


@pytest.fixture
def session(boxed: None) -> Iterator[Callable[[], Session]]:
    """Return a function that connects; all connections are closed at the end."""
    made: list[Session] = []

    def connect() -> Session:
        made.append(Session())
        return made[-1]

    yield connect
    for each in made:
        each.connection.close()


class Reading:
    """A reader that is told when to read."""

    def __init__(self) -> None:
        self.connection = psycopg.connect(**parameters(), autocommit=True)
        row = self.connection.execute(qualified(outbox_page.STATUS, ALONE)).fetchone()
        assert row is not None
        self.cursor = Cursor(outbox_page.status_of(row).now)

    def read(
        self,
        limit: int = outbox_page.LIMIT,
        labels: tuple[str, ...] = ("project.item",),
        **other: Any,
    ) -> Page:
        """Read a page, and go on after it."""
        wanted = outbox_page.parameters(
            self.cursor, limit=limit, images=labels, labels=labels or None, **other
        )
        rows = self.connection.execute(qualified(outbox_page.QUERY, ALONE), wanted).fetchall()
        page = outbox_page.page(rows, self.cursor, limit)
        self.cursor = page.cursor
        return page

    def names(self, limit: int = outbox_page.LIMIT) -> list[Any]:
        """Return (key, old name, new name) of what is new."""
        return [
            (
                int(change.key),
                *(image and image.values["name"] for image in (change.old, change.new)),
            )
            for _, change in folded(self.read(limit).entries)
        ]

    def events(self, *labels: str) -> list[Event | Reset]:
        """Return the events that are new."""
        names = labels or ("project.item",)
        return events_of(self.read(labels=names).entries, names, connection)


@pytest.fixture
def reading(boxed: None) -> Iterator[Reading]:
    """A reader that begins now."""
    each = Reading()
    yield each
    each.connection.close()
