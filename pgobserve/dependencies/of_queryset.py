"""
Which tables a queryset looks at besides its model's own: those that it joins, and subqueries'.

A subquery is followed where it belongs to the rows around it by the value of a column:
``pk__in=Membership.objects.values("item")`` as well as ``Exists(…filter(item=OuterRef("pk")))``.
Any change in other subqueries concerns all rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.models import Subquery
from django.db.models.expressions import Col, RawSQL
from django.db.models.lookups import Exact, In, Lookup
from django.db.models.sql.query import Query
from django.db.models.sql.where import AND, ExtraWhere, WhereNode

from pgobserve.dependencies.gathering import Gathering
from pgobserve.dependencies.query_joins import (
    base_of,
    is_outer,
    model_of,
    steps,
)
from pgobserve.dependencies.relations import concrete, dependency, key_or_route
from pgobserve.sql.relation_path import Join

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from django.db.models import QuerySet

    from pgobserve.dependencies.gathering import Dependencies

    #: The joins that lead to each table of a query and those around it, by alias.
    Ways = Mapping[str | None, tuple[Join, ...]]

    #: The table of a subquery by which it belongs to the rows around it, and how.
    Entry = tuple[str | None, tuple[Join, ...]]


def of_queryset(queryset: QuerySet[Any]) -> Dependencies:
    """
    Return what decides which rows a queryset has, and what it annotates them with.

    What only orders the rows is not among it, nor what ``select_related`` and ``prefetch_related``
    fetch: that matters where it is shown.
    """
    query: Any = queryset.query
    look = _Look(query)
    look.follow(query, base_of(query), (), {})
    return look.found.made()


class _Look:
    """A look at a query, and at the queries in it."""

    def __init__(self, query: Any) -> None:
        self.root = concrete(query.model)
        self.label = self.root._meta.label
        self.found = Gathering()

    def follow(self, query: Any, alias: str | None, joins: tuple[Join, ...], around: Ways) -> None:
        """Look at a query whose table of that alias the joins lead to."""
        ways = {**around, alias: joins}
        for step in steps(query, alias):
            if step.join is None or step.source not in ways:
                self.found.add_unresolved(
                    f"The queryset of {self.label} joins {step.table} in a way of its own."
                )
                continue
            ways[step.alias] = (*ways[step.source], step.join)
            if query.alias_refcount[step.alias]:
                found = dependency(self.root, ways[step.alias], is_reverse=step.is_reverse)
                self.found.add([found])
        self._inside(query, ways)

    def _inside(self, query: Any, ways: Ways) -> None:
        """Look at the subqueries of a query."""
        self._raw(query)
        for inner in query.combined_queries:
            self._all(inner)
        for node in _expressions(query):
            self._note(node)
            if isinstance(node, In) and isinstance(node.rhs, Query):
                self._subquery(
                    node.rhs, _of_values(node, ways) or _correlated(node.rhs, ways), ways
                )
            elif isinstance(node, Subquery):
                self._subquery(node.query, _correlated(node.query, ways), ways)
            elif isinstance(node, Query):
                self._subquery(node, _correlated(node, ways), ways)

    def _subquery(self, query: Any, entry: Entry | None, ways: Ways) -> None:
        if entry is None:
            self._all(query)
            return
        alias, joins = entry
        self.found.add([key_or_route(self.root, joins)])
        self.follow(query, alias, joins, ways)

    def _all(self, query: Any) -> None:
        """Add all tables of a subquery, and of those in it: any change there concerns all rows."""
        used = [alias for alias in query.alias_map if query.alias_refcount[alias]]
        # Its own table has no alias before it is compiled.
        for alias in used or [None]:
            if (model := model_of(query, alias)) is not None:
                self.found.add([model])
        self._raw(query)
        for inner in query.combined_queries:
            self._all(inner)
        for node in _expressions(query):
            self._note(node)
            if isinstance(node, In) and isinstance(node.rhs, Query):
                self._all(node.rhs)
            elif isinstance(node, Subquery | Query):
                self._all(getattr(node, "query", node))

    def _raw(self, query: Any) -> None:
        if query.extra or query.extra_tables:
            self._unresolved("extra()")

    def _note(self, node: Any) -> None:
        if isinstance(node, RawSQL):
            self._unresolved("RawSQL")
        elif isinstance(node, ExtraWhere):
            self._unresolved("extra()")

    def _unresolved(self, what: str) -> None:
        self.found.add_unresolved(
            f"The queryset of {self.label} uses {what}, whose SQL can't be looked into."
        )


def _of_values(node: Any, ways: Ways) -> Entry | None:
    """Return how a subquery belongs to the rows of which it lists the values of a column."""
    query, left = node.rhs, node.lhs
    alias: str | None
    if not isinstance(left, Col) or left.alias not in ways or not _is_plain_set(query):
        return None
    if query.has_select_fields:
        if (
            len(query.select) != 1
            or query.annotation_select
            or not isinstance(query.select[0], Col)
        ):
            return None
        alias, column = query.select[0].alias, query.select[0].target
    else:
        field: Any = left.target
        alias = base_of(query)
        column = field.target_field if field.is_relation else query.model._meta.pk
    # With a null among them, NOT IN is true of no row.
    if column.null or is_outer(query, alias):
        return None
    return _entry(query, alias, column, left, ways)


def _is_plain_set(query: Any) -> bool:
    """Tell whether each row of a query adds a value of its own, whatever others there are."""
    aggregates = any(each.contains_aggregate for each in query.annotations.values())
    return not (
        query.is_sliced
        or query.combinator
        or query.distinct_fields
        or query.group_by is not None
        or aggregates
    )


def _correlated(query: Any, ways: Ways) -> Entry | None:
    """Return how a subquery belongs to the rows around it, by a column that is equal in both."""
    for node in _conditions(query.where):
        if not isinstance(node, Exact):
            continue
        for own, other in ((node.lhs, node.rhs), (node.rhs, node.lhs)):
            if (
                isinstance(own, Col)
                and isinstance(other, Col)
                and own.alias in query.alias_map
                and other.alias not in query.alias_map
                and other.alias in ways
                and (found := _entry(query, own.alias, own.target, other, ways)) is not None
            ):
                return found
    return None


def _entry(query: Any, alias: str | None, column: Any, outer: Col, ways: Ways) -> Entry | None:
    model = model_of(query, alias)
    if model is None:
        return None
    return alias, (*ways[outer.alias], Join(model, ((outer.target, column),)))


def _conditions(where: Any) -> Iterator[Any]:
    """Yield the conditions that all rows of a query meet."""
    if where.connector != AND or where.negated:
        return
    for node in where.children:
        if isinstance(node, WhereNode):
            yield from _conditions(node)
        else:
            yield node


def _expressions(query: Any) -> Iterator[Any]:
    """Yield all expressions of a query, but not those of the queries in them."""
    waiting: list[Any] = [query.where, *query.annotations.values()]
    if isinstance(query.group_by, tuple | list):
        waiting += query.group_by
    for join in query.alias_map.values():
        waiting += _filtered(getattr(join, "filtered_relation", None))
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, Query | Subquery):
            continue
        if isinstance(node, Lookup):
            right = node.rhs if isinstance(node.rhs, list | tuple) else [node.rhs]
            own = isinstance(node, In) and isinstance(node.rhs, Query)
            waiting += [node.lhs, *([] if own else right)]
        elif hasattr(node, "children"):
            waiting += node.children
        elif hasattr(node, "get_source_expressions"):
            waiting += node.get_source_expressions()


def _filtered(relation: Any) -> list[Any]:
    if relation is None:
        return []
    resolved = getattr(relation, "resolved_condition", None)
    return [relation.condition if resolved is None else resolved]
