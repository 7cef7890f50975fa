"""What the outbox says about the time since a snapshot, to who comes back."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import psycopg
from django.db import connection

from pgobserve.outbox.event import changes_in
from pgobserve.outbox.since import entries_since
from pgobserve.sql.full_query import one_snapshot
from pgobserve.wire import ALONE
from tests.integration.conftest import parameters
from tests.integration.outbox.conftest import DELETE, INSERT, UPDATE, execute

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from pgobserve.hub.snapshot import Snapshot
    from tests.integration.outbox.conftest import Session

LABELS = ["project.item"]


def here() -> Snapshot:
    """Return the present snapshot."""
    with one_snapshot(connection) as snapshot:
        return snapshot


def told(seen: Snapshot, labels: list[str] = LABELS) -> list[tuple[Any, Any, Any]] | None:
    """Return what was done since: key, old and new name."""
    with one_snapshot(connection):
        entries = entries_since(seen, labels, connection, ALONE)
    if entries is None:
        return None
    return [
        (each.key, *(image and image.values["name"] for image in (each.old, each.new)))  # type: ignore[union-attr]
        for entry in entries
        for each in changes_in(entry)
    ]


def test_since(boxed: None) -> None:
    """It says what was done after the snapshot, in order, with the rows before and after."""
    execute(INSERT, 1, "a")
    seen = here()
    execute(UPDATE, "b", 1)
    execute(INSERT, 2, "c")
    execute(DELETE, 1)

    assert told(seen) == [(1, "a", "b"), (2, None, "c"), (1, "b", None)]
    assert told(here()) == []


def test_other_tables(boxed: None) -> None:
    """Only the tables that are asked for are looked at."""
    seen = here()
    execute(INSERT, 1, "a")

    assert told(seen, ["auth.user"]) == []


def test_open_transactions(session: Callable[[], Session]) -> None:
    """What was in progress and has ended since is told, what is in progress is not."""
    early, late = session(), session()
    early.run(INSERT, 1, "early")
    late.run(INSERT, 2, "late")
    seen = here()
    early.commit()

    assert told(seen) == [(1, None, "early")]
    late.commit()
    assert told(seen) == [(1, None, "early"), (2, None, "late")]


def test_snapshot_of_the_transaction(session: Callable[[], Session]) -> None:
    """What is committed while the list is read is not told: the list does not have it."""
    other, seen = session(), here()
    with one_snapshot(connection):
        other.run(INSERT, 1, "a")
        other.commit()

        assert entries_since(seen, LABELS, connection, ALONE) == ()
    assert told(seen) == [(1, None, "a")]


def test_emptied_before(boxed: None) -> None:
    """What was taken away after the snapshot may be missing."""
    seen = here()
    execute(INSERT, 1, "a")
    execute("UPDATE pgobserve.outbox_state SET horizon = pg_current_snapshot()")

    assert told(seen) is None


def test_emptied_while_the_list_is_read(boxed: None) -> None:
    """What is taken away after the list's snapshot is missing, though its mark can't be seen there."""
    seen = here()
    execute(INSERT, 1, "a")
    with one_snapshot(connection), psycopg.connect(**parameters(), autocommit=True) as other:
        other.execute(
            "UPDATE pgobserve.outbox_state SET horizon = pg_current_snapshot();"
            "TRUNCATE pgobserve.outbox_0"
        )

        assert entries_since(seen, LABELS, connection, ALONE) is None


def test_lost(boxed: None) -> None:
    """What could not be written is missing."""
    seen = here()
    execute("SELECT setval('pgobserve.outbox_gate', 3)")
    execute(INSERT, 1, "a")

    assert told(seen) is None


def test_too_many(boxed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number of entries, or bytes of images, nothing is told."""
    seen = here()
    for n in range(4):
        execute(INSERT, n, "x" * 100)
    monkeypatch.setattr("pgobserve.outbox.since.ENTRIES", 3)
    assert told(seen) is None
    monkeypatch.setattr("pgobserve.outbox.since.ENTRIES", 5)
    assert len(told(seen) or ()) == 4
    monkeypatch.setattr("pgobserve.outbox.since.BYTES", 50)
    assert told(seen) is None


def test_no_outbox(transactional_db: None, caplog: pytest.LogCaptureFixture) -> None:
    """Without an outbox nothing is told, and the transaction goes on."""
    with caplog.at_level(logging.DEBUG), one_snapshot(connection) as seen:
        assert entries_since(seen, LABELS, connection, ALONE) is None
        assert execute("SELECT 1") == [(1,)]
    assert "outbox" in caplog.text


def test_no_rights(boxed: None) -> None:
    """A role that may not read the outbox is told nothing, and the transaction goes on."""
    with one_snapshot(connection) as seen:
        execute("CREATE ROLE nobody_special")
        execute("SET LOCAL ROLE nobody_special")

        assert entries_since(seen, LABELS, connection, ALONE) is None
        assert execute("SELECT 1") == [(1,)]
        execute("RESET ROLE")
        execute("DROP ROLE nobody_special")
