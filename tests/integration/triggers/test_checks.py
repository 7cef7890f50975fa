"""System checks, and the installation after ``migrate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.core import checks
from django.core.management import CommandError, call_command

from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[..., tuple[int, str, str]]


def _run(tag: str) -> list[checks.CheckMessage]:
    found = checks.run_checks(tags=[tag], databases=["default"])
    return [each for each in found if (each.id or "").startswith("pgobserve")]


@pytest.fixture(autouse=True)
def observed(settings: Any, command: Command) -> None:
    """The project observes one table."""
    settings.PGOBSERVE = {"MODELS": ["project.Item"]}


def test_missing(install: Callable[..., Any]) -> None:
    """``check --database`` warns of missing triggers, says what mends it, and is silent then."""
    (message,) = _run(checks.Tags.database)

    assert message == checks.Warning(
        "Changes of project.Item are not observed yet: public.project_item lacks "
        "pgobserve_d, pgobserve_i, pgobserve_t, pgobserve_u.",
        hint="Run manage.py pgobserve install project.Item.",
        obj="project.Item",
        id="pgobserve.W011",
    )
    install(Item)
    assert _run(checks.Tags.database) == []


def test_no_table(settings: Any) -> None:
    """A table that ``migrate`` has yet to make is no matter of ours."""
    settings.PGOBSERVE = {"MODELS": ["project.Raw"]}

    assert _run(checks.Tags.database) == []


def test_install_on_migrate(settings: Any, command: Command, capsys: Any) -> None:
    """With ``INSTALL_ON_MIGRATE`` the triggers are there after ``migrate``, once."""
    settings.PGOBSERVE = {"MODELS": ["project.Item", "auth.User"], "INSTALL_ON_MIGRATE": True}
    call_command("migrate", verbosity=1)
    told = capsys.readouterr().out
    call_command("migrate", verbosity=1)

    assert told.count("pgobserve: project.Item: installed on public.project_item") == 1
    assert told.count("pgobserve: auth.User: installed on public.auth_user") == 1
    # The test case flushes its tables at the end, which counts as migrating.
    settings.PGOBSERVE = {"MODELS": ["project.Item", "auth.User"]}
    assert "pgobserve:" not in capsys.readouterr().out
    assert command("status")[0] == 0


def test_no_install_without_the_setting(command: Command) -> None:
    """Without it ``migrate`` installs nothing."""
    call_command("migrate", verbosity=0)

    assert command("status")[0] == 1


def test_migrate_without_a_table(settings: Any, capsys: Any) -> None:
    """A model without a table, which Django does not manage, does not make ``migrate`` fail."""
    settings.PGOBSERVE = {"MODELS": ["project.Raw"], "INSTALL_ON_MIGRATE": True}
    call_command("migrate", verbosity=1)
    settings.PGOBSERVE = {}

    told = capsys.readouterr().out
    assert 'pgobserve: project.Raw: no table "project_raw", skipped' in told


def test_migrate_fails_with_a_sentence(
    settings: Any, run: Callable[..., Any], install: Callable[..., Any]
) -> None:
    """If the triggers can't be installed ``migrate`` says why, as commands do."""
    run("CREATE VIEW project_raw AS SELECT id FROM project_item")
    settings.PGOBSERVE = {"MODELS": ["project.Raw"], "INSTALL_ON_MIGRATE": True}
    try:
        with pytest.raises(CommandError, match=r"project\.Raw can't be observed: .* is a view"):
            call_command("migrate", verbosity=0)
    finally:
        settings.PGOBSERVE = {}
        run("DROP VIEW project_raw")
