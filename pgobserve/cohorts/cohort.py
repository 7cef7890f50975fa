"""
Where a subscription's rows come from: its queryset compiled, and its serializer.

Two subscriptions with equal SQL and the same serializer share a source, and with it one query and
one serialization; that is found out here, nobody declares it.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol
from weakref import WeakKeyDictionary, WeakValueDictionary

from django.db import connections, router
from django.db.models import QuerySet

from pgobserve._consumer.arguments import refuse_reserved
from pgobserve.cohorts.hook_context import BLANK, HookContext
from pgobserve.database.query_recorder import QueryRecorder
from pgobserve.database.session_scopes import applied, may_have_changed
from pgobserve.dependencies import row_dependencies
from pgobserve.dependencies.of_serializer import outline
from pgobserve.dependencies.prefetched import knows_related, prefetch_identity, without_known
from pgobserve.errors import ConfigurationError
from pgobserve.hub.hub import TableDependencies
from pgobserve.render.list_serializers import ListedRenderer, may_leave_out
from pgobserve.render.own_hooks import (
    SameHooks,
    has_own,
    meta_of,
    serializer_hooks,
)
from pgobserve.render.python_state import python_state, stands_for
from pgobserve.render.renderer_choice import made_by, renderer_of
from pgobserve.render.rendering import KeyRenderer
from pgobserve.render.row_names import lookup_of
from pgobserve.sql.full_query import FullQuery
from pgobserve.sql.keyed_query import KeyedQuery
from pgobserve.sql.model_tables import tables_of
from pgobserve.sql.own_rows import overrides, own_rows
from pgobserve.sql.relation_path import paths_of
from pgobserve.sql.reverse_lookup import is_direct

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.database.session_settings import SessionSettings
    from pgobserve.dependencies.gathering import Dependencies
    from pgobserve.generics import GenericAsyncAPIConsumer
    from pgobserve.render.rendering import Renderer, VersionRenderer
    from pgobserve.sql.keys import Model


class Cohort:
    """
    A compiled queryset and a renderer, shared by all who would compile the same.

    Attributes:
        alias: The database alias.
        statement: The compiled queryset.
        renderer: Of its serializer class.
        subject: Which changes concern its rows.
        listing: How it is read as a whole, if it is watched as a list.
        context: The Python context in which it is read and rendered; all who share it have an equal
            one.
        settings: Of the database session, for the same; None for none.
        owner: Whose hooks must run before each read, for they change the database session; None if
            they do not. It is not shared.
    """

    __slots__ = (
        "__weakref__",
        "alias",
        "context",
        "listing",
        "owner",
        "renderer",
        "settings",
        "statement",
        "subject",
    )

    def __init__(
        self,
        alias: str,
        statement: KeyedQuery,
        renderer: Renderer | VersionRenderer | KeyRenderer,
        subject: TableDependencies,
        listing: ListDefinition | None = None,
        context: HookContext = BLANK,
        settings: SessionSettings | None = None,
        owner: Owner | None = None,
    ) -> None:
        self.alias = alias
        self.statement = statement
        self.renderer = renderer
        self.subject = subject
        self.listing = listing
        self.context = context
        self.settings = settings
        self.owner = owner

    @property
    def session(self) -> Hashable:
        """What tells in which database session it is read; None for a connection as it is."""
        found: Any = self.settings if self.owner is None else self.owner
        return found  # type: ignore[no-any-return]

    @contextmanager
    def prepared(self, connection: BaseDatabaseWrapper) -> Iterator[Cohort]:
        """
        Have the database session be as its rows are read, and restore it at the end.

        Args:
            connection: Of its alias.

        Yields:
            The source to read: hooks that had to run again may have chosen another one.
        """
        if self.owner is not None:
            with self.owner.prepared() as source:
                yield source
        elif self.settings is not None:
            with applied(connection, self.settings):
                yield self
        else:
            yield self


class Owner(Protocol):
    """Has hooks that change the database session."""

    def prepared(self) -> AbstractContextManager[Cohort]:
        """Run the hooks, and leave the session as they change it until the end."""


@dataclass(frozen=True, slots=True)
class ListDefinition:
    """
    How a source is read as a whole.

    Attributes:
        whole: The compiled queryset.
        only: ``"keys"`` or ``"count"``: nothing else of the rows is wanted.
        named_by: The field that names its rows to clients; None for the primary key.
    """

    whole: FullQuery
    only: str | None
    named_by: str | None


_shared: WeakValueDictionary[Hashable, Cohort] = WeakValueDictionary()
_of_class: WeakKeyDictionary[type, dict[Hashable, tuple[Any, Cohort]]] = WeakKeyDictionary()

#: What is wanted of a list: its rows, or only their keys, or their number. None: it is no list.
Wanted = Literal["rows", "keys", "count"] | None


def alias_of(queryset: Any) -> str:
    """
    Return the alias to LISTEN on and read from.

    A queryset that names one has its way. Otherwise it is where the model is written: a replica
    may not have what was just notified.
    """
    alias: str = queryset._db or router.db_for_write(queryset.model, **queryset._hints)
    return alias


def source_of_class(
    consumer: GenericAsyncAPIConsumer,
    kwargs: Mapping[str, Any],
    wanted: Wanted,
    context: HookContext,
) -> Cohort:
    """Return the source of all sockets of a consumer's class, which see the same."""
    if not context.common:
        # Each socket may have another context: those are not kept for good.
        return build(consumer, kwargs, wanted, context)[0]
    of_class = _of_class.setdefault(type(consumer), {})
    key = wanted, context.key
    # A class may be given others while it lives, and their Meta may be changed.
    cls = consumer.serializer_class
    now = (SameHooks(consumer.queryset), cls, meta_of(cls), serializer_hooks(consumer))
    before, source = of_class.get(key, (None, None))
    if source is None or before != now:
        source, _ = build(consumer, kwargs, wanted, context)
        of_class[key] = now, source
    return source


def _queryset(consumer: GenericAsyncAPIConsumer, kwargs: Mapping[str, Any]) -> Any:
    refuse_reserved(kwargs, "queryset")
    queryset = consumer.filter_queryset(queryset=consumer.get_queryset(**kwargs), **kwargs)
    if not isinstance(queryset, QuerySet):
        raise ConfigurationError(
            f"get_queryset() or filter_queryset() of {type(consumer).__name__} returned "
            f"{type(queryset).__name__}; a queryset is needed."
        )
    return queryset


def build(
    consumer: GenericAsyncAPIConsumer,
    kwargs: Mapping[str, Any],
    wanted: Wanted,
    context: HookContext,
    *,
    settings: SessionSettings | None = None,
    owner: Owner | None = None,
    asked: QueryRecorder | None = None,
) -> tuple[Cohort, HookContext]:
    """
    Return where the rows come from that a consumer's hooks choose; runs them.

    Args:
        consumer: The socket's consumer.
        kwargs: What its hooks are called with.
        wanted: What is wanted of a list.
        context: In which they are called.
        settings: Of the database session in which they are called.
        owner: For whom, if they change the database session.
        asked: Counts the queries that the queryset takes.

    Returns:
        The source, and the context as the hooks left it: a language that they activate is the
        serializer's, too.

    Raises:
        ConfigurationError: The queryset can't be watched.
    """
    here = context.here()
    before = here.copy()
    chosen = here.run(_choose, consumer, kwargs, wanted, asked or QueryRecorder())
    left = context.left_by(here, before)
    state = _CompiledState(
        left, settings, owner if owner is not None and may_have_changed() else None
    )
    # Some lookups are compiled for the active time zone.
    own = stands_for(consumer, kwargs)
    return here.run(_compile, consumer, wanted, *chosen, state, own), left


class _CompiledState(NamedTuple):
    """In what something was chosen, and will be read."""

    context: HookContext
    settings: SessionSettings | None
    owner: Owner | None


def _choose(
    consumer: GenericAsyncAPIConsumer,
    kwargs: Mapping[str, Any],
    wanted: Wanted,
    asked: QueryRecorder,
) -> tuple[Any, Any, Any]:
    """Return the queryset, the class of the serializer, and what tells what it shows."""
    queryset = _queryset(consumer, kwargs)
    rows = wanted in (None, "rows")
    # `list` calls all of them before its query runs, and any may set a role, a language or a tenant.
    own = has_own(consumer, "get_serializer", "get_serializer_class")
    if rows or own or may_leave_out(consumer, consumer.serializer_class):
        serializer = row_dependencies.serializer_of(consumer, kwargs)
        rows = rows or may_leave_out(consumer, serializer[0])
    with asked.ignoring(), suppress(Exception):  # a row may be wanted, which is not there yet
        if has_own(consumer, "get_serializer_context"):
            consumer.get_serializer_context(**kwargs)
        if overrides(type(queryset)):
            own_rows(queryset, lambda iterable_class: iter(()))
    return (queryset, *serializer) if rows else (queryset, None, None)


def _compile(
    consumer: GenericAsyncAPIConsumer,
    wanted: Wanted,
    queryset: Any,
    serializer_class: Any,
    shows: Any,
    state: _CompiledState,
    own: Hashable,
) -> Cohort:
    context = state.context
    cls = type(consumer)
    if knows_related(queryset):
        paths = row_dependencies.shown(cls, queryset, shows).paths
        queryset = without_known(queryset, paths)
    alias = alias_of(queryset)
    # One of the two tells the queryset from others; the other is compiled once it is not known yet.
    compiled = (KeyedQuery if wanted is None else FullQuery)(queryset, connections[alias])
    lookups = tuple(
        prefetch_identity(each, connections[alias], own)
        for each in queryset._prefetch_related_lookups
    )
    how = made_by(consumer, serializer_class)
    named_by = None if wanted is None else lookup_of(consumer, queryset.model)
    identity = (
        alias,
        compiled.text,
        queryset.model,
        lookups,
        serializer_class,
        how,
        wanted,
        named_by,
        row_dependencies.declares_of(cls),
        outline(shows),
        context.key,
        state.settings,
        state.owner,
        python_state(queryset, own),
    )
    source = _shared.get(identity)
    if source is None:
        renderer: Renderer | KeyRenderer
        if wanted is not None and serializer_class and may_leave_out(consumer, serializer_class):
            renderer = ListedRenderer(
                serializer_class,
                queryset.using(alias),
                bespoke=how.bespoke,
                keys=how.keys,
                shows=None if wanted == "rows" else KeyRenderer(named_by),
                turns=how.written,
            )
        else:
            renderer = renderer_of(serializer_class, how, context.key, named_by)
        subject = subject_of(queryset.model, row_dependencies.of(cls, queryset, shows))
        if state.settings is not None or state.owner is not None:
            subject = _untraced(subject)
        listing = None
        if isinstance(compiled, FullQuery):
            listing = ListDefinition(compiled, None if wanted == "rows" else wanted, named_by)
        statement = (
            KeyedQuery(queryset, connections[alias])
            if isinstance(compiled, FullQuery)
            else compiled
        )
        made = Cohort(alias, statement, renderer, subject, listing, *state)
        source = _shared.setdefault(identity, made)
    return source


def _untraced(subject: TableDependencies) -> TableDependencies:
    """
    Return a subject of which no change must be led back by a query.

    That would read other rows than the subscribers, in another database session.
    """
    kept = tuple(path for path in paths_of(subject) if is_direct(path))
    full_refresh = (path.table for path in subject.paths if path not in kept)
    return TableDependencies(
        subject.tables, tuple(dict.fromkeys((*subject.full_refresh, *full_refresh))), kept
    )


def subject_of(model: Model, found: Dependencies) -> TableDependencies:
    """Return which changes concern the rows of a model that depend on that."""
    keyed, full_refresh = tables_of(model)
    more = (each._meta.db_table for each in found.full_refresh)
    return TableDependencies(keyed, tuple(dict.fromkeys((*full_refresh, *more))), found.paths)
