"""The statuses of all tables: those that are observed, those that have triggers, and orphans."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgobserve import conf
from pgobserve.install import namespace_clash, targets
from pgobserve.install.namespace_clash import ProjectTables
from pgobserve.triggers.server import catalog, drift, outbox_storage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.triggers.registry import Registration
    from pgobserve.triggers.server.drift import Status
    from pgobserve.triggers.trigger_values import CatalogEntry, TableInfo

    #: Triggers by their table's object id and their name.
    Triggers = Mapping[int, Mapping[str, CatalogEntry]]


def statuses(
    connection: BaseDatabaseWrapper, labels: Sequence[str] = ()
) -> list[tuple[TableInfo | None, Status]]:
    """
    Return every table with its status.

    Without labels of models, that covers the observed models, all others of this project that have
    our triggers, the orphans, and tables where another project's triggers clash.
    """
    wanted = targets.registrations(labels, using=connection.alias)
    if labels:
        return _compared(connection, wanted, _triggers(connection))
    triggers, mine, clashing, own = _divided(connection)
    return [
        *_compared(connection, [*wanted, *_unobserved(connection, wanted, mine)], triggers),
        *((None, status) for status in clashing.values()),
        *_orphans(connection, mine, own),
    ]


def installed(connection: BaseDatabaseWrapper) -> list[tuple[TableInfo | None, Status]]:
    """Return every table of this project that has our triggers, observed or not."""
    _, mine, _, own = _divided(connection)
    return [
        *_compared(connection, _unobserved(connection, (), mine), mine),
        *_orphans(connection, mine, own),
    ]


def clashes(connection: BaseDatabaseWrapper) -> list[Status]:
    """Return the tables where another project has triggers in this project's namespace."""
    _, _, clashing, _ = _divided(connection)
    return [*clashing.values()]


def _triggers(connection: BaseDatabaseWrapper) -> Triggers:
    return catalog.triggers(connection, conf.namespace(connection.alias))


def _divided(
    connection: BaseDatabaseWrapper,
) -> tuple[Triggers, Triggers, Mapping[int, Status], ProjectTables]:
    """Return all triggers, this project's, the statuses of other projects' tables, and its own."""
    triggers, own = _triggers(connection), ProjectTables.read(connection)
    clashing = namespace_clash.find(connection, triggers, own)
    mine = {oid: each for oid, each in triggers.items() if oid not in clashing}
    return triggers, mine, clashing, own


def _compared(
    connection: BaseDatabaseWrapper, wanted: Sequence[Registration], triggers: Triggers
) -> list[tuple[TableInfo | None, Status]]:
    using = connection.alias
    tables = catalog.relations(connection, {each.table for each in wanted})
    in_outbox = any(each.transport == "outbox" for each in wanted)
    problem = outbox_storage.problem(connection, conf.namespace(using)) if in_outbox else ""
    return [
        (table, drift.compare(each, table, triggers, using=using, outbox=problem))
        for each in wanted
        for table in [tables.get(each.table)]
    ]


def _unobserved(
    connection: BaseDatabaseWrapper, wanted: Sequence[Registration], triggers: Triggers
) -> list[Registration]:
    """Return registrations of models that are not wanted, but whose tables have triggers."""
    labels = {each.label for each in wanted}
    others: dict[str, Registration] = {}
    for on_table in triggers.values():
        for trigger in on_table.values():
            if trigger.comment is not None and trigger.comment.label not in labels:
                registration = targets.recorded(trigger.comment, connection.alias)
                if registration is not None:
                    others.setdefault(registration.label, registration)
    # Another project in this database may have models with the same labels.
    tables = catalog.relations(connection, {each.table for each in others.values()})
    return [
        others[label]
        for label in sorted(others)
        if (table := tables.get(others[label].table)) is not None
        and any(each.oid in triggers for each in (table, *table.parts))
    ]


def _orphans(
    connection: BaseDatabaseWrapper, triggers: Triggers, own: ProjectTables
) -> list[tuple[TableInfo | None, Status]]:
    # Another project in this database may keep its tables in schemas of its own.
    lost = drift.orphans(triggers, own.oids, own.schemas, using=connection.alias)
    by_name = {str(e.table): e.table for on in triggers.values() for e in on.values()}
    return [(by_name[status.table], status) for status in lost]
