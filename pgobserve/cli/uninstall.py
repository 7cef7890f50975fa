"""``pgobserve uninstall``: remove our triggers, their functions and, at last, our schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.management.base import CommandError

from pgobserve.cli import survey, targets
from pgobserve.cli.console import EXIT_FAILED
from pgobserve.errors import TriggerError
from pgobserve.triggers import installer
from pgobserve.triggers.installer import Action
from pgobserve.triggers.state import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgobserve.cli.console import Console


def run(
    console: Console,
    labels: Sequence[str],
    *,
    database: str,
    lock_timeout: float,
    orphans: bool,
    as_json: bool,
) -> None:
    """Uninstall table after table, each in a transaction of its own."""
    connection = targets.connect(database)
    seen = survey.take(connection, labels) if labels else survey.installed(connection)
    chosen = [
        (table, status)
        for table, status in seen
        if table is not None and (status.state is State.ORPHAN or not orphans)
    ]
    facts: list[dict[str, object]] = []
    failed = 0
    for number, (table, status) in enumerate(chosen, 1):
        console.progress(number, len(chosen), status.title)
        try:
            done = installer.uninstall(
                table, status.title, using=database, lock_timeout=lock_timeout
            )
        except TriggerError as error:
            failed += 1
            facts.append({"label": status.title, "action": "failed", "error": str(error)})
            console.err.write(str(error))
            continue
        facts.append({"label": done.title, "table": done.table, "action": done.action})
        if not as_json:
            style = "SUCCESS" if done.action is Action.REMOVED else ""
            console.write(f"{done.title}: {done.action} on {done.table}", style)
    if as_json:
        console.json(facts)
    elif not chosen:
        console.write("Nothing to remove.")
    if failed:
        raise CommandError(
            f"{failed} of {len(chosen)} tables failed; the others are done.", returncode=EXIT_FAILED
        )
