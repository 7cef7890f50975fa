"""SQL for keys: conditions that take texts, and the identity of each row of a query."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.db import DataError, IntegrityError, NotSupportedError, ProgrammingError

from pgobserve.database.session import session_of
from pgobserve.sql.columns import text_of, type_of
from pgobserve.sql.keys import arrays, key_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.sql.columns import Column
    from pgobserve.sql.keys import Model


#: What a query raises whose keys PostgreSQL does not take for values of their columns. A domain has checks.
NOT_TAKEN: Final = (DataError, IntegrityError, NotSupportedError, ProgrammingError, ValueError)


def any_of(columns: Sequence[str], types: Sequence[Column]) -> str:
    """
    Return the condition that columns have any of some values.

    Args:
        columns: SQL for the columns.
        types: Types for the values. The condition has a placeholder for an array of texts for each.
    """
    if len(columns) == 1 and not types[0].nested:
        return f"{columns[0]} = ANY(%s::{types[0].type}[])"
    names = [f"k{number}" for number, _ in enumerate(types)]
    values = ", ".join(f"k.{name}::{each.type}" for name, each in zip(names, types, strict=True))
    return (
        f"({', '.join(columns)}) IN (SELECT {values} "  # noqa: S608 (names)
        f"FROM {_unnested(types)} AS k({', '.join(names)}))"
    )


def _unnested(types: Sequence[Column]) -> str:
    """Return the rows of several arrays of texts; `unnest` with several arguments can't be qualified."""
    return f"ROWS FROM ({', '.join('pg_catalog.unnest(%s::pg_catalog.text[])' for _ in types)})"


def key_types(model: Model, connection: BaseDatabaseWrapper) -> tuple[Column, ...]:
    """Return the types of a key's columns."""
    return tuple(type_of(field, connection) for field in key_fields(model))


def identity_of(columns: Sequence[str], types: Sequence[Column]) -> str:
    """Return the SQL for the identity of a row, see :func:`pgobserve.sql.keys.identity`."""
    texts = [text_of(name, kind) for name, kind in zip(columns, types, strict=True)]
    if len(texts) == 1:
        return texts[0]
    return f"pg_catalog.json_build_array({', '.join(texts)})::pg_catalog.text"


def identified(text: str, at: Sequence[int], types: Sequence[Column]) -> str:
    """
    Return a query with the identity of each row as its last column.

    Args:
        text: The query.
        at: The positions of the key's columns.
        types: Their types.
    """
    names = ", ".join(f"c{number}" for number in range(max(at) + 1))
    key = identity_of([f"q.c{number}" for number in at], types)
    return f"SELECT q.*, {key} FROM ({text}) q({names})"  # noqa: S608 (compiled by the ORM)


def key_positions(compiler: Any, model: Model) -> list[int]:
    """Return the positions of the key's columns in the rows of a compiled query."""
    fields = key_fields(model)
    chosen = compiler.klass_info["select_fields"]
    by_field = {compiler.select[number][0].target: number for number in chosen}
    return [by_field[field] for field in fields]


def unknown_keys(model: Model, keys: Sequence[str], connection: BaseDatabaseWrapper) -> list[str]:
    """Return the keys that no row of a model's table can have, as PostgreSQL decides."""
    types = key_types(model, connection)
    values = ", ".join(f"k{number}::{each.type}" for number, each in enumerate(types))
    names = ", ".join(f"k{number}" for number, _ in enumerate(types))
    # Of `count(ROW(…))` each row is computed.
    query = (
        f"SELECT pg_catalog.count(ROW({values})) "  # noqa: S608 (names)
        f"FROM {_unnested(types)} AS k({names})"
    )

    def unknown(some: Sequence[str]) -> list[str]:
        try:
            with session_of(connection), connection.cursor() as cursor:
                cursor.execute(query, arrays(some, len(types)))
        except NOT_TAKEN:
            half = len(some) // 2
            return [*unknown(some[:half]), *unknown(some[half:])] if half else [*some]
        return []

    return unknown(keys) if keys else []


def written_keys(
    model: Model, keys: Sequence[Any], connection: BaseDatabaseWrapper
) -> dict[str, str]:
    """
    Return how PostgreSQL writes keys: those of the rows that have equal keys, or else the keys themselves.

    Args:
        model: The rows' model.
        keys: Identities, as clients may write them.
        connection: Runs no query if PostgreSQL could not write them in another way.

    Returns:
        Identities by the given ones; none for keys that no row can have.
    """
    fields, types = key_fields(model), key_types(model, connection)
    keys = [key for key in keys if not _is_written(key, types)]
    if not keys:
        return {}
    unknown = set(unknown_keys(model, keys, connection))
    keys = [key for key in keys if key not in unknown]
    quote = connection.ops.quote_name
    given = [f"w.k{number}::{each.type}" for number, each in enumerate(types)]
    columns = [f"t.{quote(str(field.column))}" for field in fields]
    same = " AND ".join(f"{a} = {b}" for a, b in zip(columns, given, strict=True))
    query = (
        f"SELECT w.n, coalesce((SELECT {identity_of(columns, types)} "  # noqa: S608 (names)
        f"FROM {quote(model._meta.db_table)} AS t WHERE {same} LIMIT 1), "
        f"{identity_of([f'({each})' for each in given], types)}) "
        f"FROM {_unnested(types)} "
        f"WITH ORDINALITY AS w({', '.join(f'k{n}' for n, _ in enumerate(types))}, n)"
    )
    with session_of(connection), connection.cursor() as cursor:
        cursor.execute(query.replace("%", "%%").replace("%%s::", "%s::"), arrays(keys, len(types)))
        return {keys[number - 1]: text for number, text in cursor.fetchall()}


def _is_written(key: str, types: Sequence[Column]) -> bool:
    """Return whether PostgreSQL can write a key of one column in no other way."""
    return len(types) == 1 and types[0].writes(key)
