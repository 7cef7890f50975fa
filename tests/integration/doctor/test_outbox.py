"""The outbox, its readers' rights and places, and the gate in front of their wake-up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgobserve.cli.doctor import outbox_health
from pgobserve.wire import ALONE, OUTBOX_WAKE_SLOTS
from tests.integration.conftest import parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.doctor.conftest import Command, Look

    Run = Callable[..., list[Any]]

CURSOR = (
    "INSERT INTO pgobserve.outbox_cursor (name, seen, moved_at) "
    "VALUES (%s, pg_current_snapshot(), now() - %s::interval)"
)


@pytest.fixture
def boxed(look: Look, command: Command, settings: Any) -> None:
    """Changes of items go to an outbox."""
    settings.PGOBSERVE = {"MODELS": ["project.Item"], "TRANSPORT": "outbox"}
    assert command("install")[0] == 0


NAMES = ["outbox", "outbox rights", "outbox cursors", "outbox gate"]


@pytest.mark.parametrize("name", NAMES)
def test_none(look: Look, name: str) -> None:
    """Where nothing needs an outbox, none is well."""
    assert look(name).level == "ok"


@pytest.mark.usefixtures("boxed")
@pytest.mark.parametrize("name", NAMES)
def test_well(look: Look, name: str) -> None:
    """An outbox as it was made is well."""
    found = look(name)

    assert (found.level, found.details, found.advice) == ("ok", (), "")


@pytest.mark.usefixtures("boxed")
@pytest.mark.parametrize(
    ("change", "state"),
    [
        ("DROP SCHEMA pgobserve CASCADE", "Changes go to the outbox, which does not exist."),
        ("DROP TABLE pgobserve.outbox_cursor", ""),
        ("DROP SEQUENCE pgobserve.outbox_gate", "there is no pgobserve.outbox_gate"),
        ("DROP FUNCTION pgobserve.outbox_lose()", "does not match this version"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_damaged(look: Look, run: Run, change: str, state: str, name: str) -> None:
    """A damaged one is a problem; what can't be looked at then is no other."""
    run(change)
    found = look(name)

    assert found.level == ("problem" if name == "outbox" and state else "ok")
    if found.level == "problem":
        assert state in found.state
        assert "Run manage.py pgobserve install" in found.advice


@pytest.mark.usefixtures("boxed")
@pytest.mark.parametrize(
    ("change", "level", "detail"),
    [
        ("SELECT setval('pgobserve.outbox_gate', 4)", "problem", "The outbox is full"),
        ("UPDATE pgobserve.outbox_state SET max_bytes = 1", "warning", "The outbox takes "),
        (
            "UPDATE pgobserve.outbox_state SET rotated_at = rotated_at - interval '3 hours'",
            "warning",
            "The outbox has not rotated since ",
        ),
    ],
)
def test_warnings(look: Look, run: Run, change: str, level: str, detail: str) -> None:
    """A full outbox is a problem; one that grows, or does not rotate, is a warning."""
    run(change)
    found = look("outbox")

    assert found.level == level
    assert found.details[0].startswith(detail)
    assert found.advice


@pytest.mark.usefixtures("boxed")
def test_rights(look: Look, run: Run, settings: Any) -> None:
    """The role that feeds connect as must be able to read, whichever this one is."""
    settings.PGOBSERVE = {**settings.PGOBSERVE, "CONNECTION": {"default": {"user": "server"}}}
    run("CREATE ROLE server")
    try:
        lacking = look("outbox rights")
        run("GRANT USAGE ON SCHEMA pgobserve TO server")
        run("GRANT SELECT ON ALL TABLES IN SCHEMA pgobserve TO server")
        run("GRANT SELECT ON ALL SEQUENCES IN SCHEMA pgobserve TO server")
        run("GRANT EXECUTE ON FUNCTION pgobserve.outbox_rotate(float8) TO server")
        found = look("outbox rights")
    finally:
        run("DROP OWNED BY server")
        run("DROP ROLE server")

    assert lacking.level == "problem"
    assert lacking.details == (
        "USAGE on the schema pgobserve",
        "SELECT on pgobserve.outbox",
        "SELECT on pgobserve.outbox_gate",
        "SELECT on pgobserve.outbox_lost",
        "SELECT on pgobserve.outbox_state",
        "EXECUTE on pgobserve.outbox_rotate",
    )
    assert found.level == "ok"


@pytest.fixture
def stranger(run: Run) -> Iterator[None]:
    """Look as a role that has no rights at all."""
    run("CREATE ROLE stranger")
    run("SET ROLE stranger")
    yield
    run("RESET ROLE")
    run("DROP ROLE stranger")


@pytest.mark.usefixtures("boxed", "stranger")
@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("outbox", "warning"),
        ("outbox rights", "problem"),
        ("outbox cursors", "ok"),
        ("outbox gate", "ok"),
    ],
)
def test_hidden(look: Look, name: str, level: str, settings: Any) -> None:
    """A role that may not read the outbox gets a warning, unless nothing goes there."""
    by_itself = {"CONNECTION": {"default": {"user": "stranger"}}}
    settings.PGOBSERVE = {**settings.PGOBSERVE, **by_itself}
    assert look(name).level == level
    settings.PGOBSERVE = {"MODELS": ["project.Item"], **by_itself}
    assert look(name).level == "ok"


@pytest.mark.usefixtures("boxed")
def test_cursors(look: Look, run: Run) -> None:
    """A worker that has stood still for long is a warning, one that has missed events a problem."""
    run(CURSOR, "quick", "1 second")
    assert look("outbox cursors").state == "Cursors of workers that keep up: 1."
    run(CURSOR, "slow", "20 minutes")
    late = look("outbox cursors")
    run("SELECT pg_current_xact_id()")
    run("UPDATE pgobserve.outbox_state SET horizon = pg_current_snapshot()")
    lost = look("outbox cursors")

    assert late.level == "warning"
    assert [each.partition(" for ")[0] for each in late.details] == ["'slow' has not moved"]
    assert lost.level == "problem"
    assert len(lost.details) == 2
    assert all(each.endswith("must start again (retention)") for each in lost.details)


@pytest.mark.usefixtures("boxed")
def test_gate(look: Look, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """A session that holds the gate for long is reported; one with another lock is not."""
    monkeypatch.setattr(outbox_health, "LONG", 0.0)
    with psycopg.connect(**parameters(), application_name="import") as each:
        lock = "SELECT pg_advisory_xact_lock(%s, %s)"
        each.execute(lock, [ALONE.outbox_lock, OUTBOX_WAKE_SLOTS])
        assert look("outbox gate").level == "ok"
        each.execute(lock, [ALONE.outbox_lock, 1])
        found = look("outbox gate")
        assert found.level == "warning"
        assert found.details[0].startswith(f"pid {each.info.backend_pid}, 'import', for ")
        settings.PGOBSERVE = {**settings.PGOBSERVE, "OUTBOX_WAKE": "poll"}
        assert look("outbox gate").level == "ok"
