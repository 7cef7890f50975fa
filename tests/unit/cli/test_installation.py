"""Working on table after table."""

from __future__ import annotations

import io
import json

import pytest
from django.core.management.base import CommandError, OutputWrapper
from django.core.management.color import no_style

from pgobserve.cli import installation
from pgobserve.cli.console import EXIT_FAILED, Console
from pgobserve.errors import TriggerError
from pgobserve.triggers.installer import InstallAction, InstallOutcome
from pgobserve.triggers.server.drift import State


def _good(title: str = "shop.Order", parts: int = 0) -> installation.Job:
    outcome = InstallOutcome(
        title=title, table="public.t", action=InstallAction.UPDATED, was=State.OUTDATED, parts=parts
    )
    return title, lambda: outcome


def _bad() -> installation.Job:
    def fail() -> InstallOutcome:
        raise TriggerError("It can't be done.")

    return "shop.Bad", fail


def _through(jobs: list[installation.Job], *, as_json: bool = False) -> tuple[str, str, str]:
    out, err, end = io.StringIO(), io.StringIO(), ""
    console = Console(OutputWrapper(out), OutputWrapper(err), no_style())
    try:
        installation.run_all(console, jobs, as_json=as_json)
    except CommandError as error:
        end = str(error) if error.returncode == EXIT_FAILED else f"exit code {error.returncode}"
    return out.getvalue(), err.getvalue(), end


def test_one() -> None:
    """An outcome is printed in one line."""
    line = "shop.Order: updated on public.t and 3 partitions (was outdated)\n"

    assert _through([_good(parts=3)]) == (line, "", "")


def test_one_that_fails() -> None:
    """If there is one table alone, its error is the command's."""
    assert _through([_bad()]) == ("", "", "It can't be done.")


def test_many() -> None:
    """Each of many tables is counted, and the last line counts the failures."""
    out, err, end = _through([_good("a.A"), _bad(), _good("c.C")])

    assert [line.split(":")[0] for line in out.splitlines()] == ["[1/3] a.A", "[3/3] c.C"]
    assert err == "[2/3] It can't be done.\n"
    assert end == "1 of 3 tables failed and are unchanged."


def test_json() -> None:
    """A machine gets one array, failures included, and the exit code all the same."""
    out, _, end = _through([_good(), _bad()], as_json=True)

    assert [each["action"] for each in json.loads(out)] == ["updated", "failed"]
    assert json.loads(out)[1] == {
        "label": "shop.Bad",
        "action": "failed",
        "error": "It can't be done.",
    }
    assert end


@pytest.mark.parametrize("as_json", [True, False])
def test_nothing(as_json: bool) -> None:
    """No table is no failure."""
    assert _through([], as_json=as_json) == ("[]\n" if as_json else "", "", "")
