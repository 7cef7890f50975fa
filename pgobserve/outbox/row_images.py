"""
From row images back to model instances.

The server reads an image as it would read a row of the table, so the values have the types that the
ORM gives them. The table may have changed since the image was made.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db import DataError, ProgrammingError

from pgobserve.logs import fields

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from django.db import models
    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.sql.keys import Model

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Image:
    """
    A row as it was at some time.

    Attributes:
        text: JSON of an object, as the server wrote it: it tells one state from another.
        values: The same read; by column.
    """

    text: str
    values: Mapping[str, Any] = field(compare=False)


def build(
    model: Model, images: Sequence[Image], connection: BaseDatabaseWrapper
) -> list[models.Model]:
    """
    Return an instance for each image.

    A column that the image lacks, because it was added since, has its field's default if that is a
    constant, else None; one that was dropped since is left out. Fields in the table of a parent are
    deferred.

    Args:
        model: The model.
        images: Rows of its table.
        connection: Of the database alias.
    """
    if not images:
        return []
    try:
        return _build(model, images, connection)
    except (DataError, ProgrammingError):
        if len(images) > 1:
            return [build(model, [image], connection)[0] for image in images]
        logger.warning(
            "A row of %s in the outbox of database %r was written before its table was altered, and "
            "not all of its columns can be read with today's types; those have their fields' defaults.",
            *(model._meta.label, connection.alias),
            exc_info=True,
            extra=fields(model=model, alias=connection.alias),
        )
        return [_by_hand(model, images[0], connection)]


def _build(
    model: Model, images: Sequence[Image], connection: BaseDatabaseWrapper
) -> list[models.Model]:
    table = connection.ops.quote_name(model._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT r.* FROM pg_catalog.unnest(%s::text[]) WITH ORDINALITY AS i(image, n), "  # noqa: S608
            f"pg_catalog.json_populate_record(NULL::{table}, i.image::json) AS r ORDER BY i.n",  # by Django
            [[image.text for image in images]],
        )
        columns = {column[0]: i for i, column in enumerate(cursor.description)}
        rows = cursor.fetchall()
    fields = [(f, columns.get(_column(f)), _converters(f, connection)) for f in _fields(model)]
    return [
        _instance(
            model,
            [
                _converted(row[i], f, converters, connection)
                if i is not None and _column(f) in image.values
                else _default(f)
                for f, i, converters in fields
            ],
            connection,
        )
        for row, image in zip(rows, images, strict=True)
    ]


def _by_hand(model: Model, image: Image, connection: BaseDatabaseWrapper) -> models.Model:
    """Do what can be done without the server."""
    return _instance(model, [_read(f, image) for f in _fields(model)], connection)


def _read(of: models.Field[Any, Any], image: Image) -> Any:
    try:
        return of.to_python(image.values[_column(of)])
    except (KeyError, ValidationError, ValueError, TypeError, ArithmeticError):
        return _default(of)


@lru_cache(maxsize=1024)
def _fields(model: Model) -> tuple[models.Field[Any, Any], ...]:
    """Return the fields whose columns are in the model's own table, in the order of all."""
    own = set(model._meta.local_concrete_fields)
    return tuple(each for each in model._meta.concrete_fields if each in own)


def _column(of: models.Field[Any, Any]) -> str:
    """Return the name of a field's column as the server has it."""
    name = str(of.column)
    return name[1:-1].replace('""', '"') if name[0] == name[-1] == '"' else name


def _default(of: models.Field[Any, Any]) -> Any:
    # A default that is called says something about now, not about the time of the image.
    return None if not of.has_default() or callable(of.default) else of.get_default()


def _converters(
    of: models.Field[Any, Any], connection: BaseDatabaseWrapper
) -> list[Callable[..., Any]]:
    column: Any = of.get_col(of.model._meta.db_table)
    return [
        *connection.ops.get_db_converters(column),
        *column.get_db_converters(connection),
    ]


def _converted(
    value: Any,
    of: models.Field[Any, Any],
    converters: Sequence[Callable[..., Any]],
    connection: BaseDatabaseWrapper,
) -> Any:
    if converters:
        column = of.get_col(of.model._meta.db_table)
        for convert in converters:
            value = convert(value, column, connection)
    return value


def _instance(model: Model, values: Sequence[Any], connection: BaseDatabaseWrapper) -> models.Model:
    instance: models.Model = model.from_db(
        connection.alias, [each.attname for each in _fields(model)], values
    )
    for parent, link in model._meta.parents.items():
        if link is not None and parent._meta.pk is not None:
            instance.__dict__.setdefault(parent._meta.pk.attname, getattr(instance, link.attname))
    return instance
