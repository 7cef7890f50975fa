"""
Makes model instances of rows that were read already.

A queryset may change rows in Python after the database has returned them: a subclass may override how rows
are fetched, or build instances with an iterable of its own, and may know the user. A subscription must show
what its ``list`` shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.db.models import QuerySet
from django.db.models.expressions import BaseExpression
from django.db.models.query import ModelIterable, prefetch_related_objects

from pgobserve.sql.keys import key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db import models
    from django.db.backends.base.base import BaseDatabaseWrapper


#: The attribute of an instance that holds its identity until its reader takes it.
_KEY: Final = "_pgobserve_key"


def instances_of(queryset: Any, compiler: Any, rows: list[tuple[Any, ...]]) -> list[models.Model]:
    """
    Return a queryset's instances for rows of its compiled query, with related objects prefetched.

    Args:
        queryset: The queryset.
        compiler: The compiler of its query.
        rows: The query's columns, then the identity of the row.
    """
    filled: Any = _Filled(queryset, compiler, rows)
    if has_own_rows(queryset):
        return own_rows(queryset, lambda iterable_class: iterable_class(filled))
    instances: list[models.Model] = list(ModelIterable(filled))
    if queryset._prefetch_related_lookups and instances:
        prefetch_related_objects(instances, *queryset._prefetch_related_lookups)
    return instances


def key_read(instance: models.Model, connection: BaseDatabaseWrapper) -> str:
    """Return the identity with which an instance was read, or that of one that the project's code made."""
    key: str | None = instance.__dict__.pop(_KEY, None)
    return key_of(instance, connection) if key is None else key


class _Filled:
    """A queryset whose rows are read, with the interface that :class:`ModelIterable` uses."""

    def __init__(self, queryset: QuerySet[Any], compiler: Any, rows: list[tuple[Any, ...]]) -> None:
        self._queryset = queryset
        self._compiler = compiler
        self._rows = rows

    def __getattr__(self, name: str) -> Any:
        # Attributes of the compiler, because get_compiler() returns this object, too.
        if name in {"select", "klass_info"}:
            return getattr(self._compiler, name)
        if name == "annotation_col_map":
            return {**(self._compiler.annotation_col_map or {}), _KEY: -1}
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


#: Methods through which every row leaves a queryset.
_FETCHING: Final = ("_fetch_all", "__iter__", "_prefetch_related_objects")


def has_own_rows(queryset: Any) -> bool:
    """Return whether a queryset's own code may change rows after they were read."""
    return queryset._iterable_class is not ModelIterable or overrides(type(queryset))


def overrides(cls: Any) -> bool:
    """Return whether a queryset class overrides how rows are fetched."""
    return any(getattr(cls, name) is not getattr(QuerySet, name) for name in _FETCHING)


def has_own_values(queryset: Any) -> bool:
    """Return whether the project's code converts values of annotations, possibly by state of its own."""
    return any(map(_converts, queryset.query.annotation_select.values()))


def _converts(expression: Any) -> bool:
    cls: Any = type(expression)
    if not cls.__module__.startswith("django.") and (
        cls.get_db_converters is not BaseExpression.get_db_converters
        or cls.convert_value is not BaseExpression.convert_value
    ):
        return True
    field = getattr(expression, "_output_field_or_none", None)
    return (
        hasattr(field, "from_db_value")
        and not hasattr(field, "model")
        and not type(field).__module__.startswith("django.")
    )


def own_rows(queryset: Any, read: Callable[[Any], Any]) -> list[Any]:
    """Return instances as a queryset's class makes them; ``read`` maps its iterable class to an iterable."""
    cls = queryset._iterable_class
    filled = queryset._chain()
    filled._iterable_class = lambda *_, **__: read(cls)
    return list(filled)
