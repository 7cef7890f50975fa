"""``prune``, and the warnings of ``status`` and the check about an outbox."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from django.core import checks
from django.db import connection

from pgobserve.triggers.server import outbox_storage
from pgobserve.wire import ALONE
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[..., tuple[int, str, str]]

OUTBOX = {"MODELS": ["project.Item"], "TRANSPORT": "outbox"}


def test_no_outbox(command: Command) -> None:
    """Without an outbox there is nothing to do."""
    code, out, _ = command("prune")
    assert (code, out) == (
        0,
        "There is no outbox in the database 'default': nothing to prune.\n",
    )
    assert json.loads(command("prune", "--json")[1]) == {
        "database": "default",
        "exists": False,
        "steps": [],
    }


def test_prune(command: Command, settings: Any, run: Callable[..., Any]) -> None:
    """It rotates as far as is due, and prints the steps."""
    settings.PGOBSERVE = {**OUTBOX, "OUTBOX_RETENTION": 100}
    command("install")
    Item.objects.create(name="a")
    assert "Nothing emptied: the next slot is not due yet." in command("prune")[1]
    for _ in range(2):
        run("UPDATE pgobserve.outbox_state SET rotated_at = rotated_at - interval '1 hour'")
        command("prune")
    run(
        "UPDATE pgobserve.outbox_state SET rotated_at = '-infinity', "
        "quiet_at = ARRAY[now() - interval '1 hour', quiet_at[2], quiet_at[3]]"
    )
    code, out, _ = command("prune")

    assert code == 0
    assert "Emptied 1 slot" in out
    assert run("SELECT count(*) FROM pgobserve.outbox") == [(0,)]
    facts = json.loads(command("prune", "--json")[1])
    assert facts["steps"] == ["early"]
    assert facts["warnings"] == []
    assert facts["full"] is False


def test_limit_follows_the_setting(command: Command, settings: Any) -> None:
    """``install`` and ``prune`` carry a new limit to the database."""
    settings.PGOBSERVE = OUTBOX
    command("install")
    for sub_command, number in (("install", 10_000_000), ("prune", 20_000_000)):
        settings.PGOBSERVE = {**OUTBOX, "OUTBOX_MAX_BYTES": number}
        assert command(sub_command)[0] == 0
        assert outbox_storage.status(connection, ALONE).max_bytes == number


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("SELECT setval('pgobserve.outbox_gate', 4)", "The outbox is full"),
        ("UPDATE pgobserve.outbox_state SET max_bytes = 150000", "The outbox takes 1"),
        (
            "UPDATE pgobserve.outbox_state SET rotated_at = rotated_at - interval '3 hours'",
            "The outbox has not rotated since",
        ),
    ],
)
def test_warnings(
    command: Command,
    settings: Any,
    run: Callable[..., Any],
    change: str,
    sentence: str,
) -> None:
    """``status`` and the check warn before it is too late, and when it is."""
    settings.PGOBSERVE = OUTBOX
    command("install")
    assert checks.run_checks(tags=[checks.Tags.database], databases=["default"]) == []
    if "max_bytes" in change:
        run(
            "INSERT INTO project_item (name, rank) SELECT md5(i::text), i FROM generate_series(1, 400) i"
        )
    run(change)

    code, out, _ = command("status")
    assert code == 0
    assert sentence in out
    (message,) = checks.run_checks(tags=[checks.Tags.database], databases=["default"])
    assert message.id == "pgobserve.W018"
    assert message.msg.startswith(sentence)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("OUTBOX_RETENTION", 0, "must be seconds from 1 to 31,622,400, not 0"),
        ("OUTBOX_RETENTION", "1h", "not '1h'"),
        ("OUTBOX_MAX_BYTES", 0, "must be bytes, at least 10,000,000, not 0"),
        ("OUTBOX_MAX_BYTES", 1e9, "not 1000000000.0"),
    ],
)
def test_bad_limits(settings: Any, name: str, value: object, message: str) -> None:
    """A limit that can't be one is a check error."""
    settings.PGOBSERVE = {**OUTBOX, name: value}
    (found,) = (each for each in checks.run_checks(app_configs=[]) if each.id == "pgobserve.E001")
    assert message in found.msg


def test_limit_after_migrate(command: Command, settings: Any) -> None:
    """What ``migrate`` installs gets the limit of the settings, too."""
    from pgobserve.install import migrating

    settings.PGOBSERVE = {**OUTBOX, "OUTBOX_MAX_BYTES": 30_000_000}
    migrating.install_app("project", using="default", verbosity=0)

    assert outbox_storage.status(connection, ALONE).max_bytes == 30_000_000
