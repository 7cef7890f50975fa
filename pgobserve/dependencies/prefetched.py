"""Related rows chosen by a ``Prefetch`` or a manager."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.core.exceptions import EmptyResultSet
from django.db.models import Manager, Prefetch

from pgobserve.dependencies.dry_run import brief, no_queries
from pgobserve.dependencies.gathering import Dependencies
from pgobserve.dependencies.of_queryset import of_queryset
from pgobserve.render.own_hooks import python_state
from pgobserve.sql.literals import inline

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.dependencies.relations import ModelRelation
    from pgobserve.sql.keys import Model
    from pgobserve.sql.relation_path import RelationPath


@dataclass(frozen=True, slots=True)
class Prefetched:
    """
    Related rows that a queryset chooses.

    Attributes:
        relation: The relation's name; the attribute may be a ``to_attr``.
        inner: The queryset's dependencies, from its own model.
        filters: Whether the rows' own columns decide which rows it has.
        known: Names of its annotations.
        order: Its order; None for the model's.
    """

    relation: str
    inner: Dependencies
    filters: bool
    known: frozenset[str]
    order: tuple[Any, ...] | None = None


def prefetched(lookups: Iterable[str | Prefetch[Any]]) -> tuple[tuple[str, Prefetched], ...]:
    """Return the rows that each :class:`Prefetch` chooses, by its path of attributes; names choose all rows."""
    return tuple(sorted(_prefetched(lookups, ""), key=lambda each: each[0]))


def _prefetched(
    lookups: Iterable[str | Prefetch[Any]], prefix: str
) -> Iterator[tuple[str, Prefetched]]:
    for lookup in lookups:
        if not isinstance(lookup, Prefetch):
            continue
        path = prefix + lookup.prefetch_to
        relation = lookup.prefetch_through.split("__")[-1]
        queryset: Any = lookup.queryset
        if queryset is not None:
            yield path, _of(relation, queryset)
            yield from _prefetched(queryset._prefetch_related_lookups, f"{path}__")
        elif lookup.to_attr:
            yield path, Prefetched(relation, Dependencies(), False, frozenset())


def _of(relation: str, queryset: Any) -> Prefetched:
    query = queryset.query
    return Prefetched(
        relation,
        of_queryset(queryset),
        bool(query.where) or query.is_sliced,
        frozenset(query.annotations) | frozenset(query.extra),
        None if query.default_ordering and not query.order_by else tuple(query.order_by),
    )


def of_manager(relation: ModelRelation) -> Prefetched | None:
    """Return the rows that a relation's manager chooses; None if it chooses all."""
    return _of_manager(relation.model, relation.many)


@lru_cache(maxsize=1024)
def _of_manager(model: Model, many: bool) -> Prefetched | None:
    manager: Any = model._default_manager if many else model._base_manager
    if type(manager).get_queryset is Manager.get_queryset:
        return None
    try:
        with no_queries():
            chosen = _of("", manager.get_queryset())
    except Exception as error:  # noqa: BLE001 (the project's code)
        sentence = (
            f"The manager of {model._meta.label} could not be tried ({brief(error)}): which rows of "
            "it are shown can't be seen."
        )
        return Prefetched("", Dependencies(unresolved=(sentence,)), True, frozenset())
    return chosen if chosen.filters or chosen.inner or chosen.known else None


def prefetch_identity(
    lookup: str | Prefetch[Any], connection: BaseDatabaseWrapper, own: Hashable
) -> Hashable:
    """
    Return a value that is equal for equal prefetches.

    The compiled SQL does not contain prefetches, which may differ between users.

    Args:
        lookup: One of a queryset's ``_prefetch_related_lookups``.
        connection: Decides how literals are written.
        own: Replaces values that can't be compared.
    """
    if isinstance(lookup, str):
        return lookup
    chosen = tuple(_identity(each, connection, own) for each in _inner(lookup))
    return (lookup.prefetch_through, lookup.to_attr, chosen)


def _inner(lookup: Any) -> list[Any]:
    """Return the querysets of a prefetch; a generic relation's may have several."""
    querysets = getattr(lookup, "querysets", None) or [getattr(lookup, "queryset", None)]
    return [each for each in querysets if each is not None]


def _identity(queryset: Any, connection: BaseDatabaseWrapper, own: Hashable) -> Hashable:
    text: str | None
    try:
        sql, params = queryset.query.get_compiler(connection=connection).as_sql()
        text = inline(sql, params, connection)
    except EmptyResultSet:
        text = None
    lookups = queryset._prefetch_related_lookups
    nested = tuple(prefetch_identity(each, connection, own) for each in lookups)
    return (queryset.model, queryset._db, text, nested, python_state(queryset, own))


def knows_related(queryset: Any) -> bool:
    """Return whether a queryset, or one that it prefetches, comes from an instance, like `user.item_set`."""
    inner = (each for lookup in queryset._prefetch_related_lookups for each in _inner(lookup))
    return bool(queryset._known_related_objects) or any(map(knows_related, inner))


def without_known(queryset: Any, paths: Iterable[RelationPath]) -> Any:
    """
    Return a queryset like ``user.item_set`` without its known instance.

    Its rows would show that instance as it once was, to every subscriber that shares the queryset. If
    rows show it, ``select_related`` reads it with them.

    Args:
        paths: The paths that are shown.
    """
    fields, queryset = list(queryset._known_related_objects), _forgetting(queryset)
    if queryset.query.deferred_loading[0]:
        return queryset
    shown = {source for path in paths for source, _ in path.joins[0].on}
    names = [field.name for field in fields if field in shown]
    return queryset.select_related(*names) if names else queryset


def _forgetting(queryset: Any) -> Any:
    queryset = queryset.all()
    queryset._known_related_objects = {}
    queryset._prefetch_related_lookups = tuple(
        _forgetting_lookup(lookup) for lookup in queryset._prefetch_related_lookups
    )
    return queryset


def _forgetting_lookup(lookup: Any) -> Any:
    if not any(map(knows_related, _inner(lookup))):
        return lookup
    lookup = copy(lookup)
    if getattr(lookup, "querysets", None):
        lookup.querysets = [_forgetting(each) for each in lookup.querysets]
    else:
        lookup.queryset = _forgetting(lookup.queryset)
    return lookup
