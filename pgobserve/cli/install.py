"""``pgobserve install``: put the triggers on the tables, or bring them up to date."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pgobserve import conf
from pgobserve.cli import work
from pgobserve.install import survey, targets
from pgobserve.triggers import installer, outbox_storage

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
    """Install the triggers of the labelled models, or of all that the project observes."""
    connection = targets.connect(database)
    wanted = targets.registrations(labels, using=database, always=always)
    console.warn(None if labels else targets.only_settings())
    install = partial(installer.install, using=database, lock_timeout=lock_timeout)
    work.through(
        console, [(each.title, partial(install, each)) for each in wanted], as_json=as_json
    )
    seen = survey.clashes(connection)
    for status in seen:
        console.warn(f"{status.sentence} {status.detail}. {status.remedy}")
    outbox_storage.limit(connection, conf.namespace(database), conf.get().OUTBOX_MAX_BYTES)
    if not wanted and not as_json:
        console.write("Nothing to install: no consumer and no setting names a model.")
