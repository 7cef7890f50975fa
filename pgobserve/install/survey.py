"""Look at all tables at once: those that are observed, those that have triggers, and orphans."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgobserve import conf
from pgobserve.install import namespace_clash, targets
from pgobserve.triggers import outbox_storage
from pgobserve.triggers.server import catalog, drift

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.triggers.registry import Registration
    from pgobserve.triggers.server.drift import Status
    from pgobserve.triggers.trigger_values import CatalogEntry, TableInfo


def take(
    connection: BaseDatabaseWrapper, labels: Sequence[str] = ()
) -> list[tuple[TableInfo | None, Status]]:
    """
    Return every table with its status.

    Args:
        connection: The database.
        labels: Labels of models; none means all that the project observes, all others of this
            project that have our triggers, the orphans, and what clashes with this project.
    """
    wanted = targets.registrations(labels, using=connection.alias)
    found = catalog.triggers(connection, conf.namespace(connection.alias))
    if labels:
        return _judged(connection, wanted, found)
    own = namespace_clash.Own.of(connection)
    others = namespace_clash.look(connection, found, own)
    mine = {oid: each for oid, each in found.items() if oid not in others}
    wanted = [*wanted, *_others(connection, wanted, mine)]
    return [
        *_judged(connection, wanted, found),
        *((None, status) for status in others.values()),
        *_orphans(connection, mine, own),
    ]


def installed(connection: BaseDatabaseWrapper) -> list[tuple[TableInfo | None, Status]]:
    """Return every table of this project that has triggers of ours, whoever observes it now."""
    found = catalog.triggers(connection, conf.namespace(connection.alias))
    own = namespace_clash.Own.of(connection)
    others = namespace_clash.look(connection, found, own)
    mine = {oid: each for oid, each in found.items() if oid not in others}
    return [
        *_judged(connection, _others(connection, (), mine), mine),
        *_orphans(connection, mine, own),
    ]


def clashes(connection: BaseDatabaseWrapper) -> list[Status]:
    """Return the tables that another project has triggers on, in this project's namespace."""
    found = catalog.triggers(connection, conf.namespace(connection.alias))
    return [*namespace_clash.look(connection, found, namespace_clash.Own.of(connection)).values()]


def _judged(
    connection: BaseDatabaseWrapper,
    wanted: Sequence[Registration],
    found: Mapping[int, Mapping[str, CatalogEntry]],
) -> list[tuple[TableInfo | None, Status]]:
    tables = catalog.relations(connection, {each.table for each in wanted})
    in_outbox = any(each.transport == "outbox" for each in wanted)
    problem = (
        outbox_storage.problem(connection, conf.namespace(connection.alias)) if in_outbox else ""
    )
    judged = []
    for each in wanted:
        table = tables.get(each.table)
        status = drift.judge(each, table, found, using=connection.alias, outbox=problem)
        judged.append((table, status))
    return judged


def _others(
    connection: BaseDatabaseWrapper,
    wanted: Sequence[Registration],
    found: Mapping[int, Mapping[str, CatalogEntry]],
) -> list[Registration]:
    """Return registrations of models that nobody observes now, but whose tables have triggers."""
    labels = {each.label for each in wanted}
    others: dict[str, Registration] = {}
    for on_table in found.values():
        for trigger in on_table.values():
            if trigger.comment is not None and trigger.comment.label not in labels:
                registration = targets.recorded(trigger.comment, connection.alias)
                if registration is not None:
                    others.setdefault(registration.label, registration)
    # Another project in this database may have models of the same labels.
    tables = catalog.relations(connection, {each.table for each in others.values()})
    return [
        others[label]
        for label in sorted(others)
        if (table := tables.get(others[label].table)) is not None
        and any(each.oid in found for each in (table, *table.parts))
    ]


def _orphans(
    connection: BaseDatabaseWrapper,
    found: Mapping[int, Mapping[str, CatalogEntry]],
    own: namespace_clash.Own,
) -> list[tuple[TableInfo | None, Status]]:
    # Another project may live in the same database, in schemas of its own.
    lost = drift.orphans(found, own.oids, own.schemas, using=connection.alias)
    by_name = {str(e.table): e.table for on in found.values() for e in on.values()}
    return [(by_name[status.table], status) for status in lost]
