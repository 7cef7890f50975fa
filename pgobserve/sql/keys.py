"""
Keys: from JSON to the ORM's values, and to parameters of queries.

A key arrives as PostgreSQL's ``to_json`` or a client wrote it. Rows are looked up by the Python value,
for which ``1.50`` and ``1.5``, or one moment in two time zones, are equal.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import math
import re
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone

from pgobserve.hub.identity import key_text

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Hashable, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

Model = type[models.Model]

# Checked for each key of a notification; a union would be built with each call.
_NO_SCALARS: Final = (list, dict, bool)
_NUMBERS: Final = (int, float, Decimal)
_EVENLY_HASHED: Final = (str, int)

#: Keys of equal hash accepted from a client. Keys that are not crafted hardly ever share a hash.
ALIKE: Final = 16


@lru_cache(maxsize=1024)
def key_fields(model: Model) -> tuple[models.Field[Any, Any], ...]:
    """Return the fields of the primary key, several for a composite key."""
    return tuple(getattr(model._meta, "pk_fields", None) or [model._meta.pk])


def to_key(model: Model, value: Any) -> Hashable:
    """
    Return the ORM's value of a key.

    Args:
        model: The key's model.
        value: Untrusted JSON, from a payload or a client.

    Raises:
        ValueError: No row of the model can have that key.
    """
    fields = key_fields(model)
    if len(fields) == 1:
        return to_value(fields[0], value)
    if not isinstance(value, list | tuple) or len(value) != len(fields):
        raise ValueError(f"not {len(fields)} values")
    return tuple(to_value(field, part) for field, part in zip(fields, value, strict=True))


def from_text(model: Model, text: str) -> Hashable:
    """Return the key with this text; the text itself if no key of the model has it."""
    try:
        value = text if len(key_fields(model)) == 1 else json.loads(text)
        key = to_key(model, value)
    except (ValueError, RecursionError):
        return text
    return key if key_text(key) == text else text


def to_value(field: models.Field[Any, Any], value: Any) -> Hashable:
    """
    Return the ORM's value of a field for a JSON value.

    Raises:
        ValueError: The value is null, or no value of the field.
    """
    target = _target(field)
    if value is None or isinstance(value, _NO_SCALARS):
        raise ValueError("not a scalar")
    try:
        if isinstance(target, models.IntegerField):
            return _to_integer(target, value)
        key = target.to_python(value)
    except (ValidationError, ArithmeticError, TypeError) as error:
        raise ValueError("not a value of the field") from error
    if isinstance(target, models.GenericIPAddressField):
        ipaddress.ip_address(key)
    return _check(key)


def _target(field: models.Field[Any, Any]) -> models.Field[Any, Any]:
    """Return the field that defines a foreign key's values, over several foreign keys if need be."""
    while (target := getattr(field, "target_field", field)) is not field:
        field = target
    return field


def _to_integer(field: models.IntegerField[Any, Any], value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,20}\s*", value, re.ASCII):
        value = int(value)
    if not isinstance(value, _NUMBERS):
        raise TypeError("not a number")
    bound = 2 ** (_bits(field) - 1)
    # The range first, because int() of a huge Decimal may take for ever.
    if not -bound <= value < bound:
        raise ValueError("out of range")
    if value != int(value):
        raise ValueError("not an integer")
    return int(value)


def _bits(field: models.IntegerField[Any, Any]) -> int:
    if isinstance(field, models.SmallIntegerField):
        return 16
    return 64 if isinstance(field, models.BigIntegerField) else 32


def _check(key: Any) -> Hashable:
    if isinstance(key, str):
        if "\x00" in key:
            raise ValueError("PostgreSQL's text has no NUL")
        key.encode()  # fails for half of a surrogate pair, which JSON can contain
    if isinstance(key, float | Decimal) and not math.isfinite(key):
        raise ValueError("not finite")
    if isinstance(key, datetime.datetime) and timezone.is_naive(key):
        # As Django interprets it; without USE_TZ the ORM's own values are naive.
        return timezone.make_aware(key, timezone.get_default_timezone())
    hash(key)
    return key  # type: ignore[no-any-return]


def collide(keys: Sequence[Hashable], seen: Counter[int], limit: int) -> bool:
    """
    Return whether keys were crafted to share a hash, which would make dictionaries slow.

    Hashes of text differ between processes, and too few 64-bit integers share a hash. Equal hashes of
    UUIDs, decimals and tuples can be calculated.

    Args:
        keys: Keys of one model.
        seen: Counts of hashes so far; updated.
        limit: How many keys of one hash may be an accident.
    """
    if not keys or isinstance(keys[0], _EVENLY_HASHED):
        return False
    hashes = [*map(hash, keys)]
    seen.update(hashes)
    return any(seen[each] > limit for each in hashes)


def key_of(instance: models.Model) -> Hashable:
    """Return a row's key in the form of :func:`to_key`."""
    fields = key_fields(type(instance))
    values = tuple(_plain(field, instance) for field in fields)
    return values[0] if len(values) == 1 else values


def _plain(field: models.Field[Any, Any], instance: models.Model) -> Any:
    value = getattr(instance, field.attname)
    # An instance that was built, not loaded, may hold the key unconverted.
    return value if isinstance(value, int) else _check(field.to_python(value))


def shown(key: Hashable) -> Any:
    """Return a key as frames show it, by DCRF's rule: JSON types as they are, others as text."""
    if isinstance(key, tuple):
        return [shown(part) for part in key]
    return key if isinstance(key, str | int | float) else str(key)


def as_parameters(
    model: Model, keys: Sequence[Hashable], connection: BaseDatabaseWrapper
) -> list[list[Any]]:
    """Return an array of values for each column of the primary key."""
    fields = key_fields(model)
    rows = [key if isinstance(key, tuple) else (key,) for key in keys]
    return [
        [field.get_db_prep_value(row[i], connection) for row in rows]
        for i, field in enumerate(fields)
    ]


def array_types(model: Model, connection: BaseDatabaseWrapper) -> list[str]:
    """Return the array type of each column of the primary key, see :func:`array_type`."""
    return [array_type(field, connection) for field in key_fields(model)]


def array_type(field: models.Field[Any, Any], connection: BaseDatabaseWrapper) -> str:
    """Return the array type of a field's column, without length or precision."""
    return re.sub(r"\(.*?\)", "", field.rel_db_type(connection) or "text") + "[]"
