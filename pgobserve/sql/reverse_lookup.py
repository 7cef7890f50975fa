"""
Resolves changed rows of another table to the watched rows that they belong to.

One query follows all joins of a path backwards. No query is needed if the change already contains the
watched rows' keys.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from psycopg import sql

from pgobserve.database.session import session_of
from pgobserve.sql.join_sql import column_of, is_any, join_clauses, keys_from, quoted
from pgobserve.sql.keys import key_fields, to_value
from pgobserve.sql.relation_path import Join

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.sql.join_sql import Column
    from pgobserve.sql.relation_path import RelationPath


def resolve(
    path: RelationPath,
    values: Sequence[Any],
    connection: BaseDatabaseWrapper,
    *,
    among: Sequence[Hashable] | None = None,
    limit: int | None = None,
) -> list[Hashable] | None:
    """
    Return the keys of the root's rows that changed rows belong to.

    Args:
        path: The path to the changed table.
        values: Without a route, keys of the changed rows from :func:`~pgobserve.sql.keys.to_key`. With
            a route, its old and new values as JSON; invalid values are skipped.
        connection: Runs at most one query.
        among: Consider only these keys of the root.
        limit: The most keys to return.

    Returns:
        The distinct keys; None if there are more than ``limit``.
    """
    known = _decoded(path, values)
    if not known or (among is not None and not among):
        return []
    if is_direct(path):
        wanted = set(known if among is None else among)
        kept = [key for key in known if key in wanted]
        return None if limit is not None and len(kept) > limit else kept
    query, params = _query(path, known, among, limit, connection)
    with session_of(connection), connection.cursor() as cursor:
        cursor.execute(query, params)
        rows = cursor.fetchall()
    if limit is not None and len(rows) > limit:
        return None
    return keys_from(path.root, rows, connection)


def is_direct(path: RelationPath) -> bool:
    """Return whether a change contains keys of the root, so that no query is needed."""
    _, columns = _simplified(path)
    return columns == tuple((0, field) for field in key_fields(path.root))


def _decoded(path: RelationPath, values: Sequence[Any]) -> list[Hashable]:
    """Return the distinct valid values."""
    if path.route is None:
        return list(dict.fromkeys(values))
    _, ((_, field),) = _simplified(path)
    decoded: dict[Hashable, None] = {}
    for value in values:
        with suppress(ValueError):
            decoded[to_value(field, value)] = None
    return list(decoded)


@lru_cache(maxsize=1024)
def _simplified(path: RelationPath) -> tuple[tuple[Join, ...], tuple[Column, ...]]:
    """
    Return the necessary joins, and the columns to compare with the values.

    A table is skipped if the previous table has its columns as well, above all the last table: rows that
    refer to a deleted row are still found.
    """
    joins: list[Join] = []
    for join in path.joins:
        _join(joins, join)
    last = joins[-1]
    before = {target: source for source, target in last.on}
    wanted = key_fields(path.joins[-1].model) if path.route is None else (path.route,)
    if all(field in before for field in wanted):
        return tuple(joins[:-1]), tuple((len(joins) - 1, before[field]) for field in wanted)
    return tuple(joins), tuple((len(joins), field) for field in wanted)


def _join(joins: list[Join], join: Join) -> None:
    """Add a join, replacing previous joins whose sources already have the columns that it needs."""
    on = join.on
    while joins:
        before = {target: source for source, target in joins[-1].on}
        if not all(source in before for source, _ in on):
            break
        on = tuple((before[source], target) for source, target in on)
        joins.pop()
    joins.append(Join(join.model, on))


def _query(
    path: RelationPath,
    values: Sequence[Hashable],
    among: Sequence[Hashable] | None,
    limit: int | None,
    connection: BaseDatabaseWrapper,
) -> tuple[sql.Composed, list[list[Any]]]:
    joins, columns = _simplified(path)
    keys = [(0, field) for field in key_fields(path.root)]
    where, params = is_any(columns, values, connection)
    if among is not None:
        kept, more = is_any(keys, among, connection)
        where = sql.SQL("{} AND {}").format(where, kept)
        params += more
    query = sql.SQL("SELECT DISTINCT {} FROM {} t0{} WHERE {}{}").format(
        sql.SQL(", ").join(column_of(each, connection) for each in keys),
        quoted(path.root._meta.db_table, connection),
        sql.Composed([*join_clauses(joins, connection)]),
        where,
        sql.SQL("" if limit is None else f" LIMIT {limit + 1:d}"),
    )
    return query, params
