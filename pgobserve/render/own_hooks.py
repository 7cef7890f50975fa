"""
Which hooks a consumer has of its own, on its class or on the one instance.

A socket may differ from the others of its class: a hook set on the instance, a property, a look-up of
the class's own. The answers here err on the side of "its own", for the others see what is shared.
"""

from __future__ import annotations

from dis import get_instructions
from functools import lru_cache
from types import CodeType, MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from django.db.models import QuerySet
from rest_framework.serializers import BaseSerializer

from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.sql.own_rows import overrides

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    Consumer = GenericAsyncAPIConsumer | type[GenericAsyncAPIConsumer]

_MISSING: Final = object()

#: Methods by which a queryset makes the fresh copy that each use of it begins with.
_COPYING: Final = ("all", "_chain", "_clone")

_STORING: Final = frozenset({"STORE_ATTR", "DELETE_ATTR", "STORE_SUBSCR", "DELETE_SUBSCR"})

#: Values that say all of themselves.
_VALUES: Final = (str, bytes, int, float, complex, bool, type(None), type)


class SameHooks:
    """Stands for an object in an identity: equal only where it is that very object."""

    __slots__ = ("_it",)

    def __init__(self, it: object) -> None:
        self._it = it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SameHooks) and self._it is other._it

    def __hash__(self) -> int:
        return id(self._it)


def found(consumer: object, name: str) -> tuple[Any, bool]:
    """
    Return an attribute as it is stored, no descriptor called, and whether the instance has it.

    Args:
        consumer: A consumer, or its class.
        name: The attribute's.
    """
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
    """
    Tell whether a consumer has another method than the package's under any of the names.

    Args:
        consumer: A consumer, or its class.
        *names: Methods.
        ours: The class that has the package's.
    """
    cls = consumer if isinstance(consumer, type) else type(consumer)
    return looks_up_otherwise(cls) or any(
        found(consumer, name)[0] is not found(ours, name)[0] for name in names
    )


def looks_up_otherwise(cls: type) -> bool:
    """Tell whether instances of a class may have other attributes than are stored."""
    own: Any = cls.__getattribute__
    return own is not object.__getattribute__


def maker(consumer: Consumer) -> tuple[Any, ...]:
    """
    Return what tells apart how consumers make serializers.

    What is set on the one instance counts by being set: it is called for that instance alone.
    """
    stored = (found(consumer, name) for name in ("get_serializer", "get_serializer_context"))
    return tuple(None if own else value for value, own in stored)


def is_fixed(consumer: GenericAsyncAPIConsumer) -> bool:
    """Tell whether all instances have the same queryset and serializer: those of their class."""
    queryset, own_queryset = found(consumer, "queryset")
    serializer, own_serializer = found(consumer, "serializer_class")
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
    """Return what a serializer class's ``Meta`` says now; it may be changed while the class lives."""
    meta = getattr(serializer_class, "Meta", None)
    if not isinstance(meta, type):
        return None
    return tuple(frozen(vars(base)) for base in meta.__mro__ if base is not object)


def writes(hook: Any) -> bool:
    """Tell whether a function's code sets attributes or items of anything; an unknown one may."""
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
    """Return what is equal for values that are the same, inside of containers too."""
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
