"""``pgobserve uninstall``: remove our triggers, their functions, and our schema when it is empty."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pgobserve import conf
from pgobserve.cli import work
from pgobserve.install import survey, targets
from pgobserve.triggers import installer, registry
from pgobserve.triggers.server.drift import State

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
    """Remove the triggers of the labelled models, or all triggers of this project."""
    connection = targets.connect(database)
    tables = survey.statuses(connection, labels) if labels else survey.installed(connection)
    # Keep the triggers on a child's parents, which other consumers may watch.
    named = {registry.canonical(registry.find(label))._meta.label for label in labels}
    uninstall = partial(
        installer.uninstall,
        namespace=conf.namespace(database),
        using=database,
        lock_timeout=lock_timeout,
    )
    jobs = [
        (status.title, partial(uninstall, table, status.title))
        for table, status in tables
        if table is not None
        and (status.state is State.ORPHAN or not orphans)
        and (status.title in named or not labels)
    ]
    work.run_all(console, jobs, as_json=as_json)
    if not jobs and not as_json:
        console.write("Nothing to remove.")
