"""
Where a subscription's rows come from: its queryset compiled, and its serializer.

Two subscriptions with equal SQL and the same serializer share a source, and with it one query and
one serialization; that is found out here, nobody declares it. How long a compiled queryset may be
kept is decided here too, for stale visibility is a leak.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from itertools import chain
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from django.core.exceptions import EmptyResultSet
from django.db import connections, router
from django.db.models import Expression, QuerySet, TextField

from pgobserve.errors import ConfigurationError
from pgobserve.feed.statement import Statement
from pgobserve.feed.tables import tables_of
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.rendering import (
    VERSION,
    PresenceRenderer,
    Renderer,
    context_keys,
    is_bespoke,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from django.db.models import Prefetch

    from pgobserve.feed.keys import Model
    from pgobserve.observer.related import Through


class Source:
    """
    A compiled queryset and a renderer, shared by all who would compile the same.

    Attributes:
        alias: The database alias.
        statement: The compiled queryset.
        renderer: Of its serializer class.
    """

    __slots__ = ("__weakref__", "alias", "renderer", "statement")

    def __init__(
        self, alias: str, statement: Statement, renderer: Renderer | PresenceRenderer
    ) -> None:
        self.alias = alias
        self.statement = statement
        self.renderer = renderer


_shared: WeakValueDictionary[Hashable, Source] = WeakValueDictionary()
_renderers: WeakValueDictionary[Hashable, Renderer] = WeakValueDictionary()
_of_class: WeakKeyDictionary[type, tuple[Any, Any, Source]] = WeakKeyDictionary()


def alias_of(queryset: Any) -> str:
    """
    Return the alias to LISTEN on and read from.

    A queryset that names one has its way. Otherwise it is where the model is written: a replica
    may not have what was just notified.
    """
    alias: str = queryset._db or router.db_for_write(queryset.model)
    return alias


def is_plain(consumer: GenericAsyncAPIConsumer) -> bool:
    """Tell whether all sockets of the consumer's class see the same rows in the same way."""
    cls, base = type(consumer), GenericAsyncAPIConsumer
    return (
        cls.get_queryset is base.get_queryset
        and cls.filter_queryset is base.filter_queryset
        and cls.get_serializer_class is base.get_serializer_class
        and not consumer.filter_backends
        and not {"queryset", "serializer_class"} & vars(consumer).keys()
    )


class Visibility:
    """
    What one subscription may see, rebuilt when it must be.

    Args:
        consumer: The socket's consumer.
        kwargs: What its ``get_queryset`` and other hooks are called with.
        ttl: Seconds for which a compiled queryset is kept.
        clock: Monotonic seconds.
        presence_of: Only find out whether rows of this model are there: the consumer reads and
            shows them by itself.
        throughs: What counts as a part of such a row: its rows in these tables.

    Attributes:
        source: What it was at the last look.
        volatile: It asked the database while it was built, or it compiled differently twice in a
            row (it looks at the clock): it is built anew for every batch.
    """

    __slots__ = ("_built", "_clock", "_ttl", "consumer", "kwargs", "source", "volatile")

    def __init__(
        self,
        consumer: GenericAsyncAPIConsumer,
        kwargs: Mapping[str, Any],
        ttl: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        presence_of: Model | None = None,
        throughs: Sequence[Through] = (),
    ) -> None:
        self.consumer = consumer
        self.kwargs = kwargs
        self._ttl = ttl
        self._clock = clock
        self._built: float | None = None
        self.volatile = False
        self.source: Source = (
            self._build_first() if presence_of is None else _presence_source(presence_of, throughs)
        )

    def now(self) -> Source:
        """Return the source as it is now; runs user code, so in a thread."""
        if self._built is None:  # plain: it can't change
            return self.source
        if self.volatile or self._clock() - self._built >= self._ttl:
            self._rebuild()
        return self.source

    def _build_first(self) -> Source:
        if is_plain(self.consumer):
            return _source_of_class(self.consumer, self.kwargs)
        self._built = self._clock()
        source, asked = _observed_build(self.consumer, self.kwargs)
        again, asked_again = _observed_build(self.consumer, self.kwargs)
        self.volatile = asked or asked_again or again is not source
        return again

    def _rebuild(self) -> None:
        built = self._clock()
        source, asked = _observed_build(self.consumer, self.kwargs)
        self.volatile = self.volatile or asked
        self.source, self._built = source, built


def _source_of_class(consumer: GenericAsyncAPIConsumer, kwargs: Mapping[str, Any]) -> Source:
    cls = type(consumer)
    queryset, serializer_class, source = _of_class.get(cls, (None, None, None))
    if (
        source is None
        or queryset is not cls.queryset
        or serializer_class is not cls.serializer_class
    ):
        source = _build(consumer, kwargs)
        _of_class[cls] = (cls.queryset, cls.serializer_class, source)
    return source


class _Versions(Expression):
    """The system column ``xmin`` of joined tables and of a row's rows between many and many."""

    def __init__(self, model: Model, throughs: Sequence[Through]) -> None:
        super().__init__(output_field=TextField())
        self.model = model
        self.throughs = throughs

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:  # type: ignore[override]
        quote = connection.ops.quote_name
        parts = [f"{quote(name)}.xmin::text" for name in chain(*tables_of(self.model))]
        for through in self.throughs:
            table = quote(through.model._meta.db_table)
            target: Any = self.model._meta.get_field(through.target)
            owner = f"{quote(target.model._meta.db_table)}.{quote(target.column)}"
            named: Any = through.model._meta.get_field(through.attname)
            parts.append(_ROWS_BETWEEN.format(table, quote(named.column), owner))
        return " || ' ' || ".join(parts), []


#: Which rows of the owner there are, and which transactions wrote them.
_ROWS_BETWEEN: Final = (
    "coalesce((SELECT string_agg(t.ctid::text || t.xmin::text, ' ' ORDER BY t.ctid)"
    " FROM {} t WHERE t.{} = {}), '')"
)


def _presence_source(model: Model, throughs: Sequence[Through]) -> Source:
    # The transactions that wrote the row, and the parent rows of multi-table inheritance.
    version: Any = _Versions(model, throughs)
    queryset: Any = model._base_manager.annotate(**{VERSION: version})
    alias = alias_of(queryset)
    statement = Statement(queryset, connections[alias])
    return Source(alias, statement, PresenceRenderer())


def _queryset(consumer: GenericAsyncAPIConsumer, kwargs: Mapping[str, Any]) -> Any:
    queryset = consumer.filter_queryset(queryset=consumer.get_queryset(**kwargs), **kwargs)
    if not isinstance(queryset, QuerySet):
        raise ConfigurationError(
            f"get_queryset() or filter_queryset() of {type(consumer).__name__} returned "
            f"{type(queryset).__name__}; a queryset is needed."
        )
    return queryset


def _build(consumer: GenericAsyncAPIConsumer, kwargs: Mapping[str, Any]) -> Source:
    queryset = _queryset(consumer, kwargs)
    serializer_class = consumer.get_serializer_class(**kwargs)
    alias = alias_of(queryset)
    statement = Statement(queryset, connections[alias])
    cls = type(consumer)
    bespoke, keys = is_bespoke(cls), context_keys(cls)
    lookups = tuple(map(_lookup_identity, queryset._prefetch_related_lookups))
    maker = (cls.get_serializer, cls.get_serializer_context)
    identity = (alias, statement.text, queryset.model, lookups, serializer_class, maker)
    source = _shared.get(identity)
    if source is None:
        # Those who see other rows in the same way share the renderer, and with it what it makes of
        # a row that both see.
        renderer = _renderers.get((serializer_class, maker))
        if renderer is None:
            made = Renderer(serializer_class, bespoke=bespoke, keys=keys)
            renderer = _renderers.setdefault((serializer_class, maker), made)
        source = _shared.setdefault(identity, Source(alias, statement, renderer))
    return source


def _lookup_identity(lookup: str | Prefetch[Any]) -> Hashable:
    """
    Return what tells one prefetch from another.

    Prefetches are not in the compiled SQL, and may well be what differs between two users.
    """
    if isinstance(lookup, str):
        return lookup
    inner: Any = lookup.queryset
    if inner is None:
        return (lookup.prefetch_through, lookup.to_attr)
    try:
        sql: Hashable = repr(inner.query.sql_with_params())
    except EmptyResultSet:
        sql = None
    nested = tuple(map(_lookup_identity, inner._prefetch_related_lookups))
    return (lookup.prefetch_through, lookup.to_attr, inner.model, sql, nested)


def _observed_build(
    consumer: GenericAsyncAPIConsumer, kwargs: Mapping[str, Any]
) -> tuple[Source, bool]:
    """Build, and tell whether a query was run meanwhile, on any alias."""
    queries = 0

    def count(execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
        nonlocal queries
        queries += 1
        return execute(sql, params, many, context)

    with ExitStack() as stack:
        for alias in connections:
            stack.enter_context(connections[alias].execute_wrapper(count))
        source = _build(consumer, kwargs)
    return source, queries > 0
