"""
How new rows are, and tables: which transaction wrote them last.

A row version carries the id of the transaction that wrote it, in 32 bits of it and of a
subtransaction where there was one. Subtransactions are not in a snapshot's list of those in
progress. Their ids are greater than that of the whole transaction, though, so that what is older
than ``Snapshot.xmin`` is seen in any case; what is not may be new.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from psycopg import sql

from pgobserve.sql.join_sql import (
    column_of,
    is_any,
    join_clauses,
    keys_from,
    quoted,
)
from pgobserve.sql.keys import key_fields

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.hub.snapshot import Snapshot
    from pgobserve.sql.keys import Model
    from pgobserve.sql.relation_path import Join

_WRAP: Final = 2**32

#: Transaction ids below are special: the row is older than any snapshot.
_FIRST_NORMAL: Final = 3

#: How many transactions before the first of the future a row's one is. A row that was frozen long
#: ago may seem newer than it is, never older.
_AGE: Final = f"({{xmax}}::bigint - {{xmin}}::text::bigint - 1) & {_WRAP - 1}"

_NEWEST: Final = f"""
SELECT {{keys}},
       min({_AGE}) FILTER (WHERE {{xmin}}::text::bigint >= {_FIRST_NORMAL}),
       bool_or({{dangling}})
  FROM {{table}} t0{{joins}}
 WHERE {{among}}
 GROUP BY {{keys}}
"""  # noqa: S608 (names by Django)

#: A partition that is attached brings rows, and is changed itself.
_DEFINITION: Final = f"""
WITH parts AS (
  SELECT pg_catalog.to_regclass(%(table)s)::oid AS part
   UNION
  SELECT relid::oid FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass(%(table)s))),
     triggers AS (
  SELECT t.xmin, t.tgfoid
    FROM pg_catalog.pg_trigger t JOIN parts ON t.tgrelid = part
   WHERE %(triggers)s AND NOT t.tgisinternal)
SELECT min({_AGE.format(xmax="%(xmax)s", xmin="xmin")}) FILTER (WHERE xmin::text::bigint >= {_FIRST_NORMAL}), count(*)
  FROM (
    SELECT c.xmin FROM pg_catalog.pg_class c JOIN parts ON c.oid = part
     UNION ALL
    SELECT a.xmin FROM pg_catalog.pg_attribute a JOIN parts ON a.attrelid = part AND a.attnum > 0
     UNION ALL
    SELECT xmin FROM triggers
     UNION ALL
    SELECT p.xmin FROM pg_catalog.pg_proc p JOIN triggers ON p.oid = tgfoid
  ) AS found
"""  # noqa: S608


def widened(xmin: int, now: Snapshot) -> int:
    """Return the 64-bit transaction id of a row's 32-bit ``xmin``: the latest that is not future."""
    if xmin < _FIRST_NORMAL:
        return 0
    return now.xmax - 1 - (now.xmax - xmin - 1) % _WRAP


def newest(
    root: Model,
    joins: Sequence[Join],
    keys: Sequence[Hashable],
    now: Snapshot,
    connection: BaseDatabaseWrapper,
    *,
    refers: bool = False,
) -> dict[Hashable, int]:
    """
    Return which transaction was the last to write the rows that belong to others.

    Args:
        root: The model of those others.
        joins: The way from them; none for the rows themselves.
        keys: Theirs.
        now: In which all is read.
        connection: Of the database alias.
        refers: The last hop leads to the one row that is referred to. Where that is not there, it
            may have been deleted at any time.

    Returns:
        Transaction ids by the root's keys; keys that are not there are left out.
    """
    if not keys:
        return {}
    own = [(0, field) for field in key_fields(root)]
    among, params = is_any(own, keys, connection)
    query = sql.SQL(_NEWEST).format(
        keys=sql.SQL(", ").join(column_of(each, connection) for each in own),
        xmax=sql.Literal(now.xmax),
        xmin=sql.SQL(f"t{len(joins)}.xmin"),
        dangling=_dangling(joins, connection) if refers else sql.SQL("false"),
        table=quoted(root._meta.db_table, connection),
        joins=sql.Composed([*join_clauses(joins, connection, outer=True)]),
        among=among,
    )
    with connection.cursor() as cursor:
        cursor.execute(query, params)
        rows = cursor.fetchall()
    found = keys_from(root, [row[:-2] for row in rows], connection)
    return {
        key: now.xmax - 1 if dangling else 0 if age is None else now.xmax - 1 - age
        for key, (*_, age, dangling) in zip(found, rows, strict=True)
    }


def _dangling(joins: Sequence[Join], connection: BaseDatabaseWrapper) -> sql.Composable:
    """Return the condition that the last table lacks a row that the one before refers to."""
    number = len(joins)
    refers = (
        sql.SQL("{} IS NOT NULL").format(column_of((number - 1, source), connection))
        for source, _ in joins[-1].on
    )
    missing = sql.SQL(f"t{number}.xmin IS NULL")
    return sql.SQL(" AND ").join([*refers, missing])


def newest_definition(
    table: str, now: Snapshot, connection: BaseDatabaseWrapper, *, triggers: bool = False
) -> int:
    """
    Return which transaction was the last to make, alter, rebuild or TRUNCATE a table.

    Args:
        table: A model's ``db_table``; names are quoted as Django quotes them.
        now: In which all is read.
        connection: Of the database alias.
        triggers: Or to make, replace, enable or disable its triggers.
    """
    params: dict[str, Any] = {
        "table": connection.ops.quote_name(table),
        "xmax": now.xmax,
        "triggers": triggers,
    }
    with connection.cursor() as cursor:
        cursor.execute(_DEFINITION, params)
        age, count = cursor.fetchone()
    if not count:
        return now.xmax - 1
    return 0 if age is None else now.xmax - 1 - int(age)
