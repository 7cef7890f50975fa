"""
A cohort: the subscriptions that share one query and one serialization.

Two subscriptions with equal SQL and the same serializer share a cohort. Nothing has to be declared.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from django.db import router

from pgobserve.cohorts.hook_context import BLANK
from pgobserve.database.session import applied
from pgobserve.hub.hub import TableDependencies
from pgobserve.sql.model_tables import tables_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator
    from contextlib import AbstractContextManager

    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.cohorts.hook_context import HookContext
    from pgobserve.database.tracked_session import SessionSettings
    from pgobserve.dependencies.gathering import Dependencies
    from pgobserve.render.rendering import KeyRenderer, Renderer, VersionRenderer
    from pgobserve.sql.full_query import FullQuery
    from pgobserve.sql.keyed_query import KeyedQuery
    from pgobserve.sql.keys import Model

#: What a list subscription receives: its rows, only their keys, or their number. None: it is no list.
Wanted = Literal["rows", "keys", "count"] | None


@dataclass(slots=True, eq=False, weakref_slot=True)
class Cohort:
    """
    A compiled queryset and a renderer, shared by all subscriptions that would compile the same.

    Attributes:
        renderer: The renderer of its serializer class.
        subject: Which changes concern its rows.
        listing: How the whole list is read; None for a cohort of rows.
        context: The Python context in which it is read and rendered.
        settings: The database session's settings for both; None for none.
        owner: Runs the hooks before each read, because they change the database session; None if they
            do not. Such a cohort has one subscription.
    """

    alias: str
    statement: KeyedQuery
    renderer: Renderer | VersionRenderer | KeyRenderer
    subject: TableDependencies
    listing: ListDefinition | None = None
    context: HookContext = BLANK
    settings: SessionSettings | None = None
    owner: Owner | None = None

    @property
    def session(self) -> Hashable:
        """The identity of its database session; None for the connection as it is."""
        identity: Any = self.settings if self.owner is None else self.owner
        return identity  # type: ignore[no-any-return]

    @contextmanager
    def prepared(self, connection: BaseDatabaseWrapper) -> Iterator[Cohort]:
        """
        Set up the database session in which the rows are read, and restore it at the end.

        Yields:
            The cohort to read, because hooks that run again may choose another one.
        """
        if self.owner is not None:
            with self.owner.prepared() as cohort:
                yield cohort
        elif self.settings is not None:
            with applied(connection, self.settings):
                yield self
        else:
            yield self


class Owner(Protocol):
    """Has hooks that change the database session."""

    def prepared(self) -> AbstractContextManager[Cohort]:
        """Run the hooks, and keep the session as they change it until the end."""


@dataclass(frozen=True, slots=True)
class ListDefinition:
    """
    How a whole list is read.

    Attributes:
        only: ``"keys"`` or ``"count"`` if the subscribers receive nothing else.
        named_by: The field that names its rows to clients; None for the primary key.
    """

    whole: FullQuery
    only: str | None
    named_by: str | None


def alias_of(queryset: Any) -> str:
    """
    Return the alias to LISTEN on and read from.

    A queryset may name its alias. Otherwise it is the alias that the model is written to, because a
    replica may lag behind a notification.
    """
    alias: str = queryset._db or router.db_for_write(queryset.model, **queryset._hints)
    return alias


def subject_of(model: Model, dependencies: Dependencies) -> TableDependencies:
    """Return which changes concern the rows of a model."""
    keyed, full_refresh = tables_of(model)
    more = (each._meta.db_table for each in dependencies.full_refresh)
    return TableDependencies(
        keyed, tuple(dict.fromkeys((*full_refresh, *more))), dependencies.paths
    )
