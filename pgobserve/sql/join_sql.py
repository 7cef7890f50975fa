"""SQL for joins. The root table is named ``t0``, the joined tables ``t1`` and so on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from psycopg import sql

from pgobserve.sql.columns import TEXT, text_of, type_of
from pgobserve.sql.key_sql import any_of
from pgobserve.sql.keys import arrays

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Field

    from pgobserve.sql.columns import Column as Type
    from pgobserve.sql.relation_path import Join

    AnyField = Field[Any, Any]

    #: The number of a table, and a field of it.
    Column = tuple[int, AnyField]

#: Types that compare with each other without a cast.
_FAMILIES: Final = (
    {"int2", "int4", "int8", "numeric", "float8", "float4"},
    {"text", "varchar", "bpchar", "citext"},
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
    if not comparable(*(type_of(field, connection) for _, field in (left, right))):
        pattern = "{}::text = {}::text"
    return sql.SQL(pattern).format(column_of(left, connection), column_of(right, connection))


def comparable(left: Type, right: Type) -> bool:
    """Return whether values of two types compare without a cast."""
    bases = {left.base or left.type.rpartition(".")[2], right.base or right.type.rpartition(".")[2]}
    return left.type == right.type or any(bases <= family for family in _FAMILIES)


def is_any(
    columns: Sequence[Column],
    values: Sequence[str],
    connection: BaseDatabaseWrapper,
    *,
    of: Sequence[AnyField] = (),
) -> tuple[sql.Composed, list[list[Any]]]:
    """
    Return the condition that columns have any of some values, and its parameters.

    Args:
        columns: The columns.
        values: Identities of rows, or texts of a single column.
        of: The fields that the values belong to, if not to the columns.
    """
    names = [column_of(each, connection).as_string() for each in columns]
    types = [type_of(field, connection) for _, field in columns]
    params = arrays(values, len(columns))
    sources = [type_of(field, connection) for field in of] or types
    for number, (own, given) in enumerate(zip(types, sources, strict=True)):
        if comparable(own, given):
            types[number] = given
        elif len(columns) == 1 and own.exact in ("integer", "uuid"):
            # Other values are equal to none of the column.
            params = [[*filter(own.writes, params[0])]]
        else:
            types[number], names[number] = TEXT, text_of(names[number], own)
    return sql.Composed([sql.SQL(any_of(names, types))]), params


def column_of(column: Column, connection: BaseDatabaseWrapper) -> sql.Composed:
    """Return a column's qualified name."""
    number, field = column
    return sql.SQL("{}.{}").format(sql.SQL(f"t{number}"), quoted(str(field.column), connection))


def quoted(name: str, connection: BaseDatabaseWrapper) -> sql.SQL:
    """Return a name quoted as Django quotes it; names with quotes stay as they are."""
    return sql.SQL(connection.ops.quote_name(name).replace("%", "%%"))
