"""
Model instances from row images.

The server converts an image into a row of the table, so values have the types that the ORM gives them.
The table may have been altered since the image was written.
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
    A past state of a row.

    Attributes:
        text: A JSON object, as the server wrote it; images are equal if their texts are.
        values: Its values by column.
    """

    text: str
    values: Mapping[str, Any] = field(compare=False)


def build(
    model: Model, images: Sequence[Image], connection: BaseDatabaseWrapper
) -> list[models.Model]:
    """
    Return an instance for each image.

    A column that was added later gets its field's default if that is a constant, else None; a dropped
    column is ignored. Fields in a parent's table are deferred.

    Args:
        images: Rows of its table.
    """
    if not images:
        return []
    try:
        return _build(model, images, connection)
    except (DataError, ProgrammingError):
        if len(images) > 1:
            return [build(model, [image], connection)[0] for image in images]
        logger.warning(
            "A row of %s in the outbox of database %r was written before its table was altered. "
            "Columns that can't be read with their present types get their fields' defaults.",
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
    """Convert the image without the server."""
    return _instance(model, [_read(f, image) for f in _fields(model)], connection)


def _read(of: models.Field[Any, Any], image: Image) -> Any:
    try:
        return of.to_python(image.values[_column(of)])
    except (KeyError, ValidationError, ValueError, TypeError, ArithmeticError):
        return _default(of)


@lru_cache(maxsize=1024)
def _fields(model: Model) -> tuple[models.Field[Any, Any], ...]:
    """Return the fields whose columns are in the model's own table, in order."""
    own = set(model._meta.local_concrete_fields)
    return tuple(each for each in model._meta.concrete_fields if each in own)


def _column(of: models.Field[Any, Any]) -> str:
    """Return the name of a field's column, without quotes."""
    name = str(of.column)
    return name[1:-1].replace('""', '"') if name[0] == name[-1] == '"' else name


def _default(of: models.Field[Any, Any]) -> Any:
    # The result of a callable default belongs to the present, not to the time of the image.
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
