"""The state of a queryset that its SQL does not show; querysets with equal SQL may differ in it."""

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

#: A token for each consumer, which keeps no consumer alive.
_tokens: WeakKeyDictionary[GenericAsyncAPIConsumer, object] = WeakKeyDictionary()


def stands_for(consumer: GenericAsyncAPIConsumer, kwargs: Mapping[str, Any]) -> Hashable:
    """Return a value that is equal only for the same socket and message, whatever the request id."""
    arguments = sorted((name, value) for name, value in kwargs.items() if name != "request_id")
    return _tokens.setdefault(consumer, object()), repr(arguments)


def python_state(queryset: Any, own: Hashable) -> Hashable:
    """
    Return the Python state of a queryset that affects its rows.

    Args:
        queryset: A hook's result.
        own: Replaces values that can't be compared, see :func:`stands_for`.
    """
    state: list[Any] = []
    if has_own_rows(queryset):
        state += [type(queryset), queryset._iterable_class]
        usual = set(vars(QuerySet(queryset.model))) - {"_hints"}
        state += [
            (name, frozen(value) if _is_comparable(value) else own)
            for name, value in vars(queryset).items()
            if name not in usual
        ]
    if has_own_values(queryset):
        state.append(own)
    if not all(map(_is_plain_lookup, queryset._prefetch_related_lookups)):
        state.append(own)
    return tuple(state)


def _is_comparable(value: Any) -> bool:
    """Return whether equality compares all of a value; objects of other types may change."""
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_comparable, value))
    if isinstance(value, dict):
        return all(map(_is_comparable, value)) and all(map(_is_comparable, value.values()))
    return isinstance(value, _VALUES)


def _is_plain_lookup(lookup: Any) -> bool:
    if isinstance(lookup, str):
        return True
    return type(lookup) is Prefetch or type(lookup).__module__.startswith("django.")
