"""
Keys: the texts that identify rows, and the ORM's values of them.

A row's identity is the text of its primary key as PostgreSQL writes it, see :func:`columns.text_of`. That of
a composite key is a JSON array of such texts. The package compares these texts and no decoded values: which
values are equal is for PostgreSQL to say.
"""

from __future__ import annotations

import datetime
import json
import math
from functools import lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo

import psycopg
from django.core.exceptions import ValidationError
from django.db import connections, models
from django.db.backends.postgresql.psycopg_any import get_adapters_template
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import Format

from pgobserve.sql.columns import known_column

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

Model = type[models.Model]


_NOT_ADAPTED = (psycopg.Error, NotImplementedError)


@lru_cache(maxsize=1024)
def key_fields(model: Model) -> tuple[models.Field[Any, Any], ...]:
    """Return the fields of the primary key, several for a composite key."""
    return tuple(getattr(model._meta, "pk_fields", None) or [model._meta.pk])


# From and to texts


def identity(texts: Sequence[str]) -> str:
    """Return the identity of a row by the texts of its key's columns."""
    # As PostgreSQL's `json_build_array` writes it.
    return texts[0] if len(texts) == 1 else json.dumps(texts, ensure_ascii=False)


def arrays(keys: Sequence[Any], columns: int) -> list[list[Any]]:
    """
    Return the texts of each column of a key.

    Args:
        keys: Identities of rows.
        columns: The number of columns.

    Raises:
        ValueError: One of them is no identity.
    """
    if columns == 1:
        return [[*keys]]
    parts = [json.loads(key) for key in keys]
    if not all(isinstance(each, list) and len(each) == columns for each in parts):
        raise ValueError(f"not {columns} values")
    return [list(each) for each in zip(*parts, strict=True)] if parts else [[]] * columns


# From the ORM's values


def identity_for(model: Model, value: Any, connection: BaseDatabaseWrapper) -> str:
    """
    Return the text that a client's or the ORM's key has as a parameter of a query.

    PostgreSQL may write the key in another way. Runs no query.

    Raises:
        ValueError: No row of the model can have that key.
    """
    fields = key_fields(model)
    values = [value] if len(fields) == 1 else value
    if not isinstance(values, list | tuple) or len(values) != len(fields):
        raise ValueError(f"not {len(fields)} values")
    return identity(
        [text_for(field, each, connection) for field, each in zip(fields, values, strict=True)]
    )


def text_for(field: models.Field[Any, Any], value: Any, connection: BaseDatabaseWrapper) -> str:
    """
    Return the text that a field's value has as a parameter of a query.

    Raises:
        ValueError: It is null, or no value of the field.
    """
    if value is None or not _fits(field, value):
        raise ValueError("no key")
    if isinstance(value, str) and isinstance(field, models.BinaryField):
        return value  # as `as_json` shows it
    try:
        prepared: Any = field.get_db_prep_value(value, connection)
        if isinstance(prepared, int | UUID) and not isinstance(prepared, bool):
            prepared = str(prepared)  # as PostgreSQL writes it
        elif not isinstance(prepared, str):
            prepared = _conversions().get_dumper(prepared, PyFormat.TEXT).dump(prepared)
    except (ValidationError, ArithmeticError, TypeError, *_NOT_ADAPTED) as error:
        raise ValueError("not a value of the field") from error
    text = prepared if isinstance(prepared, str) else bytes(prepared or b"\0").decode()
    if "\0" in text:
        raise ValueError("PostgreSQL's text has no NUL")
    text.encode()  # fails for half of a surrogate pair, which JSON can contain
    return text


def _fits(field: models.Field[Any, Any], value: Any) -> bool:
    """Return whether a field should convert a value. Some fields take all, such as a list for text."""
    if isinstance(value, bool | list | dict | float) and isinstance(field, models.IntegerField):
        return isinstance(value, float) and value.is_integer()
    if isinstance(field, models.CharField | models.TextField):
        return not isinstance(value, bool | list | dict)
    return not isinstance(value, bool) or not isinstance(field, models.DecimalField)


def key_of(instance: models.Model, connection: BaseDatabaseWrapper) -> str:
    """Return the identity of an instance as :func:`identity_for` writes it."""
    fields = key_fields(type(instance))
    return identity(
        [text_for(field, getattr(instance, field.attname), connection) for field in fields]
    )


def _conversions() -> Any:
    """Return psycopg's conversions as Django's connections have them, for a session in UTC."""
    # Not thread-safe, so each call makes its own.
    adapters = get_adapters_template(True, datetime.UTC)
    return Transformer(SimpleNamespace(adapters=adapters, connection=None))


# To what frames show


def shown(model: Model, key: Hashable, alias: str) -> Any:
    """
    Return a row's key as frames show it.

    Args:
        model: The row's model.
        key: Its identity.
        alias: The database alias by which it was read.
    """
    fields = key_fields(model)
    if key is None:
        return None
    texts = arrays([key], len(fields))
    values = [_decoded(each, text, alias) for each, (text,) in zip(fields, texts, strict=True)]
    return values[0] if len(values) == 1 else values


def _decoded(field: models.Field[Any, Any], text: str, alias: str) -> Any:
    """Return the JSON of a column's value as the ORM has it; the text itself if no Python type can hold it."""
    column = known_column(field, alias)
    if column is None:
        return text
    try:
        if column.exact == "integer" and str(int(text)) != text:
            return text  # a client has made it up: PostgreSQL writes no key so
        value = _reader(field, column.oid, alias)(text.encode())
    except (ValueError, TypeError, ArithmeticError, psycopg.Error):
        return text
    return as_json(value)


@lru_cache(maxsize=1024)
def _reader(field: models.Field[Any, Any], oid: int, alias: str) -> Callable[[bytes], Any]:
    """Return the function that makes a value of a column's text, as the ORM does."""
    connection: Any = connections[alias]
    load = _conversions().get_loader(oid, Format.TEXT).load
    column: Any = field.get_col(field.model._meta.db_table)
    converters = [
        *connection.ops.get_db_converters(column),
        *column.get_db_converters(connection),
    ]

    def read(text: bytes) -> Any:
        value = load(text)
        if isinstance(value, datetime.datetime) and value.tzinfo is not None:
            value = value.astimezone(ZoneInfo(connection.timezone_name))
            # Without USE_TZ the connection has no time zone.
            value = value if connection.timezone else value.replace(tzinfo=None)
        for convert in converters:
            value = convert(value, column, connection)
        return value

    return read


def as_json(value: Any) -> Any:
    """Return a key as frames show it, by DCRF's rule: JSON types as they are, others as text."""
    if isinstance(value, tuple):
        return [as_json(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, bytes | memoryview):
        return f"\\x{value.hex()}"
    return value if isinstance(value, str | int | float | list | dict) else str(value)
