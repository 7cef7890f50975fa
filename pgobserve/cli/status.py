"""``pgobserve status``: how the triggers stand, table by table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.management.base import CommandError

from pgobserve import conf
from pgobserve.cli.console import EXIT_NOT_WELL
from pgobserve.install import outbox_report, survey, targets
from pgobserve.triggers.server import schema_owners
from pgobserve.triggers.server.drift import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgobserve.cli.console import Console
    from pgobserve.triggers.outbox_storage import StorageStatus
    from pgobserve.triggers.server.drift import Status

HEADING = ("MODEL", "TABLE", "STATE", "FIRES", "BY")


def run(console: Console, labels: Sequence[str], *, database: str, as_json: bool) -> None:
    """Print how each table stands; fail unless all is well."""
    connection = targets.connect(database)
    seen = [status for _, status in survey.take(connection, labels)]
    console.warn(None if labels else targets.only_settings())
    facts = outbox_report.look(connection)
    namespace = conf.namespace(database)
    strangers = schema_owners.problems(connection, namespace)
    if as_json:
        console.json([_facts(status) for status in seen])
    else:
        _print(console, seen)
        if facts is not None:
            _print_outbox(console, facts)
    bad = sum(status.state is not State.OK for status in seen)
    if bad:
        raise CommandError(f"{bad} of {len(seen)} tables not as wanted.", returncode=EXIT_NOT_WELL)
    if strangers:
        raise CommandError(
            f"Other roles have a hand in the schema {namespace.schema}: {'; '.join(strangers)}. "
            "Run manage.py pgobserve doctor.",
            returncode=EXIT_NOT_WELL,
        )


def _facts(status: Status) -> dict[str, object]:
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


def _print(console: Console, seen: Sequence[Status]) -> None:
    if not seen:
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
        for status in seen
    ]
    console.table(
        [HEADING, *rows],
        ["SUCCESS" if status.state is State.OK else "ERROR" for status in seen],
    )
    for status in seen:
        if status.state is not State.OK:
            console.write(f"\n{status.sentence}\n  {status.detail}")
        if status.state is State.CLASH:
            console.write(f"  {status.remedy}")


def _print_outbox(console: Console, facts: StorageStatus) -> None:
    moment = f"{facts.rotated_at:%Y-%m-%d %H:%M:%S} UTC"
    console.write(
        f"\nThe outbox takes {facts.size:,} of {facts.max_bytes:,} bytes, and went on to another "
        f"slot at {moment}."
    )
    for warning in outbox_report.warnings(facts):
        console.write(f"{warning}.", "WARNING")
