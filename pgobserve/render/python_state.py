"""What a queryset holds in Python and not in its SQL: two with equal SQL may differ in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from django.db.models import Prefetch, QuerySet

from pgobserve.render.own_hooks import frozen
from pgobserve.sql.own_rows import has_own_rows, has_own_values

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from pgobserve.generics import GenericAsyncAPIConsumer

_VALUES: Final = (str, bytes, int, float, bool, type(None), type)

#: Stands for each consumer, and keeps none of them.
_stand_ins: WeakKeyDictionary[GenericAsyncAPIConsumer, object] = WeakKeyDictionary()


def stands_for(consumer: GenericAsyncAPIConsumer, kwargs: Mapping[str, Any]) -> Hashable:
    """Return what is equal only for the same socket and message, whatever the request id."""
    said = sorted((name, value) for name, value in kwargs.items() if name != "request_id")
    return _stand_ins.setdefault(consumer, object()), repr(said)


def python_state(queryset: Any, own: Hashable) -> Hashable:
    """
    Return what of a queryset is not in its SQL, and decides what its rows are.

    Args:
        queryset: As a hook returned it.
        own: Stands for what can't be compared: see :func:`stands_for`.
    """
    found: list[Any] = []
    if has_own_rows(queryset):
        found += [type(queryset), queryset._iterable_class]
        usual = set(vars(QuerySet(queryset.model))) - {"_hints"}
        found += [
            (name, frozen(value) if _is_said(value) else own)
            for name, value in vars(queryset).items()
            if name not in usual
        ]
    if has_own_values(queryset):
        found.append(own)
    if not all(map(_is_usual, queryset._prefetch_related_lookups)):
        found.append(own)
    return tuple(found)


def _is_said(value: Any) -> bool:
    """Tell whether a value says all of itself: objects of any other type may change."""
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_said, value))
    if isinstance(value, dict):
        return all(map(_is_said, value)) and all(map(_is_said, value.values()))
    return isinstance(value, _VALUES)


def _is_usual(lookup: Any) -> bool:
    if isinstance(lookup, str):
        return True
    return type(lookup) is Prefetch or type(lookup).__module__.startswith("django.")
