"""
Where a subscription's rows come from: its queryset compiled, and its serializer.

Two subscriptions with equal SQL and the same serializer share a source, and with it one query and
one serialization; that is found out here, nobody declares it. How long a compiled queryset may be
kept is decided here too, for stale visibility is a leak.
"""

from __future__ import annotations

import hashlib
import re
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Literal
from weakref import WeakKeyDictionary, WeakValueDictionary

from django.db import connections, router
from django.db.models import Expression, QuerySet, TextField

from pgobserve._arguments import refuse_reserved
from pgobserve.errors import ConfigurationError
from pgobserve.feed.hub import Subject
from pgobserve.feed.statement import Statement
from pgobserve.feed.tables import tables_of
from pgobserve.feed.whole import Whole
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer import dependencies
from pgobserve.observer.prefetched import knows_related, prefetch_identity, without_known
from pgobserve.observer.reconstruct import OldRows
from pgobserve.observer.rendering import (
    VERSION,
    KeyRenderer,
    PresenceRenderer,
    Renderer,
    context_keys,
    is_bespoke,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from pgobserve.feed.keys import Model
    from pgobserve.observer.gathering import Dependencies
    from pgobserve.observer.related import Through


class Source:
    """
    A compiled queryset and a renderer, shared by all who would compile the same.

    Attributes:
        alias: The database alias.
        statement: The compiled queryset.
        renderer: Of its serializer class.
        subject: Which changes concern its rows.
        listing: How it is read as a whole, if it is watched as a list.
    """

    __slots__ = ("__weakref__", "alias", "listing", "renderer", "statement", "subject")

    def __init__(
        self,
        alias: str,
        statement: Statement,
        renderer: Renderer | PresenceRenderer | KeyRenderer,
        subject: Subject,
        listing: Listing | None = None,
    ) -> None:
        self.alias = alias
        self.statement = statement
        self.renderer = renderer
        self.subject = subject
        self.listing = listing


@dataclass(frozen=True, slots=True)
class Listing:
    """
    How a source is read as a whole.

    Attributes:
        whole: The compiled queryset.
        only: ``"keys"`` or ``"count"``: nothing else of the rows is wanted.
        fingerprint: What identifies the list and how its rows look, in tokens.
        shown: What of other tables its rows show.
        old_rows: Tells which rows were on it at an earlier time.
    """

    whole: Whole
    only: str | None
    fingerprint: str
    shown: Dependencies
    old_rows: OldRows


_shared: WeakValueDictionary[Hashable, Source] = WeakValueDictionary()
_KEYS: Final = KeyRenderer()
_renderers: WeakValueDictionary[Hashable, Renderer] = WeakValueDictionary()
_of_class: WeakKeyDictionary[type, dict[Hashable, tuple[Any, Any, Source]]] = WeakKeyDictionary()

#: What is wanted of a list: its rows, or only their keys, or their number. None: it is no list.
Wanted = Literal["rows", "keys", "count"] | None


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
        and not dependencies.makes_serializers(consumer)
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
        wanted: What is wanted of the whole queryset, if that is watched.

    Attributes:
        source: What it was at the last look.
        volatile: It asked the database while it was built, or it compiled differently twice in a
            row (it looks at the clock): it is built anew for every batch.
    """

    __slots__ = (
        "_audience",
        "_built",
        "_clock",
        "_ttl",
        "_wanted",
        "consumer",
        "kwargs",
        "source",
        "volatile",
    )

    def __init__(
        self,
        consumer: GenericAsyncAPIConsumer,
        kwargs: Mapping[str, Any],
        ttl: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        presence_of: Model | None = None,
        throughs: Sequence[Through] = (),
        wanted: Wanted = None,
    ) -> None:
        self.consumer = consumer
        self.kwargs = kwargs
        self._wanted = wanted
        self._ttl = ttl
        self._clock = clock
        self._audience: Hashable = None
        self._built: float | None = None
        self.volatile = False
        self.source: Source = (
            self._build_first()
            if presence_of is None
            else _presence_source(type(consumer), presence_of, throughs)
        )

    def now(self) -> Source:
        """Return the source as it is now; runs user code, so in a thread."""
        if self._built is None:  # plain: it can't change
            return self.source
        if self.volatile or self._clock() - self._built >= self._ttl:
            self._rebuild()
        return self.source

    @property
    def audience(self) -> Hashable:
        """Return what tells who may see a row otherwise: two sockets, or messages, may differ."""
        if self._audience is None:
            said = {name: value for name, value in self.kwargs.items() if name != "request_id"}
            self._audience = (self.consumer, repr(sorted(said.items())))
        return self._audience

    def _build_first(self) -> Source:
        if is_plain(self.consumer):
            return _source_of_class(self.consumer, self.kwargs, self._wanted)
        self._built = self._clock()
        source, asked = _observed_build(self.consumer, self.kwargs, self._wanted)
        again, asked_again = _observed_build(self.consumer, self.kwargs, self._wanted)
        self.volatile = asked or asked_again or again is not source
        return again

    def _rebuild(self) -> None:
        built = self._clock()
        source, asked = _observed_build(self.consumer, self.kwargs, self._wanted)
        self.volatile = self.volatile or asked
        self.source, self._built = source, built


def _source_of_class(
    consumer: GenericAsyncAPIConsumer, kwargs: Mapping[str, Any], wanted: Wanted
) -> Source:
    cls = type(consumer)
    of_class = _of_class.setdefault(cls, {})
    queryset, serializer_class, source = of_class.get(wanted, (None, None, None))
    if (
        source is None
        or queryset is not cls.queryset
        or serializer_class is not cls.serializer_class
    ):
        source = _build(consumer, kwargs, wanted)
        of_class[wanted] = (cls.queryset, cls.serializer_class, source)
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


def _presence_source(cls: type, model: Model, throughs: Sequence[Through]) -> Source:
    # The transactions that wrote the row, and the parent rows of multi-table inheritance.
    version: Any = _Versions(model, throughs)
    queryset: Any = model._base_manager.annotate(**{VERSION: version})
    alias = alias_of(queryset)
    statement = Statement(queryset, connections[alias])
    subject = _subject_of(model, dependencies.of_consumer(cls))
    return Source(alias, statement, PresenceRenderer(), subject)


def _queryset(consumer: GenericAsyncAPIConsumer, kwargs: Mapping[str, Any]) -> Any:
    refuse_reserved(kwargs, "queryset")
    queryset = consumer.filter_queryset(queryset=consumer.get_queryset(**kwargs), **kwargs)
    if not isinstance(queryset, QuerySet):
        raise ConfigurationError(
            f"get_queryset() or filter_queryset() of {type(consumer).__name__} returned "
            f"{type(queryset).__name__}; a queryset is needed."
        )
    return queryset


def _build(consumer: GenericAsyncAPIConsumer, kwargs: Mapping[str, Any], wanted: Wanted) -> Source:
    queryset = _queryset(consumer, kwargs)
    serializer_class, shows = (
        dependencies.serializer_of(consumer, kwargs) if wanted in (None, "rows") else (None, None)
    )
    cls = type(consumer)
    if knows_related(queryset):
        links = dependencies.shown(cls, queryset, shows).links
        queryset = without_known(queryset, links)
    alias = alias_of(queryset)
    # One of the two tells the queryset from others; the other is compiled once it is not known yet.
    compiled = (Statement if wanted is None else Whole)(queryset, connections[alias])
    lookups = tuple(
        prefetch_identity(each, connections[alias]) for each in queryset._prefetch_related_lookups
    )
    maker = (cls.get_serializer, cls.get_serializer_context)
    identity = (
        alias,
        compiled.text,
        queryset.model,
        lookups,
        serializer_class,
        maker,
        wanted,
        dependencies.declares_of(cls),
        dependencies.outline(shows),
    )
    source = _shared.get(identity)
    if source is None:
        renderer = _renderer(cls, serializer_class)
        subject = _subject_of(queryset.model, dependencies.of(cls, queryset, shows))
        listing = None
        if isinstance(compiled, Whole):
            only = None if wanted == "rows" else wanted
            listing = Listing(
                compiled,
                only,
                _fingerprint(alias, compiled, only, lookups, serializer_class, maker),
                dependencies.shown(cls, queryset, shows),
                OldRows(queryset),
            )
        statement = (
            Statement(queryset, connections[alias]) if isinstance(compiled, Whole) else compiled
        )
        made = Source(alias, statement, renderer, subject, listing)
        source = _shared.setdefault(identity, made)
    return source


def _renderer(cls: type[GenericAsyncAPIConsumer], serializer_class: Any) -> Renderer | KeyRenderer:
    """
    Return how a class of consumers shows rows.

    Those who see other rows in the same way share it, and with it what it makes of a row that both
    see.
    """
    if serializer_class is None:
        return _KEYS
    maker = (cls.get_serializer, cls.get_serializer_context)
    renderer = _renderers.get((serializer_class, maker))
    if renderer is None:
        made = Renderer(serializer_class, bespoke=is_bespoke(cls), keys=context_keys(cls))
        renderer = _renderers.setdefault((serializer_class, maker), made)
    return renderer


def _subject_of(model: Model, found: Dependencies) -> Subject:
    """Return which changes concern the rows of a model that depend on that."""
    keyed, wide = tables_of(model)
    more = (each._meta.db_table for each in found.wide)
    return Subject(keyed, tuple(dict.fromkeys((*wide, *more))), found.links)


def _fingerprint(
    alias: str,
    whole: Whole,
    only: str | None,
    lookups: Sequence[Hashable],
    serializer_class: Any,
    maker: Sequence[Any],
) -> str:
    """Return what changes when a list has other rows by definition, or shows them otherwise."""
    shape = ""
    if serializer_class is not None:
        by = [f"{each.__module__}.{each.__qualname__}" for each in maker]
        shape = f"{_shape(serializer_class)}\0{lookups}\0{by}"
    text = f"{alias}\0{whole.text}\0{only}\0{shape}"
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


@lru_cache(maxsize=1024)
def _shape(serializer_class: Any) -> str:
    """Describe what a serializer shows, for all processes alike."""
    try:
        described = repr(serializer_class())
    except Exception:  # noqa: BLE001 (it is made otherwise, by the consumer)
        described = ""
    name = f"{serializer_class.__module__}.{serializer_class.__qualname__}"
    return name + re.sub(r"0x[0-9a-f]+", "", described)


def _observed_build(
    consumer: GenericAsyncAPIConsumer, kwargs: Mapping[str, Any], wanted: Wanted
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
        source = _build(consumer, kwargs, wanted)
    return source, queries > 0
