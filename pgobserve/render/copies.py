"""
Copies of instances: a serializer may change what it is given, and others are given it too.

``copy.deepcopy`` does that as well, but takes several times as long, and querysets that it copies forget
what they have read: each copy of an instance would ask the database for its prefetched rows again.
"""

from __future__ import annotations

import datetime
from copy import copy, deepcopy
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

from django.db.models import Model, QuerySet
from django.db.models.base import ModelState

if TYPE_CHECKING:
    from collections.abc import Callable

AnyModel = TypeVar("AnyModel", bound=Model)

#: Types of which nobody can change a value.
UNCHANGEABLE: Final = frozenset(
    {
        *(bool, int, float, complex, str, bytes, type(None), Decimal, UUID),
        *(datetime.date, datetime.time, datetime.datetime, datetime.timedelta),
    }
)

#: What a class may have of its own to say how it is copied.
_HOOKS: Final = ("__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__")


def copied(instance: AnyModel) -> AnyModel:
    """Return a copy that shares nothing that can be changed, related instances included."""
    made: AnyModel = _instance(instance, {})
    return made


def _value(value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in UNCHANGEABLE:
        return value
    if (copy_of := _OF_TYPE.get(kind)) is not None:
        return memo[id(value)] if id(value) in memo else copy_of(value, memo)
    if isinstance(value, Model):
        return memo[id(value)] if id(value) in memo else _instance(value, memo)
    if isinstance(value, QuerySet):
        return memo[id(value)] if id(value) in memo else _queryset(value, memo)
    return deepcopy(value, memo)


def _instance(instance: Any, memo: dict[int, Any]) -> Any:
    cls: Any = type(instance)
    if not _is_usual(cls):
        return deepcopy(instance, memo)
    made = memo[id(instance)] = object.__new__(cls)
    attributes = made.__dict__
    for name, value in instance.__dict__.items():
        attributes[name] = value if type(value) in UNCHANGEABLE else _value(value, memo)
    return made


def _state(state: ModelState, memo: dict[int, Any]) -> ModelState:
    made = copy(state)
    if "fields_cache" in made.__dict__:
        made.fields_cache = _dict(made.fields_cache, memo)
    return made


def _queryset(queryset: Any, memo: dict[int, Any]) -> Any:
    if queryset._result_cache is None:
        return deepcopy(queryset, memo)
    made = memo[id(queryset)] = object.__new__(type(queryset))
    made.__dict__.update(queryset.__dict__)
    made._result_cache = _list(queryset._result_cache, memo)
    return made


def _dict(given: dict[Any, Any], memo: dict[int, Any]) -> dict[Any, Any]:
    made = memo[id(given)] = {}
    for key, value in given.items():
        made[key] = _value(value, memo)
    return made


def _list(given: list[Any], memo: dict[int, Any]) -> list[Any]:
    made: list[Any] = []
    memo[id(given)] = made
    made += [_value(value, memo) for value in given]
    return made


_OF_TYPE: Final[dict[type, Callable[[Any, dict[int, Any]], Any]]] = {
    ModelState: _state,
    dict: _dict,
    list: _list,
}


@lru_cache(maxsize=1024)
def _is_usual(cls: Any) -> bool:
    """Tell whether instances of a class are copied as those of any model, by their attributes."""
    usual = all(getattr(cls, name, None) is getattr(Model, name, None) for name in _HOOKS)
    return usual and not any("__slots__" in vars(base) for base in cls.__mro__)
