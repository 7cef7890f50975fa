"""
Model instances from row images.

The server converts an image into columns of the types that the table has now, and the ORM's converters
take them from there. A value that no Python type can hold stays the text that PostgreSQL wrote, and one that
is not known is deferred.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from django.db import DatabaseError, OperationalError, transaction
from psycopg import pq
from psycopg.adapt import Transformer

from pgobserve.logs import fields

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from django.db import models
    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.sql.keys import Model

    Values = dict[str, Any]

logger = logging.getLogger(__name__)

#: Name and type of a table's columns, the expression of a virtual one, whether the type is ``json``, and
#: whether it may contain ``money`` or ``xml``.
_COLUMNS: Final = """
SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
       CASE WHEN a.attgenerated = 'v' THEN (
         SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid) FROM pg_catalog.pg_attrdef d
          WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum) END,
       t.oid = 114::pg_catalog.oid OR t.typbasetype = 114::pg_catalog.oid,
       t.oid >= 16384::pg_catalog.oid OR t.typelem >= 16384::pg_catalog.oid
         OR t.oid IN (142::pg_catalog.oid, 790::pg_catalog.oid)
         OR t.typelem IN (142::pg_catalog.oid, 790::pg_catalog.oid)
  FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
 WHERE a.attrelid = pg_catalog.to_regclass(%s)::pg_catalog.oid AND a.attnum > 0 AND NOT a.attisdropped
"""

_ROWS: Final = """
SELECT i.number AS pgobserve_number, {columns}
  FROM {pinned}pg_catalog.unnest(%s::pg_catalog.text[]) WITH ORDINALITY AS i(image, number)
 CROSS JOIN LATERAL pg_catalog.json_to_record({image}::pg_catalog.json) AS r({types})
"""

_QUERY: Final = "SELECT {values} FROM ({rows}) AS r ORDER BY pgobserve_number"

#: Images have money as the locale C writes it. Values are returned as the session writes them.
_PINNED_QUERY: Final = """
WITH former AS MATERIALIZED (
  SELECT pg_catalog.current_setting('lc_monetary') AS money, pg_catalog.current_setting('xmloption') AS xml
), pinned AS MATERIALIZED (
  SELECT f.*, (pg_catalog.set_config('lc_monetary', 'C', true),
               pg_catalog.set_config('xmloption', 'content', true)) IS NOT NULL AS done
    FROM former AS f
), rows AS MATERIALIZED ({rows}), restored AS MATERIALIZED (
  SELECT (pg_catalog.set_config('lc_monetary', p.money, true),
          pg_catalog.set_config('xmloption', p.xml, true)) IS NOT NULL AS pgobserve_done
    FROM pinned AS p CROSS JOIN (SELECT pg_catalog.count(*) FROM rows) AS i
)
SELECT {values} FROM restored CROSS JOIN rows AS r ORDER BY pgobserve_number
"""


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

    Fields are deferred if their values are not known: those in a parent's table, and those of columns that
    were added later. A value that can't be read is that of the image's JSON.

    Args:
        images: Rows of its table.
    """
    if not images:
        return []
    reader = _Reader(model, connection)
    rows = reader.read(images, [*reader.plain], reader.virtual)
    instances = [reader.instance(*pair) for pair in zip(images, rows, strict=True)]
    for column, error in reader.unreadable.items():
        logger.warning(
            "Values of %s.%s in the outbox of database %r can't be read; events have the text that "
            "PostgreSQL wrote: %s",
            *(model._meta.label, column, connection.alias, error),
            extra=fields(model=model, alias=connection.alias),
        )
    return instances


class _Reader:
    """
    Reads images of a table.

    Attributes:
        plain: The columns to read, by name as in :data:`_COLUMNS`.
        virtual: The expressions of virtual columns, by name.
        unreadable: An error for each column with values that can't be read.
    """

    def __init__(self, model: Model, connection: BaseDatabaseWrapper) -> None:
        self._model = model
        self._connection = connection
        own = set(model._meta.local_concrete_fields)
        fields = [each for each in model._meta.concrete_fields if each in own]
        self._fields = [
            (each.attname, _column(each), *_conversion(each, connection)) for each in fields
        ]
        self.unreadable: dict[str, Exception] = {}
        with connection.cursor() as cursor:
            cursor.execute(_COLUMNS, [connection.ops.quote_name(model._meta.db_table)])
            columns = cursor.fetchall()
        self.virtual = {name: virtual for name, _, virtual, _, _ in columns if virtual}
        used = {column for _, column, *_ in self._fields}
        self.plain = {
            name: column
            for name, *column in columns
            # The expression of a virtual column may need any other one.
            if name not in self.virtual and (self.virtual or name in used)
        }

    def read(
        self, images: Sequence[Image], names: Sequence[str], virtual: Mapping[str, str]
    ) -> list[Values]:
        """Return the values of columns for each image, without those that can't be read."""
        if not names:
            return [{} for _ in images]
        try:
            return self._query(images, names, virtual)
        except OperationalError:
            raise
        except DatabaseError as error:
            if len(images) > 1:
                return [row for part in _halves(images) for row in self.read(part, names, virtual)]
            if virtual:
                return self.read(images, names, {})
            if len(names) > 1:
                first, second = (self.read(images, part, {})[0] for part in _halves(names))
                return [first | second]
            self.unreadable[names[0]] = error
            return [{}]

    def _query(
        self, images: Sequence[Image], names: Sequence[str], virtual: Mapping[str, str]
    ) -> list[Values]:
        columns, types = [], []
        for name in names:
            (type_, _, is_json, _), column = self.plain[name], _quoted(name)
            # For a column with JSON, PostgreSQL would take the text for a JSON string.
            types.append(f"{column} {'text' if is_json else type_}")
            columns.append(f"r.{column}::{type_} AS {column}" if is_json else f"r.{column}")
        pinned = any(self.plain[name][-1] for name in names)
        rows = _ROWS.format(
            columns=_list(columns),
            types=_list(types),
            pinned="pinned AS p CROSS JOIN " if pinned else "",
            image="CASE WHEN p.done THEN i.image END" if pinned else "i.image",
        )
        values = [*(f"r.{_quoted(name)}" for name in names), *virtual.values()]
        query = (_PINNED_QUERY if pinned else _QUERY).format(rows=rows, values=_list(values))
        keys = [*names, *virtual]
        with _savepoint(self._connection), self._connection.cursor() as cursor:
            cursor.execute(query, [[image.text for image in images]])
            try:
                return [dict(zip(keys, row, strict=True)) for row in cursor.fetchall()]
            except Exception:  # noqa: BLE001 (a loader's)
                return [*self._loaded(cursor, keys)]

    def _loaded(self, cursor: Any, names: Sequence[str]) -> Iterator[Values]:
        """Yield the rows of a result, value by value, without those that Python can't hold."""
        while not hasattr(cursor, "pgresult"):
            cursor = cursor.cursor  # of Django's wrapper
        result, transformer = cursor.pgresult, Transformer(cursor)
        for number in range(result.ntuples):
            row = {}
            for i, name in enumerate(names):
                loader = transformer.get_loader(result.ftype(i), pq.Format(result.fformat(i)))
                data = result.get_value(number, i)
                try:
                    row[name] = None if data is None else loader.load(data)
                except Exception as error:  # noqa: BLE001 (a loader's)
                    self.unreadable[name] = error
            yield row

    def instance(self, image: Image, row: Values) -> models.Model:
        """Return the instance for an image, whose columns have these values."""
        given, values = image.values, {}
        is_whole = not self.virtual or given.keys() >= self.plain.keys()
        for attname, column, expression, converters in self._fields:
            # An image has null for a column that was dropped before, where it names the columns.
            if given.get(column) is not None:
                values[attname] = given[column]
            if column in row and (is_whole if column in self.virtual else column in given):
                try:
                    value = row[column]
                    for convert in converters:
                        value = convert(value, expression, self._connection)
                    values[attname] = value
                except Exception as error:  # noqa: BLE001 (a converter's)
                    self.unreadable[column] = error
        return _made(self._model, values, self._connection.alias)


def _made(model: Model, values: Values, alias: str) -> models.Model:
    instance: models.Model = model.from_db(alias, list(values), list(values.values()))
    for parent, link in model._meta.parents.items():
        if link is not None and link.attname in values:
            instance.__dict__.setdefault(parent._meta.pk.attname, values[link.attname])
    return instance


def _column(of: models.Field[Any, Any]) -> str:
    """Return the name of a field's column, without quotes."""
    name = str(of.column)
    return name[1:-1].replace('""', '"') if name[0] == name[-1] == '"' else name


def _conversion(
    of: models.Field[Any, Any], connection: BaseDatabaseWrapper
) -> tuple[Any, list[Any]]:
    """Return the expression of a field's column, and the functions that convert its values."""
    column: Any = of.get_col(of.model._meta.db_table)
    of_backend = connection.ops.get_db_converters(column)
    return column, [*of_backend, *column.get_db_converters(connection)]


def _savepoint(connection: BaseDatabaseWrapper) -> AbstractContextManager[object]:
    """Let a query fail within the caller's transaction, if there is one."""
    return transaction.atomic(connection.alias) if connection.in_atomic_block else nullcontext()


def _halves(parts: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    return parts[: len(parts) // 2], parts[len(parts) // 2 :]


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))


def _list(parts: Sequence[str]) -> str:
    return ", ".join(parts).replace("%", "%%")  # of names and expressions
