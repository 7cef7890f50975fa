"""The database that is looked at, and what several checks ask of it, asked once."""

from __future__ import annotations

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

#: Feeds are told apart from other sessions by their name, and this command from feeds.
OWN_NAME: Final = "pgobserve-doctor"


class Examination:
    """
    A database and this project.

    Args:
        connection: Of the alias, connected.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection
        self.alias = connection.alias

    def query(
        self, statement: str | Composed, parameters: Sequence[Any] | Mapping[str, Any] | None = None
    ) -> list[Any]:
        """Return the rows of a query, in which other roles' operators are not found."""
        return pinned_search_path.fetch(self.connection, statement, parameters)

    @cached_property
    def settings(self) -> Settings:
        """The settings; asking for them raises if they are wrong."""
        return conf.get()

    @property
    def namespace(self) -> Namespace:
        """The namespace of this project in the database."""
        return conf.namespace(self.alias)

    @property
    def channel(self) -> str:
        """The channel that feeds listen on."""
        return conf.channel(self.alias)

    @property
    def overrides(self) -> Mapping[str, Any]:
        """What is different about the connections of feeds."""
        return self.settings.CONNECTION.get(self.alias, {})

    @property
    def feed_parameters(self) -> dict[str, Any]:
        """The parameters of the connections of feeds, as psycopg keywords."""
        return parameters_of(self.connection, self.overrides)

    @property
    def parameters(self) -> dict[str, Any]:
        """The same for a connection of this command's."""
        return own(self.feed_parameters)

    @cached_property
    def registrations(self) -> list[Registration]:
        """What the project observes in this database."""
        return targets.registrations(using=self.alias)

    @cached_property
    def statuses(self) -> list[Status]:
        """How the triggers stand: those, all others of this project, and orphans."""
        return [status for _, status in survey.take(self.connection)]

    @cached_property
    def tables(self) -> dict[str, TableInfo]:
        """The tables that there are of what is observed, by the label for people."""
        found = catalog.relations(self.connection, {each.table for each in self.registrations})
        return {each.title: found[each.table] for each in self.registrations if each.table in found}

    @cached_property
    def found(self) -> dict[int, dict[str, CatalogEntry]]:
        """All triggers of ours."""
        return catalog.triggers(self.connection, self.namespace)

    @cached_property
    def strangers(self) -> list[str]:
        """What lets other roles run code with the rights of the role that installed."""
        return schema_owners.strangers(self.connection, self.namespace)

    @property
    def by_outbox(self) -> list[Registration]:
        """What is observed and goes to the outbox."""
        return [each for each in self.registrations if each.transport == "outbox"]

    @property
    def listens(self) -> bool:
        """Whether feeds LISTEN: behind a proxy that pools transactions the outbox may be polled."""
        return "notify" in conf.transports() or self.settings.OUTBOX_WAKE != "poll"


def own(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return psycopg's keywords for a connection of this command's."""
    kept = {name: value for name, value in parameters.items() if name not in DJANGO_ONLY}
    return {**kept, "application_name": OWN_NAME}
