"""The examined database, with cached facts that several checks use, and what a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from pgobserve import conf
from pgobserve.database.async_connection import DJANGO_ONLY, parameters_of
from pgobserve.install import survey, targets
from pgobserve.triggers.server import catalog, pinned_search_path, schema_owners

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from psycopg.sql import Composed

    from pgobserve.conf import Settings
    from pgobserve.triggers.registry import Registration
    from pgobserve.triggers.server.drift import Status
    from pgobserve.triggers.trigger_values import CatalogEntry, TableInfo
    from pgobserve.wire import Namespace

#: This command's ``application_name``. Checks recognize the sessions of feeds by theirs.
OWN_NAME: Final = "pgobserve-doctor"


class Level(StrEnum):
    """The severity of a finding."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """
    The finding of a check.

    Attributes:
        state: What the check found, in sentences.
        details: The objects concerned, one a line.
        advice: The remedy; empty if none is needed.
    """

    level: Level
    state: str
    details: tuple[str, ...] = ()
    advice: str = ""


def ok(state: str, *details: str, advice: str = "") -> Finding:
    """Return a finding that needs no action."""
    return Finding(Level.OK, state, details, advice)


def warning(state: str, *details: str, advice: str) -> Finding:
    """Return a finding about something that works, but badly or not for long."""
    return Finding(Level.WARNING, state, details, advice)


def problem(state: str, *details: str, advice: str) -> Finding:
    """Return a finding about something that does not work."""
    return Finding(Level.PROBLEM, state, details, advice)


class Examination:
    """A database, seen from this project over an open connection."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection
        self.alias = connection.alias

    def query(
        self, statement: str | Composed, parameters: Sequence[Any] | Mapping[str, Any] | None = None
    ) -> list[Any]:
        """Return the rows of a query that runs without other roles' operators."""
        return pinned_search_path.fetch(self.connection, statement, parameters)

    @cached_property
    def settings(self) -> Settings:
        """The settings; raises ``ConfigurationError`` if they are wrong."""
        return conf.get()

    @property
    def namespace(self) -> Namespace:
        return conf.namespace(self.alias)

    @property
    def channel(self) -> str:
        """The channel on which feeds listen."""
        return conf.channel(self.alias)

    @property
    def overrides(self) -> Mapping[str, Any]:
        return self.settings.CONNECTION.get(self.alias, {})

    @property
    def feed_parameters(self) -> dict[str, Any]:
        """psycopg's keywords for connections of feeds."""
        return parameters_of(self.connection, self.overrides)

    @property
    def parameters(self) -> dict[str, Any]:
        """psycopg's keywords for this command's connection where feeds connect."""
        return own(self.feed_parameters)

    @cached_property
    def registrations(self) -> list[Registration]:
        return targets.registrations(using=self.alias)

    @cached_property
    def statuses(self) -> list[Status]:
        """The statuses of all tables of this project, orphans and clashes included."""
        return [status for _, status in survey.statuses(self.connection)]

    @cached_property
    def tables(self) -> dict[str, TableInfo]:
        """The observed tables that exist, by their model's label."""
        tables = catalog.relations(self.connection, {each.table for each in self.registrations})
        return {e.title: tables[e.table] for e in self.registrations if e.table in tables}

    @cached_property
    def triggers(self) -> dict[int, dict[str, CatalogEntry]]:
        """Our triggers, by their table's object id and their name."""
        return catalog.triggers(self.connection, self.namespace)

    @cached_property
    def foreign_objects(self) -> list[str]:
        """What other roles control in the schema, as the installing role may run it."""
        return schema_owners.foreign_objects(self.connection, self.namespace)

    @property
    def by_outbox(self) -> list[Registration]:
        """The registrations whose changes go to the outbox."""
        return [each for each in self.registrations if each.transport == "outbox"]

    @property
    def listens(self) -> bool:
        """Whether feeds LISTEN. They may poll the outbox instead, as behind a transaction pool."""
        return "notify" in conf.transports() or self.settings.OUTBOX_WAKE != "poll"


def own(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return psycopg's keywords for a connection of this command."""
    kept = {name: value for name, value in parameters.items() if name not in DJANGO_ONLY}
    return {**kept, "application_name": OWN_NAME}
