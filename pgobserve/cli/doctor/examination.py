"""``pgobserve doctor``: check for common problems in production."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from django.core.management.base import CommandError
from django.db import Error as DatabaseError

from pgobserve.cli.console import EXIT_NOT_WELL
from pgobserve.cli.doctor import listening, outbox_health, server_health, table_health
from pgobserve.cli.doctor.case import Examination, Level, problem, warning
from pgobserve.errors import PgObserveError
from pgobserve.install import targets
from pgobserve.triggers.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pgobserve.cli.console import Console
    from pgobserve.cli.doctor.case import Finding

    Check = Callable[[Examination], Finding]

#: All checks by name; a check comes after those that it depends on.
CHECKS: Final[Mapping[str, Check]] = {
    "version": server_health.version,
    "update": server_health.update,
    "standby": server_health.standby,
    "settings": server_health.settings,
    "autocommit": server_health.autocommit,
    "consumers": table_health.consumers,
    "rights": table_health.rights,
    "schema": outbox_health.schema,
    "triggers": table_health.triggers,
    "namespace": table_health.namespace,
    "routes": table_health.routes,
    "silence": table_health.silent,
    "replication": table_health.replication,
    "listen": listening.listen,
    "pooling": listening.pooling,
    "feeds": listening.feeds,
    "queue": listening.queue,
    "prepared": server_health.prepared,
    "outbox": outbox_health.stored,
    "outbox rights": outbox_health.rights,
    "outbox cursors": outbox_health.cursors,
    "outbox gate": outbox_health.gate,
    "outbox locks": outbox_health.locks,
    "connections": server_health.room,
    "pool": server_health.pool,
}

STYLES: Final = {Level.OK: "SUCCESS", Level.WARNING: "WARNING", Level.PROBLEM: "ERROR"}

#: The finding of a check that failed with the same error as one before.
SAME_ERROR: Final = "This check failed for the same reason."


def run(console: Console, *, database: str, as_json: bool) -> None:
    """Run all checks and print each finding; fail if one is a problem."""
    case = Examination(targets.connect(database))
    findings: dict[str, Finding] = {}
    errors: set[str] = set()
    for name, check in CHECKS.items():
        findings[name] = _finding(check, case, errors)
        _end_transaction(case)
        if not as_json:
            _print(console, name, findings[name])
    if as_json:
        console.json([{"check": name, **asdict(each)} for name, each in findings.items()])
    bad = [name for name, finding in findings.items() if finding.level is Level.PROBLEM]
    if bad:
        raise CommandError(
            f"{len(bad)} of {len(findings)} checks have found a problem: {', '.join(bad)}.",
            returncode=EXIT_NOT_WELL,
        )


def _finding(check: Check, case: Examination, errors: set[str]) -> Finding:
    """Run a check; an error is a finding too, which ``errors`` then contains."""
    try:
        return check(case)
    except PgObserveError as error:
        state, advice = str(error), "Fix that first."
    except DatabaseError as error:
        state, advice = f"This check failed. {refusal(error)}", "See the server's log."
    except Exception as error:  # noqa: BLE001 (the project's code, or a defect: other checks run)
        state = f"This check failed: {type(error).__name__}: {error}"
        advice = "If this is not the project's own code, please report it."
    _replace_broken(case)
    if state in errors:
        return warning(SAME_ERROR, advice="See above.")
    errors.add(state)
    return problem(state, advice=advice)


def _end_transaction(case: Examination) -> None:
    """End the transaction without autocommit, so that the next check sees the present state."""
    connection = case.connection
    if not connection.in_atomic_block and not connection.get_autocommit():
        with suppress(DatabaseError):
            connection.rollback()


def _replace_broken(case: Examination) -> None:
    """Close a broken connection, so that the next check opens another."""
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
