"""``pgobserve install``: put the triggers on the tables, or bring them up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.management.base import CommandError

from pgobserve.cli import targets
from pgobserve.cli.console import EXIT_FAILED
from pgobserve.errors import TriggerError
from pgobserve.triggers import installer
from pgobserve.triggers.installer import Action

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgobserve.cli.console import Console

STYLES = {Action.INSTALLED: "SUCCESS", Action.UPDATED: "SUCCESS"}


def run(
    console: Console,
    labels: Sequence[str],
    *,
    database: str,
    lock_timeout: float,
    always: bool | None,
    as_json: bool,
) -> None:
    """Install table after table, each in a transaction of its own."""
    targets.connect(database)
    wanted = targets.registrations(labels, using=database, always=always)
    facts: list[dict[str, object]] = []
    failed = 0
    for number, registration in enumerate(wanted, 1):
        console.progress(number, len(wanted), registration.title)
        try:
            done = installer.install(registration, using=database, lock_timeout=lock_timeout)
        except TriggerError as error:
            failed += 1
            facts.append({"label": registration.title, "action": "failed", "error": str(error)})
            console.err.write(str(error))
            continue
        facts.append(
            {
                "label": done.title,
                "table": done.table,
                "action": done.action,
                "was": done.was,
                "parts": done.parts,
            }
        )
        if not as_json:
            parts = f" and {done.parts} partitions" if done.parts else ""
            why = f" (was {done.was})" if done.action is Action.UPDATED else ""
            line = f"{done.title}: {done.action} on {done.table}{parts}{why}"
            console.write(line, STYLES.get(done.action, ""))
    if as_json:
        console.json(facts)
    elif not wanted:
        console.write("Nothing to install: no consumer and no setting names a model.")
    if failed:
        raise CommandError(
            f"{failed} of {len(wanted)} tables failed; the others are done.", returncode=EXIT_FAILED
        )
