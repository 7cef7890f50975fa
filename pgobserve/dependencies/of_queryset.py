"""
The tables that a queryset reads besides its model's own: joined tables and subqueries'.

A subquery is followed if a column links it to the outer rows, as in
``pk__in=Membership.objects.values("item")`` or ``Exists(…filter(item=OuterRef("pk")))``. Any change in
another subquery's tables affects all rows.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.exceptions import EmptyResultSet, FullResultSet
from django.db.models import ForeignObjectRel, Subquery
from django.db.models.expressions import Col
from django.db.models.lookups import Exact, In, Lookup
from django.db.models.sql.constants import LOUTER
from django.db.models.sql.query import Query
from django.db.models.sql.where import AND, WhereNode

from pgobserve.dependencies.gathering import Gathering
from pgobserve.dependencies.relations import concrete, dependency, join_along, key_or_route
from pgobserve.dependencies.sql_text import compiles_itself, raw_texts, tables_in
from pgobserve.sql.columns import server_name
from pgobserve.sql.relation_path import Join

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from django.db.models import QuerySet

    from pgobserve.dependencies.gathering import Dependencies
    from pgobserve.sql.keys import Model

    #: The joins to each table of a query and its outer queries, by alias.
    Ways = Mapping[str | None, tuple[Join, ...]]

    #: The table of a subquery that is linked to the outer rows, and the joins to it.
    Entry = tuple[str | None, tuple[Join, ...]]


def of_queryset(queryset: QuerySet[Any]) -> Dependencies:
    """
    Return the dependencies of a queryset's filters and annotations.

    Not of its order; and ``select_related`` and ``prefetch_related`` matter only if their rows are shown.
    """
    query: Any = queryset.query
    walk = _Walk(query)
    walk.follow(query, base_of(query), (), {})
    if walk.compiles_itself:
        with suppress(EmptyResultSet, FullResultSet):
            walk.add_compiled(query.sql_with_params()[0])
    return walk.gathered.made()


class _Walk:
    """Walks a query and the queries in it."""

    def __init__(self, query: Any) -> None:
        self.root = concrete(query.model)
        self.label = self.root._meta.label
        self.gathered = Gathering()
        self.compiles_itself = False

    def follow(self, query: Any, alias: str | None, joins: tuple[Join, ...], around: Ways) -> None:
        """Add a query's tables; the joins lead to its table with this alias."""
        ways = {**around, alias: joins}
        self.compiles_itself |= compiles_itself(query)
        for step in steps(query, alias):
            if step.join is None or step.source not in ways:
                if self.compiles_itself:  # its SQL has the table
                    continue
                self.gathered.add_unresolved(
                    f"The queryset of {self.label} joins {step.table} in a way of its own."
                )
                continue
            ways[step.alias] = (*ways[step.source], step.join)
            if query.alias_refcount[step.alias]:
                reverse = step.is_reverse
                self.gathered.add([dependency(self.root, ways[step.alias], is_reverse=reverse)])
        for inner in query.combined_queries:
            self._add_all(inner)
        for inner, lookup in self._subqueries(query):
            entry = _listed(lookup, ways) if lookup is not None else None
            entry = entry or _correlated(inner, ways)
            if entry is None:
                self._add_all(inner)
            else:
                self.gathered.add([key_or_route(self.root, entry[1])])
                self.follow(inner, *entry, ways)

    def _add_all(self, query: Any) -> None:
        """Add all tables of a subquery, nested ones included, for a full refresh."""
        self.compiles_itself |= compiles_itself(query)
        used = [alias for alias in query.alias_map if query.alias_refcount[alias]]
        # Before compilation a query's own table has no alias.
        for alias in used or [None]:
            if (model := model_of(query, alias)) is not None:
                self.gathered.add([model])
        for inner in (*query.combined_queries, *(each for each, _ in self._subqueries(query))):
            self._add_all(inner)

    def _subqueries(self, query: Any) -> Iterator[tuple[Any, In | None]]:
        """Yield the subqueries of a query, with the ``IN`` look-up that has it; note raw SQL."""
        nodes = [*expressions(query)]
        for what, text in raw_texts(query, nodes):
            self._add_raw(what, text)
        for node in nodes:
            if isinstance(node, In) and isinstance(node.rhs, Query):
                yield node.rhs, node
            elif isinstance(node, Subquery | Query):
                yield getattr(node, "query", node), None

    def _add_raw(self, what: str, text: str) -> None:
        """Add the tables that raw SQL reads; a function in it may read others."""
        sure, listed = tables_in(text) if "SELECT" in text.upper() else (Counter(), frozenset())
        self._add_tables({*sure} | {name for name in listed if table_model(name) is not None})
        if not sure:
            self.gathered.add_unresolved(
                f"The queryset of {self.label} uses {what}, whose SQL can't be looked into."
            )

    def add_compiled(self, text: str) -> None:
        """Add the tables of a compiled query, except the first mention of its own table."""
        own = server_name(self.root._meta.db_table)
        self._add_tables(
            name for name, times in tables_in(text)[0].items() if name != own or times > 1
        )

    def _add_tables(self, names: Iterable[str]) -> None:
        for name in names:
            model = table_model(name)
            if model is not None:
                self.gathered.add([model])
                continue
            self.gathered.add_foreign(
                f"The queryset of {self.label} reads the table {name}, which belongs to no model, so its "
                "changes are not seen. Give it a model with managed = False, and install that; or name a "
                "model whose changes come with them in observe_related."
            )


def _listed(lookup: Any, ways: Ways) -> Entry | None:
    """Return how the rows of ``column IN (subquery)`` are linked to the outer rows."""
    query, left = lookup.rhs, lookup.lhs
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
    # With a null in the list, NOT IN is true of no row.
    if column.null or is_outer(query, alias):
        return None
    return _entry(query, alias, column, left, ways)


def _is_plain_set(query: Any) -> bool:
    """Return whether each row of a query contributes its value independently of other rows."""
    aggregates = any(each.contains_aggregate for each in query.annotations.values())
    return not (
        query.is_sliced
        or query.combinator
        or query.distinct_fields
        or query.group_by is not None
        or aggregates
    )


def _correlated(query: Any, ways: Ways) -> Entry | None:
    """Return how a subquery is linked to the outer rows by a column that is equal in both."""
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
                and (entry := _entry(query, own.alias, own.target, other, ways)) is not None
            ):
                return entry
    return None


def _entry(query: Any, alias: str | None, column: Any, outer: Col, ways: Ways) -> Entry | None:
    model = model_of(query, alias)
    if model is None:
        return None
    return alias, (*ways[outer.alias], Join(model, ((outer.target, column),)))


def _conditions(where: Any) -> Iterator[Any]:
    """Yield the conditions that every row of a query meets."""
    if where.connector != AND or where.negated:
        return
    for node in where.children:
        if isinstance(node, WhereNode):
            yield from _conditions(node)
        else:
            yield node


def expressions(query: Any) -> Iterator[Any]:
    """Yield all expressions of a query, without those of its subqueries."""
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


@dataclass(frozen=True, slots=True)
class JoinStep:
    """
    A step between two joined tables of a query.

    Attributes:
        source: The alias of the first table.
        alias: The alias of the second table.
        table: The second table's name.
        join: The join; None if it does not follow a field.
        is_reverse: Whether the second table refers to the first.
    """

    source: str
    alias: str
    table: str
    join: Join | None
    is_reverse: bool


def base_of(query: Any) -> str | None:
    """Return the alias of a query's own table; None if compiling has yet to assign it."""
    return next((a for a, join in query.alias_map.items() if join.parent_alias is None), None)


def steps(query: Any, start: str | None) -> Iterator[JoinStep]:
    """Yield the steps from a table to all others that a query uses, each after its source."""
    neighbours: dict[str, list[JoinStep]] = {}
    for alias, join in query.alias_map.items():
        if join.parent_alias is None:
            continue
        source, is_reverse = join.parent_alias, isinstance(join.join_field, ForeignObjectRel)
        forward = _join_of(join)
        neighbours.setdefault(source, []).append(
            JoinStep(source, alias, join.table_name, forward, is_reverse)
        )
        backward = _reversed(query, source, forward)
        neighbours.setdefault(alias, []).append(
            JoinStep(alias, source, query.alias_map[source].table_name, backward, not is_reverse)
        )
    seen, waiting = {start}, [start]
    while waiting:
        for step in neighbours.get(waiting.pop(0) or "", ()):
            if step.alias not in seen and query.alias_refcount[step.alias]:
                seen.add(step.alias)
                waiting.append(step.alias)
                yield step


def _join_of(join: Any) -> Join | None:
    try:
        return join_along(join.join_field)
    except (AttributeError, IndexError, TypeError):
        return None


def _reversed(query: Any, source: str, forward: Join | None) -> Join | None:
    model = model_of(query, source)
    if forward is None or model is None:
        return None
    return Join(model, tuple((target, source) for source, target in forward.on))


def model_of(query: Any, alias: str | None) -> Model | None:
    """Return the model of a query's table; None if no model has the table."""
    if alias is None:
        return None if query.model is None else concrete(query.model)
    table = query.alias_map[alias].table_name
    if query.model is not None and concrete(query.model)._meta.db_table == table:
        return concrete(query.model)
    return _models_by_table().get(table)


def table_model(name: str) -> Model | None:
    """Return the model of a table by the server's name of it, without its schema."""
    return _models_by_server_name().get(name)


@lru_cache(maxsize=1)
def _models_by_server_name() -> Mapping[str, Model]:
    # Some projects write the schema into the name: `"shop"."order"`.
    named = (
        (re.split(r'"\s*\.\s*"', table)[-1].strip('"'), m)
        for table, m in _models_by_table().items()
    )
    return {server_name(name): concrete(model) for name, model in named}


@lru_cache(maxsize=1)
def _models_by_table() -> Mapping[str, Model]:
    models = (m for m in apps.get_models(include_auto_created=True) if not m._meta.proxy)
    by_table: dict[str, Model] = {}
    for model in sorted(models, key=lambda each: not each._meta.managed):
        by_table.setdefault(model._meta.db_table, model)
    return by_table


def is_outer(query: Any, alias: str | None) -> bool:
    """Return whether a table is joined by an outer join, so that its columns may be null."""
    return alias is not None and getattr(query.alias_map[alias], "join_type", None) == LOUTER
