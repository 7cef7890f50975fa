"""Run a job for each table: report each outcome, continue after failures, fail at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.management.base import CommandError

from pgobserve.cli.console import EXIT_FAILED
from pgobserve.errors import TriggerError
from pgobserve.triggers.installer import InstallAction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pgobserve.cli.console import Console
    from pgobserve.triggers.installer import InstallOutcome

    Job = tuple[str, Callable[[], InstallOutcome]]

CHANGES = (InstallAction.INSTALLED, InstallAction.UPDATED, InstallAction.REMOVED)


def run_all(console: Console, jobs: Sequence[Job], *, as_json: bool) -> None:
    """
    Run the jobs, each in its own transaction.

    Raises:
        CommandError: A job failed.
    """
    results: list[dict[str, object]] = []
    errors: list[str] = []
    for number, (title, job) in enumerate(jobs, 1):
        counted = f"[{number}/{len(jobs)}] " if len(jobs) > 1 else ""
        try:
            outcome = job()
        except TriggerError as error:
            errors.append(str(error))
            results.append({"label": title, "action": "failed", "error": str(error)})
            if len(jobs) > 1:
                console.err.write(f"{counted}{error}")
            continue
        results.append(_as_json(outcome))
        if not as_json:
            style = "SUCCESS" if outcome.action in CHANGES else ""
            console.write(counted + _line(outcome), style)
    if as_json:
        console.json(results)
    if errors:
        summary = f"{len(errors)} of {len(jobs)} tables failed and are unchanged."
        raise CommandError(errors[0] if len(jobs) == 1 else summary, returncode=EXIT_FAILED)


def _as_json(outcome: InstallOutcome) -> dict[str, object]:
    return {
        "label": outcome.title,
        "table": outcome.table,
        "action": outcome.action,
        "was": outcome.was,
        "parts": outcome.parts,
    }


def _line(outcome: InstallOutcome) -> str:
    parts = f" and {outcome.parts} partitions" if outcome.parts else ""
    before = f" (was {outcome.was})" if outcome.action is InstallAction.UPDATED else ""
    return f"{outcome.title}: {outcome.action} on {outcome.table}{parts}{before}"
