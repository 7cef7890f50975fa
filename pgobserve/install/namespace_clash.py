"""Triggers in this project's namespace that are another project's, or another deployment's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.apps import apps
from django.db import router

from pgobserve import conf
from pgobserve.triggers import names
from pgobserve.triggers.server import catalog
from pgobserve.triggers.server.drift import State, Status, is_others

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.triggers.trigger_values import CatalogEntry, Comment, TableInfo


@dataclass(frozen=True, slots=True)
class Own:
    """
    What belongs to this project in a database.

    Attributes:
        tables: Name of the model's table by its label, as Django has it.
        oids: Object ids of those tables, and of their partitions.
        schemas: The schemas that they are in.
        home: The schema that sessions begin with; empty for ``public``.
        project: What the project is called.
    """

    tables: Mapping[str, str]
    oids: frozenset[int]
    schemas: frozenset[str]
    home: str
    project: str

    @classmethod
    def of(cls, connection: BaseDatabaseWrapper) -> Own:
        """Look at the models, and at the database."""
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
        Say whether a trigger in this project's namespace is not this project's.

        Two deployments of one project, each in a schema of its own, count as two. A tenant's table
        does not: it has the label and the name of one of this project's, and was installed from the
        same schema.
        """
        others = is_others(comment, self.project)
        if table.oid in self.oids:
            return others and comment.label not in self.tables
        if self.tables.get(comment.label) == table.name:
            return comment.home != self.home
        return others or (comment.home != self.home and table.schema not in self.schemas)


def look(
    connection: BaseDatabaseWrapper, found: Mapping[int, Mapping[str, CatalogEntry]], own: Own
) -> dict[int, Status]:
    """
    Return a status for each table with triggers of another project, by its object id.

    Args:
        connection: The database.
        found: All triggers in this project's namespace.
        own: What belongs to this project.
    """
    seen: dict[int, Status] = {}
    for oid, on_table in found.items():
        for each in on_table.values():
            if each.comment is not None and own.clashes(each.table, each.comment):
                seen[oid] = _status(connection, each.table, each.comment)
                break
    return seen


def _status(connection: BaseDatabaseWrapper, table: TableInfo, comment: Comment) -> Status:
    schema = conf.namespace(connection.alias).schema
    where = f", installed from the schema {comment.home}" if comment.home else ""
    return Status(
        title=comment.label,
        table=str(table),
        state=State.CLASH,
        detail=(
            f"{table} has triggers in the namespace {schema} that were made for {comment.label} by "
            f"the project {comment.project or 'without a name'}{where}"
        ),
        transport=comment.transport,
        using=connection.alias,
    )
