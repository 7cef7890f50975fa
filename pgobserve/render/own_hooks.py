"""
Which hooks a consumer overrides, on its class or on the instance, and what a queryset has besides its SQL.

A socket may differ from its class: by a hook set on the instance, a property, or ``__getattribute__``.
In doubt the answer is "its own", because wrong sharing would show a user another user's data.
"""

from __future__ import annotations

from dis import get_instructions
from functools import lru_cache
from types import CodeType, MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from django.db.models import Prefetch, QuerySet
from rest_framework.serializers import BaseSerializer

from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.sql.row_instances import has_own_rows, has_own_values, overrides

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    Consumer = GenericAsyncAPIConsumer | type[GenericAsyncAPIConsumer]

_MISSING: Final = object()

#: Methods that make the fresh copy with which each use of a queryset starts.
_COPYING: Final = ("all", "_chain", "_clone")

_STORING: Final = frozenset({"STORE_ATTR", "DELETE_ATTR", "STORE_SUBSCR", "DELETE_SUBSCR"})

#: Types whose values compare by all they contain.
_VALUES: Final = (str, bytes, int, float, complex, bool, type(None), type)


class SameHooks:
    """Wraps an object, and equals only a wrapper of the same object."""

    __slots__ = ("_it",)

    def __init__(self, it: object) -> None:
        self._it = it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SameHooks) and self._it is other._it

    def __hash__(self) -> int:
        return id(self._it)


def stored(consumer: object, name: str) -> tuple[Any, bool]:
    """Return an attribute of a consumer or class without calling descriptors, and whether the instance has it."""
    cls = consumer if isinstance(consumer, type) else type(consumer)
    if cls is not consumer:
        own = vars(consumer).get(name, _MISSING)
        if own is not _MISSING:
            return own, True
    for base in cls.__mro__:
        if name in vars(base):
            return vars(base)[name], False
    return None, False


def has_own(consumer: Consumer, *names: str, ours: type = GenericAsyncAPIConsumer) -> bool:
    """Return whether a consumer, or a class, overrides any of the methods of ``ours``."""
    cls = consumer if isinstance(consumer, type) else type(consumer)
    return looks_up_otherwise(cls) or any(
        stored(consumer, name)[0] is not stored(ours, name)[0] for name in names
    )


def looks_up_otherwise(cls: type) -> bool:
    """Return whether a class overrides ``__getattribute__``, so that stored attributes prove nothing."""
    own: Any = cls.__getattribute__
    return own is not object.__getattribute__


def serializer_hooks(consumer: Consumer) -> tuple[Any, ...]:
    """Return the hooks that make serializers, to compare consumers; None for a hook set on the instance."""
    hooks = (stored(consumer, name) for name in ("get_serializer", "get_serializer_context"))
    return tuple(None if own else value for value, own in hooks)


def is_fixed(consumer: GenericAsyncAPIConsumer) -> bool:
    """Return whether a consumer uses its class's queryset and serializer, as all its instances do."""
    queryset, own_queryset = stored(consumer, "queryset")
    serializer, own_serializer = stored(consumer, "serializer_class")
    return (
        not own_queryset
        and not own_serializer
        and isinstance(queryset, QuerySet)
        and all(getattr(type(queryset), n) is getattr(QuerySet, n) for n in _COPYING)
        and not overrides(type(queryset))
        and isinstance(serializer, type)
        and issubclass(serializer, BaseSerializer)
        and not any(hasattr(type(each), "__get__") for each in (queryset, serializer))
    )


def meta_of(serializer_class: Any) -> Hashable:
    """Return the current contents of a serializer class's ``Meta``, which code may change."""
    meta = getattr(serializer_class, "Meta", None)
    if not isinstance(meta, type):
        return None
    return tuple(frozen(vars(base)) for base in meta.__mro__ if base is not object)


def writes(hook: Any) -> bool:
    """Return whether a function's code may set attributes or items; in doubt it may."""
    if hook is vars(GenericAsyncAPIConsumer).get(getattr(hook, "__name__", "")):
        return False
    code = getattr(getattr(hook, "__func__", hook), "__code__", None)
    return not isinstance(code, CodeType) or _writes(code)


@lru_cache(maxsize=1024)
def _writes(code: CodeType) -> bool:
    names = {"setattr", "update", "__setattr__"}
    return (
        not names.isdisjoint(code.co_names)
        or any(step.opname in _STORING for step in get_instructions(code))
        or any(_writes(each) for each in code.co_consts if isinstance(each, CodeType))
    )


def frozen(value: Any, levels: int = 4) -> Hashable:
    """Return a hashable that is equal for equal values, within containers too."""
    if isinstance(value, _VALUES):
        return (type(value), value)
    if not levels:
        return SameHooks(value)
    if isinstance(value, list | tuple | set | frozenset):
        items: Iterable[Any] = value
        return (type(value), tuple(frozen(item, levels - 1) for item in items))
    if isinstance(value, dict | MappingProxyType):
        return tuple((name, frozen(item, levels - 1)) for name, item in value.items())
    return SameHooks(value)


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
