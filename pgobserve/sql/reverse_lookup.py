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
from pgobserve.sql.columns import forget, type_of
from pgobserve.sql.join_sql import column_of, is_any, join_clauses, quoted
from pgobserve.sql.key_sql import NOT_TAKEN, identity_of
from pgobserve.sql.keys import key_fields
from pgobserve.sql.relation_path import Join

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Field

    from pgobserve.sql.join_sql import Column
    from pgobserve.sql.relation_path import RelationPath


def resolve(
    path: RelationPath,
    values: Sequence[Any],
    connection: BaseDatabaseWrapper,
    *,
    among: Sequence[Any] | None = None,
    limit: int | None = None,
) -> list[str] | None:
    """
    Return the keys of the root's rows that changed rows belong to.

    Args:
        path: The path to the changed table.
        values: Without a route, identities of the changed rows. With a route, its old and new values as
            texts.
        connection: Runs at most one query, unless a table was altered.
        among: Consider only these keys of the root.
        limit: The most keys to return.

    Returns:
        The distinct keys. None if there are more than ``limit``, or if PostgreSQL does not take a value for
        one of its column.
    """
    known = list(dict.fromkeys(values))
    if not known or (among is not None and not among):
        return []
    if is_direct(path, connection):
        wanted = set(known if among is None else among)
        kept = [key for key in known if key in wanted]
        return None if limit is not None and len(kept) > limit else kept
    for _ in range(2):
        with suppress(*NOT_TAKEN):
            return _resolved(path, known, among, limit, connection)
        tables = (path.root._meta.db_table, *(join.model._meta.db_table for join in path.joins))
        if not sum(forget(table, connection.alias) for table in tables):
            break
    return None


def _resolved(
    path: RelationPath,
    values: Sequence[Any],
    among: Sequence[Any] | None,
    limit: int | None,
    connection: BaseDatabaseWrapper,
) -> list[str] | None:
    query, params = _query(path, values, among, limit, connection)
    with session_of(connection), connection.cursor() as cursor:
        cursor.execute(query, params)
        rows = cursor.fetchall()
    return None if limit is not None and len(rows) > limit else [key for (key,) in rows]


def is_direct(path: RelationPath, connection: BaseDatabaseWrapper) -> bool:
    """Return whether a change contains keys of the root, so that no query is needed."""
    _, columns, given = _simplified(path)
    if columns != tuple((0, field) for field in key_fields(path.root)):
        return False
    families = [
        {type_of(each, connection).exact for each in (field, source)}
        for (_, field), source in zip(columns, given, strict=True)
    ]
    return all(len(each) == 1 and None not in each for each in families)


@lru_cache(maxsize=1024)
def _simplified(
    path: RelationPath,
) -> tuple[tuple[Join, ...], tuple[Column, ...], tuple[Field[Any, Any], ...]]:
    """
    Return the necessary joins, the columns to compare with the values, and the fields of the values.

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
        return tuple(joins[:-1]), tuple((len(joins) - 1, before[field]) for field in wanted), wanted
    return tuple(joins), tuple((len(joins), field) for field in wanted), wanted


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
    values: Sequence[Any],
    among: Sequence[Any] | None,
    limit: int | None,
    connection: BaseDatabaseWrapper,
) -> tuple[sql.Composed, list[list[Any]]]:
    joins, columns, given = _simplified(path)
    keys = [(0, field) for field in key_fields(path.root)]
    names = [column_of(each, connection).as_string() for each in keys]
    types = [type_of(field, connection) for _, field in keys]
    where, params = is_any(columns, values, connection, of=given)
    if among is not None:
        kept, more = is_any(keys, among, connection)
        where = sql.SQL("{} AND {}").format(where, kept)
        params += more
    query = sql.SQL("SELECT DISTINCT {} FROM {} t0{} WHERE {}{}").format(
        sql.SQL(identity_of(names, types)),
        quoted(path.root._meta.db_table, connection),
        sql.Composed([*join_clauses(joins, connection)]),
        where,
        sql.SQL("" if limit is None else f" LIMIT {limit + 1:d}"),
    )
    return query, params
