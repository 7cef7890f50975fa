"""Install and remove the triggers of one table, in one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from django.db import connections, transaction

from pgobserve.errors import TriggerError
from pgobserve.triggers import compiler, trigger_statements
from pgobserve.triggers.refusals import explained
from pgobserve.triggers.server import catalog, drift, outbox_storage
from pgobserve.triggers.server.drift import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.triggers.registry import Registration
    from pgobserve.triggers.server.drift import Status
    from pgobserve.triggers.trigger_values import CatalogEntry, TableInfo
    from pgobserve.wire import Namespace

#: Seconds to wait for a lock. Writes to the table queue behind the wait.
LOCK_TIMEOUT = 5.0


class InstallAction(StrEnum):
    """What was done to a table."""

    INSTALLED = "installed"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    REMOVED = "removed"
    ABSENT = "nothing to remove"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallOutcome:
    """What was done to a table and its partitions, and the state before."""

    title: str
    table: str
    action: InstallAction
    was: State
    parts: int = 0


def install(
    registration: Registration, *, using: str, lock_timeout: float = LOCK_TIMEOUT
) -> InstallOutcome:
    """
    Install the triggers of one table, or bring them up to date, and announce that to readers.

    Takes SHARE ROW EXCLUSIVE on the table, or no lock if its triggers are as wanted.

    Raises:
        TriggerError: The installation failed, and nothing was changed.
    """
    connection = connections[using]
    with explained(registration.title, lock_timeout), transaction.atomic(using=using):
        _prepare(connection, lock_timeout)
        # The plan precedes the lock. Two sessions may plan the same, and the second one waits; its
        # statements then replace equal triggers.
        plan = make_plan(connection, registration)
        was = plan.before.state
        action = InstallAction.INSTALLED if was is State.MISSING else InstallAction.UPDATED
        if was in drift.INSTALLED:
            action = InstallAction.UNCHANGED
        else:
            _run(connection, (*plan.statements, *trigger_statements.announcements(registration)))
        return InstallOutcome(
            title=registration.title,
            table=str(plan.table),
            action=action,
            was=was,
            parts=len(plan.table.parts),
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """A planned installation: the present status, and the statements to run unless it is OK."""

    table: TableInfo
    before: Status
    statements: tuple[str, ...]


def make_plan(connection: BaseDatabaseWrapper, registration: Registration) -> Plan:
    """
    Plan the installation of one table.

    Raises:
        TriggerError: The table does not exist, can't have our triggers, or has those of another
            project in the same namespace.
    """
    table = target(connection, registration)
    found = catalog.triggers(connection, registration.namespace, [table])
    _refuse_others(registration, table, found)
    repair, problem = _outbox(connection, registration)
    before = drift.compare(registration, table, found, using=connection.alias, outbox=problem)
    always = drift.is_always(registration, found.get(table.oid, {}))
    wanted = {
        each.function for each in compiler.wanted(registration, table, always=always).values()
    }
    unused = [
        name for name in _only_here(found, table, registration.namespace) if name not in wanted
    ]
    statements = trigger_statements.install_statements(
        registration, table, always=always, unused=unused, home=catalog.home(connection)
    )
    return Plan(table, before, (*repair, *statements))


def _refuse_others(
    registration: Registration, table: TableInfo, found: Mapping[int, Mapping[str, CatalogEntry]]
) -> None:
    """Refuse to replace another project's triggers, which would end its change feed."""
    for each in found.get(table.oid, {}).values():
        comment = each.comment
        if (
            comment is not None
            and drift.is_other_project(comment, registration.project)
            and comment.label != registration.label
        ):
            raise TriggerError(
                f"{table} has triggers of another project ({comment.project}, for "
                f"{comment.label}) in the namespace {registration.namespace.schema}. Give this "
                "project a namespace of its own, PGOBSERVE['NAMESPACE'], and run install again. If "
                "that project is gone, remove its triggers first: manage.py pgobserve uninstall "
                f"{registration.title}"
            )


def _outbox(
    connection: BaseDatabaseWrapper, registration: Registration
) -> tuple[tuple[str, ...], str]:
    """Return the statements that remove a damaged outbox, and the problem."""
    if registration.transport != "outbox":
        return (), ""
    problem = outbox_storage.problem(connection, registration.namespace)
    repair = outbox_storage.repair_statements(connection, registration.namespace) if problem else ()
    return tuple(repair), problem


def uninstall(
    table: TableInfo,
    title: str,
    *,
    namespace: Namespace,
    using: str,
    lock_timeout: float = LOCK_TIMEOUT,
) -> InstallOutcome:
    """
    Remove a namespace's triggers from a table and its partitions, with their functions.

    The schema is dropped with the last function. Takes ACCESS EXCLUSIVE on the table.

    Raises:
        TriggerError: The removal failed, and nothing was changed.
    """
    connection = connections[using]
    with explained(title, lock_timeout), transaction.atomic(using=using):
        _prepare(connection, lock_timeout)
        found = catalog.triggers(connection, namespace, [table])
        touched = tuple(each for each in (table, *table.parts) if each.oid in found)
        if not touched:
            return InstallOutcome(
                title=title, table=str(table), action=InstallAction.ABSENT, was=State.MISSING
            )
        functions = _only_here(found, table, namespace)
        _run(connection, trigger_statements.uninstall_statements(touched, functions, namespace))
        return InstallOutcome(
            title=title,
            table=str(table),
            action=InstallAction.REMOVED,
            was=State.OK,
            parts=len(table.parts),
        )


def target(connection: BaseDatabaseWrapper, registration: Registration) -> TableInfo:
    """
    Return the table of a registration.

    Raises:
        TriggerError: The table does not exist, or can't have our triggers.
    """
    title = registration.title
    table = catalog.relations(connection, [registration.table]).get(registration.table)
    if table is None:
        raise TriggerError(
            f"{title} has no table {registration.table} in the database {connection.alias!r}. "
            "Run manage.py migrate first."
        )
    if table.kind not in catalog.TRIGGERABLE:
        status = drift.compare(registration, table, {}, using=connection.alias)
        if status.state is not State.OK:
            raise TriggerError(f"{title} can't be observed: {status.detail}. {status.advice}")
    foreign = [str(part) for part in table.parts if part.kind not in catalog.TRIGGERABLE]
    if foreign:
        raise TriggerError(
            f"{title} can't be observed: {table} has partitions that are foreign tables "
            f"({', '.join(foreign)}), and with our triggers PostgreSQL would refuse writes to them. "
            "Detach them, or observe the tables behind them."
        )
    unknown = sorted(registration.needed - table.columns)
    if unknown:
        raise TriggerError(
            f"{title} can't be observed: {table} has no column {', '.join(unknown)}. Model and "
            "table differ; run manage.py migrate first."
        )
    return table


def _prepare(connection: BaseDatabaseWrapper, lock_timeout: float) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_catalog.pg_is_in_recovery()")
        (standby,) = cursor.fetchone()
        if standby:
            raise TriggerError(
                f"The database {connection.alias!r} is a standby, which takes no changes. "
                "Name the primary with --database."
            )
        cursor.execute(
            "SELECT pg_catalog.set_config('lock_timeout', %s, true)", [milliseconds(lock_timeout)]
        )


def milliseconds(seconds: float) -> str:
    """Return a timeout as PostgreSQL reads it, at least 1 ms: 0 would disable it."""
    return f"{max(1, round(seconds * 1000))}ms"


def _run(connection: BaseDatabaseWrapper, statements: Iterable[str]) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def _only_here(
    found: Mapping[int, Mapping[str, CatalogEntry]], table: TableInfo, namespace: Namespace
) -> list[str]:
    """Return our functions that only the triggers of a table and its partitions call."""
    here = frozenset(each.oid for each in (table, *table.parts))
    inside = {oid: each for oid, each in found.items() if oid in here}
    outside = {oid: each for oid, each in found.items() if oid not in here}
    used = catalog.functions(inside, namespace) - catalog.functions(outside, namespace)
    return sorted(used)
