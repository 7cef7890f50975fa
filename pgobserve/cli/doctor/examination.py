"""``pgobserve doctor``: look at what commonly goes wrong in production."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from django.core.management.base import CommandError
from django.db import Error as DatabaseError

from pgobserve.cli.console import EXIT_NOT_WELL
from pgobserve.cli.doctor import (
    limits,
    listening,
    notification_queue,
    outbox_health,
    server_health,
    silence,
    table_health,
    trust_health,
)
from pgobserve.cli.doctor.case import Examination
from pgobserve.cli.doctor.finding import Level, problem, warning
from pgobserve.errors import PgObserveError
from pgobserve.install import targets
from pgobserve.triggers.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pgobserve.cli.console import Console
    from pgobserve.cli.doctor.finding import Finding

    Check = Callable[[Examination], Finding]

#: All checks, by their names, in the order in which one depends on another.
CHECKS: Final[Mapping[str, Check]] = {
    "version": server_health.version,
    "update": server_health.update,
    "standby": server_health.standby,
    "settings": limits.settings,
    "autocommit": limits.autocommit,
    "consumers": table_health.consumers,
    "rights": table_health.rights,
    "schema": trust_health.schema,
    "triggers": table_health.triggers,
    "namespace": table_health.namespace,
    "routes": table_health.routes,
    "silence": silence.silent,
    "replication": table_health.replication,
    "listen": listening.listen,
    "pooling": listening.pooling,
    "feeds": listening.feeds,
    "queue": notification_queue.queue,
    "prepared": server_health.prepared,
    "outbox": outbox_health.stored,
    "outbox rights": outbox_health.rights,
    "outbox cursors": outbox_health.cursors,
    "outbox gate": outbox_health.gate,
    "outbox locks": trust_health.locks,
    "connections": limits.room,
    "pool": limits.pool,
}

STYLES: Final = {Level.OK: "SUCCESS", Level.WARNING: "WARNING", Level.PROBLEM: "ERROR"}

#: What a check that has failed itself makes of it.
SAME: Final = "For the same reason this can't be told."


def run(console: Console, *, database: str, as_json: bool) -> None:
    """Make all checks and print what each has found; fail if one has found a problem."""
    case = Examination(targets.connect(database))
    found: dict[str, Finding] = {}
    told: set[str] = set()
    for name, check in CHECKS.items():
        found[name] = _made(check, case, told)
        _end_transaction(case)
        if not as_json:
            _print(console, name, found[name])
    if as_json:
        console.json([_facts(name, finding) for name, finding in found.items()])
    bad = [name for name, finding in found.items() if finding.level is Level.PROBLEM]
    if bad:
        raise CommandError(
            f"{len(bad)} of {len(found)} checks have found a problem: {', '.join(bad)}.",
            returncode=EXIT_NOT_WELL,
        )


def _made(check: Check, case: Examination, told: set[str]) -> Finding:
    """Make a check; if it fails, that is what it has found."""
    try:
        return check(case)
    except PgObserveError as error:
        state, advice = str(error), "Mend that."
    except DatabaseError as error:
        state, advice = f"This can't be told. {refusal(error)}", "See the log of the server."
    except Exception as error:  # noqa: BLE001 (the project's code, or a defect: the others go on)
        state = f"This can't be told: {type(error).__name__}: {error}"
        advice = "If it is not the project's own code, please report it."
    _replace_broken(case)
    if state in told:
        return warning(SAME, advice="See above.")
    told.add(state)
    return problem(state, advice=advice)


def _end_transaction(case: Examination) -> None:
    """Let each check see what is the case then, where Django is not in autocommit mode."""
    connection = case.connection
    if not connection.in_atomic_block and not connection.get_autocommit():
        with suppress(DatabaseError):
            connection.rollback()


def _replace_broken(case: Examination) -> None:
    """Let the next check have a connection that works."""
    if not case.connection.in_atomic_block and not case.connection.is_usable():
        case.connection.close()


def _print(console: Console, name: str, finding: Finding) -> None:
    level = console.painted(finding.level.ljust(len(Level.PROBLEM)), STYLES[finding.level])
    console.write(f"{level}  {name}: {finding.state}")
    indent = " " * (len(Level.PROBLEM) + 2)
    for detail in finding.details:
        console.write(f"{indent}- {detail}")
    if finding.advice:
        console.write(f"{indent}> {finding.advice}")


def _facts(name: str, finding: Finding) -> dict[str, object]:
    return {
        "check": name,
        "level": finding.level,
        "state": finding.state,
        "details": list(finding.details),
        "advice": finding.advice,
    }
