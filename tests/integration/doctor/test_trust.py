"""``doctor`` and ``status`` on roles that have a hand in our schema, and on locks that are held there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgobserve.cli.doctor import outbox_health
from tests.integration.triggers.conftest import parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.doctor.conftest import Command, Look


@pytest.fixture
def boxed(look: Look, command: Command, settings: Any, run: Callable[..., Any]) -> Iterator[None]:
    """Changes of items go to an outbox, and there is another role."""
    settings.PGOBSERVE = {"MODELS": ["project.Item"], "TRANSPORT": "outbox"}
    run("CREATE ROLE stranger")
    assert command("install")[0] == 0
    yield
    run("DROP SCHEMA IF EXISTS pgobserve CASCADE")
    run("DROP OWNED BY stranger CASCADE")
    run("DROP ROLE stranger")


def test_none(look: Look) -> None:
    """Without a schema there is nothing to trust."""
    assert look("schema").level == "ok"
    assert look("outbox locks").level == "ok"


@pytest.mark.usefixtures("boxed")
def test_well(look: Look, command: Command) -> None:
    """A schema as it was made is in one role's hands."""
    assert look("schema").level == "ok"
    assert command("status")[0] == 0


@pytest.mark.usefixtures("boxed")
@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ("ALTER SCHEMA pgobserve OWNER TO stranger", "schema pgobserve belongs to stranger"),
        ("GRANT CREATE ON SCHEMA pgobserve TO stranger", "stranger may create in it"),
        ("GRANT USAGE ON SCHEMA pgobserve TO PUBLIC", "every role may use the schema pgobserve"),
        (
            "ALTER FUNCTION pgobserve.outbox_mark(text, text) OWNER TO stranger",
            "function pgobserve.outbox_mark(text,text) belongs to stranger",
        ),
        (
            "GRANT EXECUTE ON FUNCTION pgobserve.outbox_rotate(float8) TO PUBLIC",
            "every role may execute pgobserve.outbox_rotate(double precision)",
        ),
        (
            "GRANT SELECT ON pgobserve.outbox TO PUBLIC",
            "every role may SELECT on pgobserve.outbox",
        ),
        (
            "ALTER FUNCTION pgobserve.outbox_rotate(float8) RESET search_path",
            "pgobserve.outbox_rotate(double precision) has no pinned search_path",
        ),
    ],
)
def test_strangers(
    look: Look, command: Command, run: Callable[..., Any], change: str, detail: str
) -> None:
    """Each way in is named, by ``status`` as well."""
    run(change)
    found = look("schema")
    code, _, err = command("status")

    assert found.level == "problem"
    assert detail in found.details
    assert code == 1
    assert detail in err


@pytest.mark.usefixtures("boxed")
def test_nothing_of_theirs_runs(look: Look, command: Command, run: Callable[..., Any]) -> None:
    """What a stranger has put in the place of our tables and functions is not run."""
    run("CREATE TABLE ran (by_whom text)")
    run("GRANT INSERT ON ran TO PUBLIC")
    run("ALTER TABLE pgobserve.outbox_state RENAME TO away")
    run(
        "CREATE FUNCTION pgobserve.trap() RETURNS bigint LANGUAGE sql AS "
        "'INSERT INTO public.ran VALUES (current_user); SELECT 1::bigint'"
    )
    run(
        "CREATE VIEW pgobserve.outbox_state AS SELECT only_row, horizon, rotated_at, empty_slot, "
        "quiet_at, quiet, pgobserve.trap() AS max_bytes FROM pgobserve.away"
    )
    run("ALTER VIEW pgobserve.outbox_state OWNER TO stranger")
    for name in ("outbox", "outbox rights", "outbox cursors", "outbox gate", "schema"):
        look(name)
    command("status")
    code, _, err = command("prune")
    command("install")
    ((count,),) = run("SELECT count(*) FROM ran")
    run("DROP TABLE ran")

    assert code != 0
    assert "view pgobserve.outbox_state belongs to stranger" in err
    assert count == 0


@pytest.mark.usefixtures("boxed")
def test_locks(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long transaction that holds a lock on the outbox is named."""
    monkeypatch.setattr(outbox_health, "LONG_LOCK", 0.0)
    with psycopg.connect(**parameters(), application_name="report") as each:
        each.execute("SELECT count(*) FROM pgobserve.outbox")
        found = look("outbox locks")

    assert found.level == "warning"
    assert "AccessShareLock on outbox_0" in " ".join(found.details)
    assert "'report'" in found.details[0]
