"""``manage.py pgobserve doctor`` as a whole: what it prints, and how it ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, connections

from pgobserve.cli.doctor import examination
from pgobserve.cli.doctor.case import problem
from pgobserve.errors import TriggerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.doctor.conftest import Command

ITEMS = {"MODELS": ["project.Item"]}


@pytest.fixture(autouse=True)
def healthy(command: Command, settings: Any) -> None:
    """Items are observed, and the consumers are there."""
    settings.ASGI_APPLICATION = "tests.project.asgi.application"
    settings.PGOBSERVE = ITEMS
    assert command("install", "project.Item", "auth.User")[0] == 0


def _levels(out: str) -> dict[str, str]:
    return {each["check"]: each["level"] for each in json.loads(out)}


def test_all_is_well(command: Command) -> None:
    """Where nothing is wrong, each check says so, and the exit code is 0."""
    code, out, err = command("doctor", "--json")

    assert (code, err) == (0, "")
    assert _levels(out) == dict.fromkeys(examination.CHECKS, "ok")


def test_text(command: Command) -> None:
    """The output has a line for each check, with the advice below."""
    code, out, _ = command("doctor")

    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith("ok       version: PostgreSQL ")
    assert "ok       triggers: Tables that have their triggers: 2." in lines
    assert "         > A server process has one while it has subscribers. If" in out


def test_problem(command: Command, run: Callable[..., Any]) -> None:
    """A problem makes the exit code 1; the output names the objects and the remedy."""
    run("ALTER TABLE project_item DISABLE TRIGGER pgobserve_u")
    code, out, err = command("doctor")

    assert code == 1
    assert err == f"1 of {len(examination.CHECKS)} checks have found a problem: triggers."
    assert (
        "problem  triggers: 1 of 2 tables are not as wanted.\n"
        "         - A trigger on the table of project.Item is disabled, so changes are not published: run "
        "manage.py pgobserve install project.Item (pgobserve_u on public.project_item)\n"
        "         > Run manage.py pgobserve install, as the owner of the tables.\n"
    ) in out


def test_broken_application(command: Command, settings: Any) -> None:
    """If the consumers can't be imported, one check reports it, and the other checks run."""
    settings.ASGI_APPLICATION = "tests.nowhere.application"
    code, out, err = command("doctor", "--json")

    facts = {each["check"]: each for each in json.loads(out)}
    assert code == 1
    assert err.endswith("found a problem: consumers.")
    assert "No module named 'tests.nowhere'" in facts["consumers"]["state"]
    assert facts["triggers"] == {
        "check": "triggers",
        "level": "warning",
        "state": examination.SAME_ERROR,
        "details": [],
        "advice": "See above.",
    }
    assert facts["listen"]["level"] == "ok"


def _by_sql(case: Any) -> None:
    case.query("SELECT nonsense")


def _by_itself(case: Any) -> None:
    raise LookupError("upside down")


def _by_refusal(case: Any) -> None:
    raise TriggerError("It can't be done.")


def _by_disconnection(case: Any) -> None:
    case.query("SELECT pg_terminate_backend(pg_backend_pid())")


@pytest.mark.parametrize("autocommit", [True, False])
@pytest.mark.parametrize(
    ("check", "state"),
    [
        (_by_sql, 'This check failed. The database refused: column "nonsense" does not exist.'),
        (_by_itself, "This check failed: LookupError: upside down"),
        (_by_refusal, "It can't be done."),
        (_by_disconnection, "terminating connection due to administrator command"),
    ],
)
def test_check_that_fails(
    command: Command, monkeypatch: pytest.MonkeyPatch, check: Any, state: str, autocommit: bool
) -> None:
    """A check that fails says why, and those after it are made, in autocommit mode and without it."""
    monkeypatch.setitem(connection.settings_dict, "AUTOCOMMIT", autocommit)
    connection.close()
    checks = {"bad": check, **{k: v for k, v in examination.CHECKS.items() if k != "autocommit"}}
    monkeypatch.setattr(examination, "CHECKS", checks)
    try:
        _, out, _ = command("doctor", "--json")
    finally:
        connection.close()

    facts = json.loads(out)
    assert facts[0]["level"] == "problem"
    assert state in facts[0]["state"]
    assert [each["check"] for each in facts if each["level"] != "ok"] == ["bad"]


def test_autocommit(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without autocommit mode rows are read in a transaction that does not end: a problem."""
    monkeypatch.setitem(connection.settings_dict, "AUTOCOMMIT", False)
    connection.close()
    try:
        code, _, err = command("doctor")
    finally:
        connection.close()

    assert (code, err.partition(": ")[2]) == (1, "autocommit.")


def test_only_warnings(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning is no problem."""
    monkeypatch.setattr(
        "pgobserve.cli.doctor.server_health.FIXED_IN", dict.fromkeys(range(14, 19), 99)
    )
    code, out, _ = command("doctor", "--json")

    assert code == 0
    assert _levels(out)["update"] == "warning"


def test_what_can_not_be_begun(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a database, or with none of PostgreSQL's, nothing is looked at: exit code 2."""
    code, out, err = command("doctor", "--database", "nowhere")
    assert (code, out) == (2, "")
    assert err.startswith("There is no database alias 'nowhere'.")

    monkeypatch.setattr(type(connections["default"]), "vendor", "sqlite")
    code, _, err = command("doctor")
    assert (code, "pgobserve needs PostgreSQL" in err) == (2, True)


def test_all_checks_are_documented() -> None:
    """The reference has a line for each check."""
    from tests.unit.cli.test_documentation import _section

    assert [name for name in examination.CHECKS if f"| `{name}` |" not in _section("doctor")] == []
    assert problem("x", advice="y").level == "problem"
