"""Triggers of another project, or another deployment, in this project's namespace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.apps import apps
from django.db import router

from pgobserve import conf
from pgobserve.triggers import names
from pgobserve.triggers.server import catalog
from pgobserve.triggers.server.drift import State, Status, is_other_project

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.triggers.trigger_values import CatalogEntry, Comment, TableInfo


@dataclass(frozen=True, slots=True)
class ProjectTables:
    """
    This project's tables in a database.

    Attributes:
        tables: ``db_table`` by model label.
        oids: Object ids of the tables and their partitions.
        schemas: Their schemas.
        home: The first schema of the role's ``search_path``; empty for ``public``.
        project: The project's name.
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


def find(
    connection: BaseDatabaseWrapper,
    triggers: Mapping[int, Mapping[str, CatalogEntry]],
    own: ProjectTables,
) -> dict[int, Status]:
    """Return a status for each table with another project's triggers, by its object id."""
    clashing: dict[int, Status] = {}
    for oid, on_table in triggers.items():
        for each in on_table.values():
            if each.comment is not None and own.clashes(each.table, each.comment):
                clashing[oid] = _status(connection, each.table, each.comment)
                break
    return clashing


def _status(connection: BaseDatabaseWrapper, table: TableInfo, comment: Comment) -> Status:
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
