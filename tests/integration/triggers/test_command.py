"""``manage.py pgobserve``: what it says, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from tests.integration.triggers.conftest import parameters
from tests.project.shapes import Place, Restaurant

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[..., tuple[int, str, str]]


def test_install_by_label(command: Command) -> None:
    """Each table is printed with its outcome; labels ignore case."""
    first = command("install", "auth.User", "project.item")
    second = command("install", "auth.user", "project.Item")

    assert first[::2] == (0, "")
    assert first[1].splitlines() == [
        "[1/2] auth.User: installed on public.auth_user",
        "[2/2] project.Item: installed on public.project_item",
    ]
    assert second[1].count("unchanged") == 2
    assert command("status", "auth.User", "project.Item")[0] == 0


def test_json(command: Command) -> None:
    """``--json`` prints the same facts for a machine."""
    command("install", "auth.User")
    _, installed, _ = command("install", "auth.User", "--json")
    _, status, _ = command("status", "auth.User", "--json")
    _, removed, _ = command("uninstall", "auth.User", "--json")

    table = {"label": "auth.User", "table": "public.auth_user"}
    assert json.loads(installed) == [{**table, "action": "unchanged", "was": "ok", "parts": 0}]
    assert json.loads(status) == [
        {
            **table,
            "state": "ok",
            "detail": "",
            "always": False,
            "parts": 0,
            "transport": "notify",
            "sentence": "Changes of auth.User are observed.",
            "command": "",
        }
    ]
    assert json.loads(removed) == [{**table, "action": "removed", "was": "ok", "parts": 0}]


def test_uninstall_of_a_child(command: Command, make: Callable[..., None], settings: Any) -> None:
    """Removing a child's triggers leaves those of its parents, which others may watch."""
    make(Place, Restaurant)
    settings.PGOBSERVE = {"MODELS": ["project.Place"]}
    assert command("install", "project.Restaurant")[1].count("installed") == 2

    code, out, _ = command("uninstall", "project.Restaurant")

    assert (code, out) == (0, "project.Restaurant: removed on public.project_restaurant\n")
    assert command("status")[0] == 0


def test_models_of_the_settings(command: Command, settings: Any) -> None:
    """Without labels the models of ``PGOBSERVE`` are installed, and removed."""
    settings.PGOBSERVE = {"MODELS": ["auth.Group"]}

    assert command("install")[1] == "auth.Group: installed on public.auth_group\n"
    assert command("uninstall")[1] == "auth.Group: removed on public.auth_group\n"
    assert command("uninstall")[1] == "Nothing to remove.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["install", "nope.Nope"],
            "There is no model nope.Nope. Labels are written app_label.Model, e.g. auth.User.",
        ),
        (["status", "User"], "There is no model User."),
        (["install", "project.Raw"], 'project.Raw has no table "project_raw" in the database'),
        (["install"], "ASGI_APPLICATION is not set, so no consumer names models."),
    ],
)
def test_bad_input(command: Command, arguments: list[str], message: str) -> None:
    """What can't be done is said in a sentence, with exit code 2, and nothing is done."""
    code, out, err = command(*arguments)

    assert (code, out) == (2, "")
    assert err.startswith(message)
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regnamespace('pgobserve')")
        assert cursor.fetchone() == (None,)


@pytest.mark.parametrize("subcommand", ["install", "status"])
def test_only_settings(command: Command, settings: Any, subcommand: str) -> None:
    """Without consumers it is said that only settings say what is observed; not where labels do."""
    settings.PGOBSERVE = {"MODELS": ["project.Item"]}
    command("install", "project.Item")
    sentence = "ASGI_APPLICATION is not set, so only models of PGOBSERVE['MODELS'] are observed."

    assert sentence in command(subcommand)[2]
    assert sentence not in command(subcommand, "project.Item")[2]


@pytest.mark.parametrize(
    "options", [["--lock-timeout", "soon"], ["--lock-timeout", "0"], ["--nope"]]
)
def test_bad_option(clean: None, options: list[str]) -> None:
    """A bad option is refused before anything is tried."""
    with pytest.raises(CommandError, match="Error: "):
        call_command("pgobserve", "install", "auth.User", *options)


def test_one_failure_of_many(command: Command) -> None:
    """A table that can't be locked does not keep the others from being installed."""
    with psycopg.connect(**parameters()) as busy:
        busy.execute("LOCK TABLE auth_group IN ROW EXCLUSIVE MODE")
        code, out, err = command(
            "install", "auth.User", "auth.Group", "project.Item", "--lock-timeout", "0.05"
        )

    assert code == 2
    assert out.splitlines() == [
        "[1/3] auth.User: installed on public.auth_user",
        "[3/3] project.Item: installed on public.project_item",
    ]
    assert "[2/3] The table of auth.Group could not be locked within 0.05 s" in err
    assert err.endswith("1 of 3 tables failed and are unchanged.")


def test_schema_out_of_reach(command: Command, run: Callable[..., Any], settings: Any) -> None:
    """A schema that the role may not use is reported in a sentence too."""
    run("CREATE SCHEMA elsewhere CREATE TABLE thing (id bigint PRIMARY KEY)")
    run("CREATE ROLE stranger")
    run("SET ROLE stranger")
    try:
        for sub in ("status", "install", "sql"):
            code, _, err = command(sub, "project.Elsewhere")
            assert code == 2
            assert "permission denied for schema elsewhere" in err
    finally:
        run("RESET ROLE")
        run("DROP ROLE stranger")
        run("DROP SCHEMA elsewhere CASCADE")


def test_broken_application(command: Command, settings: Any) -> None:
    """If the project's consumers can't be imported, the error names the reason."""
    settings.ASGI_APPLICATION = "tests.nowhere.application"
    settings.PGOBSERVE = {"MODELS": ["auth.User"]}

    code, _, err = command("install")

    assert code == 2
    assert "ASGI_APPLICATION fails with ModuleNotFoundError: No module named 'tests.nowhere'" in err
    assert command("install", "auth.User")[0] == 0
    assert command("uninstall")[0] == 0


def _process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, on the test database."""
    name = str(connection.settings_dict["NAME"])
    return subprocess.run(
        [sys.executable, "-m", "django", "pgobserve", *arguments],
        env={
            **os.environ,
            "PGOBSERVE_TEST_DATABASE": name,
            "DJANGO_SETTINGS_MODULE": "tests.project.settings",
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_models_of_the_consumers(clean: None) -> None:
    """Without labels the models of the consumers that ``ASGI_APPLICATION`` imports are taken."""
    done = _process("install", "--json")

    assert (done.returncode, done.stderr) == (0, "")
    assert "auth.User" in [each["label"] for each in json.loads(done.stdout)]
    assert _process("status").returncode == 0


def test_process(clean: None) -> None:
    """In a real process the exit codes are 0, 1 and 2, and no colours go into a pipe."""
    status = _process("status", "auth.User")
    install = _process("install", "auth.User")
    again = _process("status", "auth.User")
    wrong = _process("install", "auth.Nope")

    assert [each.returncode for each in (status, install, again, wrong)] == [1, 0, 0, 2]
    assert install.stdout == "auth.User: installed on public.auth_user\n"
    assert wrong.stderr.startswith("CommandError: There is no model auth.Nope.")
    assert not any("\x1b" in each.stdout + each.stderr for each in (status, install, wrong))
