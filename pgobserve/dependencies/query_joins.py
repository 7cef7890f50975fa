"""The tables that a query joins, walked from any of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db.models import ForeignObjectRel
from django.db.models.sql.constants import LOUTER

from pgobserve.dependencies.relations import concrete, join_along
from pgobserve.sql.relation_path import Join

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pgobserve.sql.keys import Model


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
