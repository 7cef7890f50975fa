"""``pgobserve install``: install triggers, or bring them up to date."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pgobserve import conf
from pgobserve.cli import work
from pgobserve.install import survey, targets
from pgobserve.triggers import installer
from pgobserve.triggers.server import outbox_storage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgobserve.cli.console import Console


def run(
    console: Console,
    labels: Sequence[str],
    *,
    database: str,
    lock_timeout: float,
    always: bool | None,
    as_json: bool,
) -> None:
    """Install the triggers of the labelled models, or of all observed models."""
    connection = targets.connect(database)
    wanted = targets.registrations(labels, using=database, always=always)
    console.warn(None if labels else targets.only_settings())
    install = partial(installer.install, using=database, lock_timeout=lock_timeout)
    jobs = [(each.title, partial(install, each)) for each in wanted]
    work.run_all(console, jobs, as_json=as_json)
    for status in survey.clashes(connection):
        console.warn(f"{status.sentence} {status.detail}. {status.remedy}")
    outbox_storage.set_limit(connection, conf.namespace(database), conf.get().OUTBOX_MAX_BYTES)
    if not wanted and not as_json:
        console.write("Nothing to install: no consumer and no setting names a model.")
