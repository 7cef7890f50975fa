"""SQL for joins. The root table is named ``t0``, the joined tables ``t1`` and so on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from psycopg import sql

from pgobserve.sql.keys import array_type, key_fields, to_key

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Field

    from pgobserve.sql.keys import Model
    from pgobserve.sql.relation_path import Join

    AnyField = Field[Any, Any]

    #: The number of a table, and a field of it.
    Column = tuple[int, AnyField]

#: Types that compare with each other without a cast.
_FAMILIES: Final = (
    {"smallint", "integer", "bigint", "numeric", "double precision", "real"},
    {"text", "varchar", "citext"},
)


def join_clauses(
    joins: Iterable[Join], connection: BaseDatabaseWrapper, *, outer: bool = False
) -> Iterator[sql.Composed]:
    """Yield the JOIN clauses; ``outer`` keeps rows without a match."""
    for number, join in enumerate(joins, 1):
        yield sql.SQL("{} {} {} ON {}").format(
            sql.SQL(" LEFT JOIN" if outer else " JOIN"),
            quoted(join.model._meta.db_table, connection),
            sql.SQL(f"t{number}"),
            sql.SQL(" AND ").join(
                _equal((number - 1, source), (number, target), connection)
                for source, target in join.on
            ),
        )


def _equal(left: Column, right: Column, connection: BaseDatabaseWrapper) -> sql.Composed:
    """Return a comparison, cast if necessary: a generic relation often has keys as text."""
    pattern = "{} = {}"
    types = {array_type(field, connection)[:-2] for _, field in (left, right)}
    if len(types) > 1 and not any(types <= family for family in _FAMILIES):
        pattern = "{}::text = {}::text"
    return sql.SQL(pattern).format(column_of(left, connection), column_of(right, connection))


def is_any(
    columns: Sequence[Column], values: Sequence[Hashable], connection: BaseDatabaseWrapper
) -> tuple[sql.Composed, list[list[Any]]]:
    """Return the condition that columns have any of the values, and its parameters."""
    names = sql.SQL(", ").join(column_of(each, connection) for each in columns)
    arrays = sql.SQL(", ").join(
        sql.SQL("%s::{}").format(sql.SQL(array_type(field, connection))) for _, field in columns
    )
    pattern = "{} = ANY({})" if len(columns) == 1 else "({}) IN (SELECT * FROM unnest({}))"
    rows = [value if isinstance(value, tuple) else (value,) for value in values]
    params = [
        [field.get_db_prep_value(row[number], connection) for row in rows]
        for number, (_, field) in enumerate(columns)
    ]
    return sql.SQL(pattern).format(names, arrays), params


def column_of(column: Column, connection: BaseDatabaseWrapper) -> sql.Composed:
    """Return a column's qualified name."""
    number, field = column
    return sql.SQL("{}.{}").format(sql.SQL(f"t{number}"), quoted(str(field.column), connection))


def quoted(name: str, connection: BaseDatabaseWrapper) -> sql.SQL:
    """Return a name quoted as Django quotes it; names with quotes stay as they are."""
    return sql.SQL(connection.ops.quote_name(name).replace("%", "%%"))


def keys_from(
    root: Model, rows: Iterable[tuple[Any, ...]], connection: BaseDatabaseWrapper
) -> list[Hashable]:
    """Return the keys in rows of key columns, converted as the ORM converts them."""
    fields = key_fields(root)
    keys = []
    for row in rows:
        values = [_convert(*each, connection) for each in zip(fields, row, strict=True)]
        keys.append(to_key(root, values if len(values) > 1 else values[0]))
    return keys


def _convert(field: AnyField, value: Any, connection: BaseDatabaseWrapper) -> Any:
    for convert in field.get_db_converters(connection):
        value = convert(value, None, connection)
    return value
