"""``pgobserve prune``: remove outbox rows that are older than the retention; for cron."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.management.base import CommandError

from pgobserve import conf
from pgobserve.cli.console import EXIT_FAILED
from pgobserve.install import targets
from pgobserve.install.outbox_report import as_json as status_json
from pgobserve.triggers import installer
from pgobserve.triggers.refusals import explained
from pgobserve.triggers.server import outbox_storage, schema_owners

if TYPE_CHECKING:
    from pgobserve.cli.console import Console

#: Why the rotation stops, by its last step.
REASONS = {
    "early": "the next slot is not due yet",
    "busy": "a transaction still uses a slot (see pg_stat_activity); run it again later",
    "elsewhere": "a server process or another command rotates it now",
}


def run(console: Console, *, database: str, as_json: bool) -> None:
    """Rotate the outbox as far as it is due, and print its status."""
    connection, namespace = targets.connect(database), conf.namespace(database)
    if not outbox_storage.exists(connection, namespace):
        if as_json:
            console.json({"database": database, "exists": False, "steps": []})
        else:
            console.write(f"There is no outbox in the database {database!r}: nothing to prune.")
        return
    if problems := schema_owners.foreign_objects(connection, namespace):
        raise CommandError(
            f"Other roles control part of the schema {namespace.schema}: {'; '.join(problems)}. "
            "The command runs nothing of it. See manage.py pgobserve doctor.",
            returncode=EXIT_FAILED,
        )
    with explained("the outbox", installer.LOCK_TIMEOUT):
        outbox_storage.set_limit(connection, namespace, conf.get().OUTBOX_MAX_BYTES)
        steps = outbox_storage.rotate(connection, namespace, conf.get().OUTBOX_RETENTION)
        status = outbox_storage.status(connection, namespace)
    if as_json:
        console.json({"database": database, "exists": True, "steps": steps, **status_json(status)})
        return
    emptied = steps.count("emptied")
    done = f"Emptied {emptied} slot{'s' if emptied != 1 else ''}" if emptied else "Nothing emptied"
    console.write(f"{done}: {REASONS.get(steps[-1], 'done')}.", "SUCCESS" if emptied else "")
    console.write(f"The outbox takes {status.size:,} of {status.max_bytes:,} bytes.")
