"""Why a subscription is refused, as ``status`` says it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import DEFAULT_DB_ALIAS, connections
from django.db import Error as DatabaseError

from pgobserve.errors import PgObserveError
from pgobserve.install import survey, unseen_tables
from pgobserve.sql.columns import server_name
from pgobserve.triggers import names
from pgobserve.triggers.server import catalog
from pgobserve.triggers.server.drift import State, is_covered

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pgobserve.sql.relation_path import RelationPath


def covered_views(tables: Sequence[str], full_refresh: Sequence[str], using: str) -> list[str]:
    """Return the tables that are views, in whose place all that they read is watched."""
    found = catalog.relations(connections[using], map(names.quote, tables))
    declared = [*map(server_name, full_refresh)]
    return [
        table
        for table in tables
        if (info := found.get(names.quote(table))) is not None and is_covered(info, declared)
    ]


def sentence(name: str, labels: Sequence[str], paths: Iterable[RelationPath], using: str) -> str:
    """
    Return what is missing, and all that must be done.

    Args:
        name: The consumer.
        labels: Labels of the tables without triggers, in the rows' own database.
        paths: Paths of the consumer into other databases.
        using: The alias of the rows' database.
    """
    found = [*unseen_tables.elsewhere(name, paths, using)]
    if found:
        found.append("All that it reads: manage.py pgobserve deps")
    missing = [*labels]
    try:
        for _, status in survey.statuses(connections[using], labels) if labels else ():
            if status.state is not State.MISSING and status.state is not State.OK:
                found.append(status.sentence)
                missing.remove(status.title)
    except (PgObserveError, DatabaseError, ValueError):
        pass  # the command will say what is wrong
    if missing:
        found.append(run_install(missing, using))
    return " ".join(found)


def run_install(labels: Sequence[str], using: str) -> str:
    """Return the sentence for tables without triggers."""
    database = "" if using == DEFAULT_DB_ALIAS else f" --database {using}"
    return (
        f"Changes of {', '.join(labels)} are not observed yet: run manage.py pgobserve install "
        f"{' '.join(labels)}{database}"
    )
