"""
Querysets that change rows in Python, after the database has returned them.

A subclass may override how rows are fetched, or build instances with an iterable of its own, and may
know the user. A subscription must show what its ``list`` shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.db.models import QuerySet
from django.db.models.expressions import BaseExpression
from django.db.models.query import ModelIterable

if TYPE_CHECKING:
    from collections.abc import Callable

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
