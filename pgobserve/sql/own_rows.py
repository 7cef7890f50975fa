"""
Querysets that do more to rows than their SQL says: in Python, after they were read.

A subclass may override how rows are fetched, or make its instances by an iterable of its own, and may
know the user while it does. What it shows in ``list`` is what it must show here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.db.models import QuerySet
from django.db.models.expressions import BaseExpression
from django.db.models.query import ModelIterable

if TYPE_CHECKING:
    from collections.abc import Callable

#: Methods that a row passes on its way out of a queryset.
_ON_THE_WAY: Final = ("_fetch_all", "__iter__", "_prefetch_related_objects")


def has_own_rows(queryset: Any) -> bool:
    """Tell whether a queryset has a hand in its rows after they were read."""
    return queryset._iterable_class is not ModelIterable or overrides(type(queryset))


def overrides(cls: Any) -> bool:
    """Tell whether a class of querysets overrides how rows are fetched."""
    return any(getattr(cls, name) is not getattr(QuerySet, name) for name in _ON_THE_WAY)


def has_own_values(queryset: Any) -> bool:
    """Tell whether values of annotations are made by code of the project's, with a state of its own."""
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
    """
    Return instances as the queryset's own class makes them.

    Args:
        queryset: One that :func:`has_own_rows`.
        read: Given a class of iterables, returns one over the rows that were read.
    """
    cls = queryset._iterable_class
    filled = queryset._chain()
    filled._iterable_class = lambda *_, **__: read(cls)
    return list(filled)
