"""``status`` prints the state of the triggers; ``prune``, for cron, removes old rows from the outbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.management.base import CommandError

from pgobserve import conf
from pgobserve.cli.console import EXIT_FAILED, EXIT_NOT_WELL
from pgobserve.install import outbox_report, survey, targets, unseen_tables
from pgobserve.install.outbox_report import as_json as status_json
from pgobserve.triggers import installer
from pgobserve.triggers.refusals import explained
from pgobserve.triggers.server import outbox_storage, schema_owners
from pgobserve.triggers.server.drift import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgobserve.cli.console import Console
    from pgobserve.triggers.server.drift import Status
    from pgobserve.triggers.server.outbox_storage import StorageStatus

HEADING = ("MODEL", "TABLE", "STATE", "FIRES", "BY")

#: Why the rotation stops, by its last step.
REASONS = {
    "early": "the next slot is not due yet",
    "busy": "a transaction still uses a slot (see pg_stat_activity); prune it again later",
    "elsewhere": "a server process or another command rotates it now",
}


def run(console: Console, labels: Sequence[str], *, database: str, as_json: bool) -> None:
    """Print the status of each table; fail unless all are OK."""
    connection = targets.connect(database)
    statuses = [status for _, status in survey.statuses(connection, labels)]
    console.warn(None if labels else targets.only_settings())
    outbox = outbox_report.read_status(connection)
    namespace = conf.namespace(database)
    problems = schema_owners.problems(connection, namespace)
    if as_json:
        console.json([_as_json(status) for status in statuses])
    else:
        _print(console, statuses)
        for text in () if labels else unseen_tables.of(database):
            console.write(f"\n{text}", "WARNING")
        if outbox is not None:
            _print_outbox(console, outbox)
    bad = sum(status.state is not State.OK for status in statuses)
    if bad:
        text = f"{bad} of {len(statuses)} tables not as wanted."
        raise CommandError(text, returncode=EXIT_NOT_WELL)
    if problems:
        raise CommandError(
            f"Other roles control part of the schema {namespace.schema}: {'; '.join(problems)}. "
            "Run manage.py pgobserve doctor.",
            returncode=EXIT_NOT_WELL,
        )


def _as_json(status: Status) -> dict[str, object]:
    return {
        "label": status.title,
        "table": status.table,
        "state": status.state,
        "detail": status.detail,
        "always": status.always,
        "parts": status.parts,
        "transport": status.transport,
        "sentence": status.sentence,
        "command": status.command,
    }


def _print(console: Console, statuses: Sequence[Status]) -> None:
    if not statuses:
        console.write("Nothing is observed: no consumer and no setting names a model.")
        return
    rows = [
        (
            status.title,
            status.table + (f" (+{status.parts} partitions)" if status.parts else ""),
            str(status.state),
            "always" if status.always else "origin",
            status.transport,
        )
        for status in statuses
    ]
    styles = ["SUCCESS" if status.state is State.OK else "ERROR" for status in statuses]
    console.table([HEADING, *rows], styles)
    for status in statuses:
        if status.state is not State.OK:
            console.write(f"\n{status.sentence}\n  {status.detail}")
        if status.state is State.CLASH:
            console.write(f"  {status.remedy}")


def _print_outbox(console: Console, outbox: StorageStatus) -> None:
    moment = f"{outbox.rotated_at:%Y-%m-%d %H:%M:%S} UTC"
    console.write(
        f"\nThe outbox takes {outbox.size:,} of {outbox.max_bytes:,} bytes, and rotated last at {moment}."
    )
    for warning in outbox_report.warnings(outbox):
        console.write(f"{warning}.", "WARNING")


def prune(console: Console, *, database: str, as_json: bool) -> None:
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
