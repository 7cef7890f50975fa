"""The notification queue, and which sessions do not read."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgobserve.cli.doctor import listening
from tests.integration.conftest import parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.doctor.conftest import Look

#: More than the buffers of a socket hold, and less than a hundredth of the queue.
FLOOD = "SELECT pg_notify('flood', repeat(md5(i::text), 245)) FROM generate_series(1, 6000) i"

STUCK = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'ClientWrite'"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look twice without waiting."""
    monkeypatch.setattr(listening, "BETWEEN", 0.0)


@pytest.fixture
def deaf(writer: psycopg.Connection[Any]) -> Iterator[psycopg.Connection[Any]]:
    """A feed that does not read what it receives."""
    with psycopg.connect(**parameters(), autocommit=True, application_name="pgobserve:7") as each:
        each.execute("LISTEN flood")
        pid = each.info.backend_pid
        writer.execute(FLOOD)
        deadline = time.monotonic() + 60
        while not writer.execute(STUCK, [pid]).fetchall():
            assert time.monotonic() < deadline, "its socket takes everything"
        yield each


def test_empty(look: Look) -> None:
    """An empty queue is well."""
    found = look("queue")

    assert (found.level, found.details) == ("ok", ())


def test_stuck(look: Look, deaf: psycopg.Connection[Any]) -> None:
    """A session that does not read is named before the queue is full."""
    found = look("queue")

    pid = deaf.info.backend_pid
    assert found.level == "warning"
    assert len(found.details) == 1
    assert found.details[0].startswith(f"pid {pid}, 'pgobserve:7', role ")
    assert found.details[0].endswith(": does not read what it receives")
    assert "pg_terminate_backend(pid)" in found.advice


@pytest.mark.parametrize(
    ("name", "level"), [("QUEUE_WARNING", "warning"), ("NEARLY_FULL", "problem")]
)
def test_filling(
    look: Look,
    deaf: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    level: str,
) -> None:
    """From a hundredth on it is a warning, from half of it on a problem."""
    monkeypatch.setattr(listening, name, 0.0001)
    found = look("queue")

    assert found.level == level
    assert "% full: a session listens and does not read." in found.state
    assert len(found.details) == 1


@pytest.mark.parametrize(
    ("name", "full", "told"), [("psql", False, 0), ("psql", True, 1), ("pgobserve:8", False, 1)]
)
def test_old_transaction(
    look: Look, monkeypatch: pytest.MonkeyPatch, name: str, full: bool, told: int
) -> None:
    """A session in a long transaction is listed if it may be the reason, or is a feed."""
    monkeypatch.setattr(listening, "OLD", 0.0)
    if full:
        monkeypatch.setattr(listening, "QUEUE_WARNING", 0.0)
    with psycopg.connect(**parameters(), application_name=name) as each:
        each.execute("SELECT 1")
        found = look("queue")

    assert len(found.details) == told
    assert all("idle in transaction for " in detail for detail in found.details)


def test_transactions_that_are_no_reason(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has just begun, or is at work, is not accused."""
    monkeypatch.setattr(listening, "QUEUE_WARNING", 0.0)
    with (
        closing(psycopg.connect(**parameters())) as young,
        closing(psycopg.connect(**parameters())) as busy,
    ):
        young.execute("SELECT 1")
        assert look("queue").details == ()
        young.rollback()
        monkeypatch.setattr(listening, "OLD", 0.0)
        busy.pgconn.send_query(b"SELECT pg_sleep(600)")
        busy.pgconn.flush()
        active = "SELECT state FROM pg_stat_activity WHERE pid = %s"
        deadline = time.monotonic() + 60
        while young.execute(active, [busy.info.backend_pid]).fetchone() != ("active",):
            assert time.monotonic() < deadline, "it does not begin"
            young.rollback()
        young.rollback()
        assert look("queue").details == ()
        busy.cancel_safe()


def test_blind(look: Look, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A role that does not see others' sessions gets the missing grant."""
    monkeypatch.setattr(listening, "QUEUE_WARNING", 0.0)
    run("CREATE ROLE short_sighted")
    run("SET ROLE short_sighted")
    try:
        found = look("queue")
    finally:
        run("RESET ROLE")
        run("DROP ROLE short_sighted")

    assert found.level == "warning"
    assert found.advice.endswith("GRANT pg_read_all_stats.")
