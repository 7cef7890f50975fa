"""Makes model instances of rows that were read already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.models.query import ModelIterable, prefetch_related_objects

from pgobserve.sql.own_rows import has_own_rows, own_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db import models
    from django.db.models import QuerySet


def instances_of(queryset: Any, compiler: Any, rows: list[tuple[Any, ...]]) -> list[models.Model]:
    """Return a queryset's instances for these rows of its compiled query, related objects prefetched."""
    filled: Any = _Filled(queryset, compiler, rows)
    if has_own_rows(queryset):
        return own_rows(queryset, lambda iterable_class: iterable_class(filled))
    instances: list[models.Model] = list(ModelIterable(filled))
    if queryset._prefetch_related_lookups and instances:
        prefetch_related_objects(instances, *queryset._prefetch_related_lookups)
    return instances


class _Filled:
    """A queryset whose rows are read, with the interface that :class:`ModelIterable` uses."""

    def __init__(self, queryset: QuerySet[Any], compiler: Any, rows: list[tuple[Any, ...]]) -> None:
        self._queryset = queryset
        self._compiler = compiler
        self._rows = rows

    def __getattr__(self, name: str) -> Any:
        # Attributes of the compiler, because get_compiler() returns this object, too.
        if name in {"select", "klass_info", "annotation_col_map"}:
            return getattr(self._compiler, name)
        return getattr(self._queryset, name)

    @property
    def query(self) -> _Filled:
        return self

    def get_compiler(self, using: str) -> _Filled:
        return self

    def execute_sql(self, **_: Any) -> list[list[tuple[Any, ...]]]:
        return [self._rows]

    def results_iter(self, results: Any) -> Iterator[Any]:
        rows: Iterator[Any] = self._compiler.results_iter(results)
        return rows
