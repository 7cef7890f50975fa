"""
Copies of instances, because a serializer may change the instance that other cohorts share.

``copy.deepcopy`` takes several times as long, and drops querysets' result caches: each copy would query
its prefetched rows again.
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

#: Types of immutable values.
IMMUTABLE: Final = frozenset(
    {
        *(bool, int, float, complex, str, bytes, type(None), Decimal, UUID),
        *(datetime.date, datetime.time, datetime.datetime, datetime.timedelta),
    }
)

#: Methods by which a class may define its own copying.
_HOOKS: Final = ("__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__")


def copied(instance: AnyModel) -> AnyModel:
    """Return a copy that shares no mutable value; related instances are copied too."""
    copy_of: AnyModel = _instance(instance, {})
    return copy_of


def _value(value: Any, memo: dict[int, Any]) -> Any:
    cls = type(value)
    if cls in IMMUTABLE:
        return value
    copier = _COPIERS.get(cls)
    if copier is None:
        if isinstance(value, Model):
            copier = _instance
        elif isinstance(value, QuerySet):
            copier = _queryset
        else:
            return deepcopy(value, memo)
    return memo[id(value)] if id(value) in memo else copier(value, memo)


def _instance(instance: Any, memo: dict[int, Any]) -> Any:
    cls: Any = type(instance)
    if not _copies_as_model(cls):
        return deepcopy(instance, memo)
    made = memo[id(instance)] = object.__new__(cls)
    attributes = made.__dict__
    for name, value in instance.__dict__.items():
        attributes[name] = value if type(value) in IMMUTABLE else _value(value, memo)
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


_COPIERS: Final[dict[type, Callable[[Any, dict[int, Any]], Any]]] = {
    ModelState: _state,
    dict: _dict,
    list: _list,
}


@lru_cache(maxsize=1024)
def _copies_as_model(cls: Any) -> bool:
    """Return whether copying an instance's attributes copies the instance."""
    usual = all(getattr(cls, name, None) is getattr(Model, name, None) for name in _HOOKS)
    return usual and not any("__slots__" in vars(base) for base in cls.__mro__)
