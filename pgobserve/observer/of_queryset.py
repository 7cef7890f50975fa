"""Which tables a queryset looks at besides its model's own: those that it joins and subqueries'."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db.models import ForeignObjectRel, Subquery
from django.db.models.expressions import RawSQL
from django.db.models.lookups import Lookup
from django.db.models.sql.query import Query
from django.db.models.sql.where import ExtraWhere

from pgobserve.observer.gathering import Gathering
from pgobserve.observer.relations import concrete, hop_of, need
from pgobserve.triggers.registry import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from django.db.models import QuerySet

    from pgobserve.feed.keys import Model
    from pgobserve.feed.links import Hop
    from pgobserve.observer.gathering import Dependencies


def of_queryset(queryset: QuerySet[Any]) -> Dependencies:
    """
    Return what decides which rows a queryset has, and what it annotates them with.

    What only orders the rows is not among it, nor what ``select_related`` and ``prefetch_related``
    fetch: that matters where it is shown.
    """
    found = Gathering()
    _look(queryset.query, found)
    return found.made()


def _look(query: Any, found: Gathering) -> None:
    root = concrete(query.model)
    ways: dict[str, tuple[Hop, ...] | None] = {}
    for alias, join in query.alias_map.items():
        if join.parent_alias is None:
            ways[alias] = ()
            continue
        before = ways.get(join.parent_alias)
        try:
            hop = hop_of(join.join_field)
        except (AttributeError, IndexError, TypeError):
            hop = None
        ways[alias] = None if before is None or hop is None else (*before, hop)
        if not query.alias_refcount[alias]:
            continue
        hops = ways[alias]
        if hops is None:
            found.add_unseen(
                f"The queryset of {root._meta.label} joins {join.table_name} in a way of its own."
            )
        else:
            is_reverse = isinstance(join.join_field, ForeignObjectRel)
            found.add([need(root, hops, is_reverse=is_reverse)])
    _look_inside(query, root._meta.label, found)


def _look_inside(query: Any, label: str, found: Gathering) -> None:
    """Look at the expressions of a query for others: what those read matters to all rows."""
    if query.extra or query.extra_tables:
        found.add_unseen(f"The queryset of {label} uses extra(), whose SQL can't be looked into.")
    for inner in query.combined_queries:
        _add_all(inner, label, found)
    for node in _expressions(query):
        if isinstance(node, Query):
            _add_all(node, label, found)
        elif isinstance(node, RawSQL):
            found.add_unseen(
                f"The queryset of {label} uses RawSQL, whose SQL can't be looked into."
            )
        elif isinstance(node, ExtraWhere):
            found.add_unseen(
                f"The queryset of {label} uses extra(), whose SQL can't be looked into."
            )


def _add_all(query: Any, label: str, found: Gathering) -> None:
    """Add all tables of a query inside of another."""
    used = [
        join.table_name for alias, join in query.alias_map.items() if query.alias_refcount[alias]
    ]
    # Its own table may have been trimmed away, and has no alias before it is compiled.
    for table in used or ([] if query.model is None else [query.model._meta.db_table]):
        if table in (models := _models_by_table()):
            found.add([models[table]])
        else:
            found.add_unseen(f"The queryset of {label} reads {table}, which belongs to no model.")
    _look_inside(query, label, found)


@lru_cache(maxsize=1)
def _models_by_table() -> Mapping[str, Model]:
    models = (m for m in apps.get_models(include_auto_created=True) if not m._meta.proxy)
    return {m._meta.db_table: canonical(m) for m in models}


def _expressions(query: Any) -> Iterator[Any]:
    """Yield all expressions of a query, but not those of the queries in them."""
    waiting: list[Any] = [query.where, *query.annotations.values()]
    if isinstance(query.group_by, tuple | list):
        waiting += query.group_by
    for join in query.alias_map.values():
        waiting += _conditions(getattr(join, "filtered_relation", None))
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, Query):
            continue
        if isinstance(node, Subquery):
            waiting.append(node.query)
        elif isinstance(node, Lookup):
            waiting += [node.lhs, *(node.rhs if isinstance(node.rhs, list | tuple) else [node.rhs])]
        elif hasattr(node, "children"):
            waiting += node.children
        elif hasattr(node, "get_source_expressions"):
            waiting += node.get_source_expressions()


def _conditions(filtered: Any) -> list[Any]:
    if filtered is None:
        return []
    resolved = getattr(filtered, "resolved_condition", None)
    return [filtered.condition if resolved is None else resolved]
