"""Related rows that are not simply all there are: those of a ``Prefetch``, or of a manager."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.db.models import Manager, Prefetch

from pgobserve.observer.gathering import Dependencies, Gathering
from pgobserve.observer.of_queryset import of_queryset
from pgobserve.observer.trial import brief, no_queries

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pgobserve.feed.keys import Model
    from pgobserve.observer.relations import Relation


@dataclass(frozen=True, slots=True)
class Prefetched:
    """
    Related rows that a queryset of their own chooses.

    Attributes:
        relation: The name of the relation, where the attribute may be named by ``to_attr``.
        inner: What that queryset depends on, as seen from its own model.
        filters: Whether columns of the rows themselves decide.
        known: Names of values that it annotates the rows with.
        order: What it orders them by; None for what the model says.
    """

    relation: str
    inner: Dependencies
    filters: bool
    known: frozenset[str]
    order: tuple[Any, ...] | None = None


def prefetched(lookups: Iterable[str | Prefetch[Any]]) -> tuple[tuple[str, Prefetched], ...]:
    """
    Return what a queryset's prefetches choose, by the path of attributes that shows it.

    Args:
        lookups: Its ``_prefetch_related_lookups``; those that are mere names choose nothing.
    """
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


def of_manager(relation: Relation) -> Prefetched | None:
    """Return what the manager chooses by which a relation is read; None if it shows all rows."""
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
        found = Gathering()
        found.add_unseen(
            f"The manager of {model._meta.label} could not be tried ({brief(error)}): which rows of "
            "it are shown can't be seen."
        )
        return Prefetched("", found.made(), True, frozenset())
    return chosen if chosen.filters or chosen.inner or chosen.known else None
