"""Finds the cohort of a subscription: runs the consumer's hooks, and compares what they choose."""

from __future__ import annotations

from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from weakref import WeakKeyDictionary, WeakValueDictionary

from django.db import connections
from django.db.models import Expression, QuerySet, TextField

from pgobserve._consumer.calls import refuse_reserved
from pgobserve.cohorts.cohort import Cohort, ListDefinition, alias_of, subject_of
from pgobserve.database.session import QueryRecorder, may_have_changed
from pgobserve.dependencies import row_dependencies
from pgobserve.dependencies.of_serializer import outline
from pgobserve.dependencies.prefetched import knows_related, prefetch_identity, without_known
from pgobserve.dependencies.relations import throughs_of
from pgobserve.errors import ConfigurationError
from pgobserve.hub.hub import TableDependencies
from pgobserve.render.list_serializers import ListedRenderer, may_leave_out
from pgobserve.render.own_hooks import (
    SameHooks,
    has_own,
    meta_of,
    python_state,
    serializer_hooks,
    stands_for,
)
from pgobserve.render.renderer_choice import made_by, renderer_of
from pgobserve.render.rendering import VERSION, KeyRenderer, VersionRenderer, lookup_of
from pgobserve.sql.full_query import FullQuery
from pgobserve.sql.keyed_query import KeyedQuery
from pgobserve.sql.model_tables import tables_of
from pgobserve.sql.relation_path import paths_of
from pgobserve.sql.reverse_lookup import is_direct
from pgobserve.sql.row_instances import overrides, own_rows

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.cohorts.cohort import Owner, Wanted
    from pgobserve.cohorts.hook_context import HookContext
    from pgobserve.database.tracked_session import SessionSettings
    from pgobserve.dependencies.relations import Through
    from pgobserve.generics import GenericAsyncAPIConsumer
    from pgobserve.render.renderer_choice import MadeBy
    from pgobserve.render.rendering import Renderer
    from pgobserve.sql.keys import Model

_cohorts: WeakValueDictionary[Hashable, Cohort] = WeakValueDictionary()
_of_class: WeakKeyDictionary[type, dict[Hashable, tuple[Any, Cohort]]] = WeakKeyDictionary()


def cohort_of_class(
    consumer: GenericAsyncAPIConsumer,
    kwargs: Mapping[str, Any],
    wanted: Wanted,
    context: HookContext,
) -> Cohort:
    """Return the cohort of a consumer whose sockets all see the same."""
    if not context.common:
        # Each socket may have another context, so its cohort is not kept.
        return build(consumer, kwargs, wanted, context)[0]
    of_class = _of_class.setdefault(type(consumer), {})
    key = wanted, context.key
    # Code may replace a class's queryset and serializer class, and change their Meta.
    cls = consumer.serializer_class
    now = (SameHooks(consumer.queryset), cls, meta_of(cls), serializer_hooks(consumer))
    before, cohort = of_class.get(key, (None, None))
    if cohort is None or before != now:
        cohort, _ = build(consumer, kwargs, wanted, context)
        of_class[key] = now, cohort
    return cohort


class _State(NamedTuple):
    """The state in which the hooks chose a queryset, and in which it will be read."""

    context: HookContext
    settings: SessionSettings | None
    owner: Owner | None


class _Choice(NamedTuple):
    """
    What a consumer's hooks chose.

    Attributes:
        serializer_class: The serializer class; None if no row is serialized.
        shows: Identifies what the serializer shows.
    """

    queryset: Any
    serializer_class: Any = None
    shows: Any = None


def build(
    consumer: GenericAsyncAPIConsumer,
    kwargs: Mapping[str, Any],
    wanted: Wanted,
    context: HookContext,
    *,
    settings: SessionSettings | None = None,
    owner: Owner | None = None,
    recorder: QueryRecorder | None = None,
) -> tuple[Cohort, HookContext]:
    """
    Run a consumer's hooks, and return the cohort that they choose.

    Args:
        wanted: What a list subscription receives.
        context: The context in which the hooks run.
        owner: Runs them again before each read, if they change the database session.
        recorder: Counts the queries that the hooks run.

    Returns:
        The cohort, and the context as the hooks left it: a language that they activate applies to the
        serializer, too.

    Raises:
        ConfigurationError: The queryset can't be watched.
    """
    here = context.here()
    before = here.copy()
    choice = here.run(_choose, consumer, kwargs, wanted, recorder or QueryRecorder())
    left = context.left_by(here, before)
    state = _State(left, settings, owner if owner is not None and may_have_changed() else None)
    # Some lookups are compiled for the active time zone.
    return here.run(_find, consumer, wanted, choice, state, stands_for(consumer, kwargs)), left


def _choose(
    consumer: GenericAsyncAPIConsumer,
    kwargs: Mapping[str, Any],
    wanted: Wanted,
    recorder: QueryRecorder,
) -> _Choice:
    queryset = _queryset(consumer, kwargs)
    rows = wanted in (None, "rows")
    serializer: tuple[Any, Any] = (None, None)
    # The `list` action calls all hooks before its query, and any may set a role, language or tenant.
    own = has_own(consumer, "get_serializer", "get_serializer_class")
    if rows or own or may_leave_out(consumer, consumer.serializer_class):
        serializer = row_dependencies.serializer_of(consumer, kwargs)
        rows = rows or may_leave_out(consumer, serializer[0])
    with recorder.ignoring(), suppress(Exception):  # they may need a row, which is not there yet
        if has_own(consumer, "get_serializer_context"):
            consumer.get_serializer_context(**kwargs)
        if overrides(type(queryset)):
            own_rows(queryset, lambda iterable_class: iter(()))
    return _Choice(queryset, *serializer) if rows else _Choice(queryset)


def _queryset(consumer: GenericAsyncAPIConsumer, kwargs: Mapping[str, Any]) -> Any:
    refuse_reserved(kwargs, "queryset")
    queryset = consumer.filter_queryset(queryset=consumer.get_queryset(**kwargs), **kwargs)
    if not isinstance(queryset, QuerySet):
        raise ConfigurationError(
            f"get_queryset() or filter_queryset() of {type(consumer).__name__} returned "
            f"{type(queryset).__name__}; a queryset is needed."
        )
    return queryset


def _find(
    consumer: GenericAsyncAPIConsumer,
    wanted: Wanted,
    choice: _Choice,
    state: _State,
    own: Hashable,
) -> Cohort:
    """Return the cohort of a choice, which may exist already."""
    queryset, serializer_class, shows = choice
    cls = type(consumer)
    if wanted is None and getattr(consumer, "observer_many_to_many_relationships", False):
        queryset = _with_members(queryset)
        choice = choice._replace(queryset=queryset)
    if knows_related(queryset):
        paths = row_dependencies.shown(cls, queryset, shows).paths
        choice = choice._replace(queryset=(queryset := without_known(queryset, paths)))
    alias = alias_of(queryset)
    connection = connections[alias]
    # Either query identifies the queryset. A list needs both, but only once for its cohort.
    compiled = (KeyedQuery if wanted is None else FullQuery)(queryset, connection)
    how = made_by(consumer, serializer_class)
    named_by = None if wanted is None else lookup_of(consumer, queryset.model)
    identity = (
        alias,
        compiled.text,
        queryset.model,
        tuple(
            prefetch_identity(each, connection, own) for each in queryset._prefetch_related_lookups
        ),
        serializer_class,
        how,
        wanted,
        named_by,
        row_dependencies.declares_of(cls),
        outline(shows),
        state.context.key,
        state.settings,
        state.owner,
        python_state(queryset, own),
    )
    cohort = _cohorts.get(identity)
    if cohort is None:
        made = _make(consumer, wanted, choice, state, compiled, how, named_by)
        # Another thread may have made an equal one meanwhile.
        cohort = _cohorts.setdefault(identity, made)
    return cohort


def _make(
    consumer: GenericAsyncAPIConsumer,
    wanted: Wanted,
    choice: _Choice,
    state: _State,
    compiled: KeyedQuery | FullQuery,
    how: MadeBy,
    named_by: str | None,
) -> Cohort:
    queryset, serializer_class, shows = choice
    alias = alias_of(queryset)
    listing, only = None, None if wanted == "rows" else wanted
    if isinstance(compiled, FullQuery):
        listing = ListDefinition(compiled, only, named_by)
        compiled = KeyedQuery(queryset, connections[alias])
    subject = subject_of(queryset.model, row_dependencies.of(type(consumer), queryset, shows))
    if state.settings is not None or state.owner is not None:
        subject = _without_reverse_lookups(subject, connections[alias])
    renderer: Renderer | KeyRenderer
    if wanted is not None and serializer_class and may_leave_out(consumer, serializer_class):
        renderer = ListedRenderer(
            *(serializer_class, queryset.using(alias)),
            shows=KeyRenderer(named_by) if only else None,
            **how.options(),
        )
    else:
        renderer = renderer_of(serializer_class, how, state.context.key, named_by)
    return Cohort(alias, compiled, renderer, subject, listing, *state)


def _without_reverse_lookups(
    subject: TableDependencies, connection: BaseDatabaseWrapper
) -> TableDependencies:
    """Return dependencies that need no reverse look-ups, which would run in another database session."""
    kept = tuple(path for path in paths_of(subject) if is_direct(path, connection))
    full_refresh = (path.table for path in subject.paths if path not in kept)
    return TableDependencies(
        subject.tables, tuple(dict.fromkeys((*subject.full_refresh, *full_refresh))), kept
    )


#: The rows that belong to an owner in a through table, and the transactions that wrote them.
_THROUGH_ROWS: Final = (
    "coalesce((SELECT string_agg(t.ctid::text || t.xmin::text, ' ' ORDER BY t.ctid)"
    " FROM {} t WHERE t.{} = {}), '')"
)


class _Version(Expression):
    """The transactions that wrote a row, its parent rows and its rows in through tables."""

    def __init__(self, model: Model, throughs: Sequence[Through], *, own: bool = True) -> None:
        super().__init__(output_field=TextField())
        self.model = model
        self.throughs = throughs
        self.own = own

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:  # type: ignore[override]
        quote = connection.ops.quote_name
        tables = chain(*tables_of(self.model)) if self.own else ()
        parts = [f"{quote(name)}.xmin::text" for name in tables]
        for through in self.throughs:
            table = quote(through.model._meta.db_table)
            target: Any = self.model._meta.get_field(through.target)
            owner = f"{quote(target.model._meta.db_table)}.{quote(target.column)}"
            column: Any = through.model._meta.get_field(through.attname)
            parts.append(_THROUGH_ROWS.format(table, quote(column.column), owner))
        return " || ' ' || ".join(parts), []


def _with_members(queryset: Any) -> Any:
    """Return a queryset whose rows have a version that changes with their rows in through tables."""
    throughs = [*throughs_of(queryset.model)]
    if not throughs or queryset.query.combinator:
        return queryset
    return queryset.annotate(**{VERSION: _Version(queryset.model, throughs, own=False)})


def version_cohort(cls: type, model: Model, throughs: Sequence[Through]) -> Cohort:
    """
    Return a cohort of versions.

    Args:
        throughs: The through tables whose rows count as parts of a row.
    """
    version: Any = _Version(model, throughs)
    queryset: Any = model._base_manager.annotate(**{VERSION: version})
    alias = alias_of(queryset)
    statement = KeyedQuery(queryset, connections[alias])
    subject = subject_of(model, row_dependencies.of_consumer(cls))
    return Cohort(alias, statement, VersionRenderer(), subject)
