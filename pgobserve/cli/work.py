"""Work on table after table: tell what was done to each, go on after a failure, fail at the end."""

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


def through(console: Console, jobs: Sequence[Job], *, as_json: bool) -> None:
    """
    Do the jobs, each in a transaction of its own.

    Args:
        console: Where to tell.
        jobs: Label of the model, and what is to be done.
        as_json: Whether a machine reads it.

    Raises:
        CommandError: Some failed.
    """
    facts: list[dict[str, object]] = []
    errors: list[str] = []
    for number, (title, job) in enumerate(jobs, 1):
        counted = f"[{number}/{len(jobs)}] " if len(jobs) > 1 else ""
        try:
            done = job()
        except TriggerError as error:
            errors.append(str(error))
            facts.append({"label": title, "action": "failed", "error": str(error)})
            if len(jobs) > 1:
                console.err.write(f"{counted}{error}")
            continue
        facts.append(_facts(done))
        if not as_json:
            style = "SUCCESS" if done.action in CHANGES else ""
            console.write(counted + _line(done), style)
    if as_json:
        console.json(facts)
    if errors:
        summary = f"{len(errors)} of {len(jobs)} tables failed, and were left as they were."
        raise CommandError(errors[0] if len(jobs) == 1 else summary, returncode=EXIT_FAILED)


def _facts(done: InstallOutcome) -> dict[str, object]:
    return {
        "label": done.title,
        "table": done.table,
        "action": done.action,
        "was": done.was,
        "parts": done.parts,
    }


def _line(done: InstallOutcome) -> str:
    parts = f" and {done.parts} partitions" if done.parts else ""
    why = f" (was {done.was})" if done.action is InstallAction.UPDATED else ""
    return f"{done.title}: {done.action} on {done.table}{parts}{why}"
