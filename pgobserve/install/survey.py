"""The statuses of all tables: observed, with triggers, orphans, and those where another project's triggers clash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.apps import apps
from django.db import router

from pgobserve import conf
from pgobserve.install import targets
from pgobserve.triggers import names
from pgobserve.triggers.server import catalog, drift, outbox_storage
from pgobserve.triggers.server.drift import State, Status, is_other_project

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.triggers.registry import Registration
    from pgobserve.triggers.trigger_values import CatalogEntry, Comment, TableInfo

    #: Triggers by their table's object id and their name.
    Triggers = Mapping[int, Mapping[str, CatalogEntry]]


@dataclass(frozen=True, slots=True)
class ProjectTables:
    """
    This project's tables in a database.

    Attributes:
        tables: ``db_table`` by model label.
        oids: Object ids of the tables and their partitions.
        home: The first schema of the role's ``search_path``; empty for ``public``.
    """

    tables: Mapping[str, str]
    oids: frozenset[int]
    schemas: frozenset[str]
    home: str
    project: str

    @classmethod
    def read(cls, connection: BaseDatabaseWrapper) -> ProjectTables:
        """Read the tables of all models from the database."""
        models = [
            model
            for model in apps.get_models(include_auto_created=True)
            if router.allow_migrate_model(connection.alias, model)
        ]
        quoted = {names.quote(model._meta.db_table) for model in models}
        found = catalog.relations(connection, quoted).values()
        return cls(
            tables={model._meta.label_lower: model._meta.db_table for model in models},
            oids=frozenset(each.oid for table in found for each in (table, *table.parts)),
            schemas=frozenset(table.schema for table in found),
            home=catalog.home(connection),
            project=conf.project(),
        )

    def clashes(self, table: TableInfo, comment: Comment) -> bool:
        """
        Return whether a trigger in this project's namespace belongs to another project.

        Two deployments of one project in different schemas count as two projects. A tenant's table
        belongs to this one: it has the label and name of a model here, and was installed from the
        same schema.
        """
        others = is_other_project(comment, self.project)
        if table.oid in self.oids:
            return others and comment.label not in self.tables
        if self.tables.get(comment.label) == table.name:
            return comment.home != self.home
        return others or (comment.home != self.home and table.schema not in self.schemas)


def find_clashes(
    connection: BaseDatabaseWrapper,
    triggers: Mapping[int, Mapping[str, CatalogEntry]],
    own: ProjectTables,
) -> dict[int, Status]:
    """Return a status for each table with another project's triggers, by its object id."""
    clashing: dict[int, Status] = {}
    for oid, on_table in triggers.items():
        for _, each in sorted(on_table.items()):
            if each.comment is not None and own.clashes(each.table, each.comment):
                clashing[oid] = _clash(connection, each.table, each.comment)
                break
    return clashing


def _clash(connection: BaseDatabaseWrapper, table: TableInfo, comment: Comment) -> Status:
    schema = conf.namespace(connection.alias).schema
    where = f", from the schema {comment.home}" if comment.home else ""
    return Status(
        title=comment.label,
        table=str(table),
        state=State.CLASH,
        detail=(
            f"{table} has triggers in the namespace {schema} that the project "
            f"{comment.project or 'without a name'} installed for {comment.label}{where}"
        ),
        transport=comment.transport,
        using=connection.alias,
    )


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
    clashing = find_clashes(connection, triggers, own)
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
