"""``status`` finds problems in the catalog itself, and its remedies work."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.project.models import Item
from tests.project.shapes import Raw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def observed(settings: Any) -> None:
    """The project observes one table."""
    settings.PGOBSERVE = {"MODELS": ["project.Item"]}


def _status(command: Command, *arguments: str) -> list[tuple[str, str]]:
    code, out, _ = command("status", "--json", *arguments)
    facts = json.loads(out)
    assert code == (0 if all(each["state"] == "ok" for each in facts) else 1)
    return [(each["label"], each["state"]) for each in facts]


def _function(run: Callable[..., Any], operation: str = "u") -> str:
    ((name,),) = run(
        f"SELECT proname FROM pg_proc WHERE proname LIKE 'project_item%\\_{operation}'"
    )
    return f'pgobserve."{name}"'


BODY = "RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
REPLACE = (
    "CREATE OR REPLACE TRIGGER pgobserve_u AFTER UPDATE ON project_item "
    "REFERENCING OLD TABLE AS pgobserve_old NEW TABLE AS pgobserve_new "
    "FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
)


@pytest.mark.parametrize(
    ("statement", "state"),
    [
        ("DROP TRIGGER pgobserve_d ON project_item", "missing"),
        ("DROP SCHEMA pgobserve CASCADE", "missing"),
        ("ALTER TABLE project_item DISABLE TRIGGER pgobserve_i", "disabled"),
        ("ALTER TABLE project_item DISABLE TRIGGER ALL", "disabled"),
        ("ALTER TABLE project_item ENABLE REPLICA TRIGGER pgobserve_i", "disabled"),
        ("ALTER TABLE project_item ENABLE ALWAYS TRIGGER pgobserve_i", "tampered"),
        ("CREATE OR REPLACE FUNCTION {function}() " + BODY, "tampered"),
        ("ALTER FUNCTION {function}() SECURITY DEFINER", "tampered"),
        ("ALTER FUNCTION {function}() SET search_path = public", "tampered"),
        ("ALTER FUNCTION {function}() RENAME TO x", "tampered"),
        (
            REPLACE.replace("UPDATE ON", "UPDATE OF name ON").replace(
                "REFERENCING OLD TABLE AS pgobserve_old NEW TABLE AS pgobserve_new ", ""
            ),
            "tampered",
        ),
        (REPLACE.replace("{function}()", "{function}('x')"), "tampered"),
        (REPLACE.replace("AS pgobserve_old", "AS old"), "tampered"),
        ("ALTER TRIGGER pgobserve_u ON project_item RENAME TO mine", "missing"),
    ],
)
def test_drift(
    run: Callable[..., Any],
    install: Callable[..., Any],
    command: Command,
    statement: str,
    state: str,
) -> None:
    """Each kind of tampering has its own state, and another installation fixes it."""
    install(Item)
    assert _status(command) == [("project.Item", "ok")]
    run(statement.format(function=_function(run)))

    assert _status(command) == [("project.Item", state)]
    _, out, _ = command("status")
    assert "run manage.py pgobserve install project.Item" in out

    code, _, _ = command("install")
    assert code == 0
    assert _status(command) == [("project.Item", "ok")]
    run("DROP TRIGGER IF EXISTS mine ON project_item")


def test_not_installed(command: Command) -> None:
    """A table without triggers is missing, with the sentence that a client receives."""
    code, out, err = command("status")

    assert code == 1
    assert (
        "Changes of project.Item are not observed yet: run manage.py pgobserve install project.Item"
        in out
    )
    assert "1 of 1 tables not as wanted" in err


def test_outdated(install: Callable[..., Any], command: Command, settings: Any) -> None:
    """Options that changed since the installation make it outdated."""
    install(Item)
    settings.PGOBSERVE = {"MODELS": {"project.Item": {"columns": ["rank"]}}}

    assert _status(command) == [("project.Item", "outdated")]
    code, out, _ = command("install")
    assert (code, out) == (0, "project.Item: updated on public.project_item (was outdated)\n")
    assert _status(command) == [("project.Item", "ok")]


def test_another_channel(install: Callable[..., Any], command: Command, settings: Any) -> None:
    """So does another channel."""
    install(Item)
    settings.PGOBSERVE = {"MODELS": ["project.Item"], "CHANNEL": "elsewhere"}

    assert _status(command) == [("project.Item", "outdated")]


def test_lost_always(run: Callable[..., Any], command: Command) -> None:
    """Triggers that no longer always fire are reported, though the comment is the same."""
    assert command("install", "--always")[0] == 0
    code, out, _ = command("status")
    assert code == 0
    assert "always" in out

    run(REPLACE.format(function=_function(run)))

    assert _status(command) == [("project.Item", "tampered")]
    assert command("install")[0] == 0
    assert run(
        "SELECT DISTINCT tgenabled FROM pg_trigger WHERE tgname LIKE 'pgobserve%%'".replace(
            "%%", "%"
        )
    ) == [("A",)]
    assert command("install", "--no-always")[0] == 0
    assert run("SELECT DISTINCT tgenabled FROM pg_trigger WHERE tgname LIKE 'pgobserve%'") == [
        ("O",)
    ]
    assert _status(command) == [("project.Item", "ok")]


def test_removed_comment(
    run: Callable[..., Any], install: Callable[..., Any], command: Command
) -> None:
    """A removed comment alone is no drift: what counts is what the triggers do."""
    install(Item)
    run("COMMENT ON TRIGGER pgobserve_u ON project_item IS NULL")

    assert _status(command) == [("project.Item", "ok")]


@pytest.fixture
def lost(run: Callable[..., Any], install: Callable[..., Any]) -> Iterator[None]:
    """A table with our triggers that no model has any more."""
    run("CREATE TABLE project_raw (id bigint PRIMARY KEY)")
    install(Raw, Item)
    run("ALTER TABLE project_raw RENAME TO lost")
    yield
    run("DROP TABLE lost")


@pytest.mark.usefixtures("lost")
def test_orphan(run: Callable[..., Any], command: Command) -> None:
    """Triggers whose model is gone are orphans; they can be removed alone."""
    assert ("project.raw", "orphan") in _status(command)
    _, out, _ = command("status")
    assert "run manage.py pgobserve uninstall --orphans" in out

    code, out, _ = command("uninstall", "--orphans")

    assert (code, out) == (0, "project.raw: removed on public.lost\n")
    assert _status(command) == [("project.Item", "ok")]


def test_another_projects_schema(
    run: Callable[..., Any], install: Callable[..., Any], command: Command
) -> None:
    """Triggers in a schema of another project are neither orphans nor ours to remove."""
    install(Item)
    run("CREATE SCHEMA theirs")
    try:
        run("CREATE TABLE theirs.project_raw (id bigint PRIMARY KEY)")
        run("SET search_path = theirs")
        install(Raw)
        run("RESET search_path")

        assert _status(command) == [("project.Item", "ok")]
        command("uninstall")
        left = run(
            "SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger WHERE tgname LIKE 'pgobserve%'"
        )
        assert left == [("theirs.project_raw",)]
    finally:
        run("RESET search_path")
        run("DROP SCHEMA theirs CASCADE")


def test_installed_but_not_observed(
    install: Callable[..., Any], command: Command, settings: Any
) -> None:
    """A table that was installed by name is looked after, too, with the options it got then."""
    install(Item, columns=["rank"])
    settings.PGOBSERVE = {"MODELS": ["auth.Group"]}

    assert _status(command) == [("auth.Group", "missing"), ("project.Item", "ok")]
    assert _status(command, "auth.Group") == [("auth.Group", "missing")]


def test_table_of_states(install: Callable[..., Any], command: Command) -> None:
    """People get a table."""
    install(Item)
    _, out, _ = command("status")

    assert out == (
        "MODEL         TABLE                STATE  FIRES   BY\n"
        "project.Item  public.project_item  ok     origin  notify\n"
    )
