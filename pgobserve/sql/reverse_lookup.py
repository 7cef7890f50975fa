"""
From a changed row of another table back to the watched rows that it belongs to.

One query follows all joins of a link backwards, or none where what the change tells are the watched
rows' keys already.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from psycopg import sql

from pgobserve.database.session import session_of
from pgobserve.sql.join_sql import (
    column_of,
    is_any,
    joins,
    keys_from,
    quoted,
)
from pgobserve.sql.keys import key_fields, to_value
from pgobserve.sql.relation_path import Join

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.sql.join_sql import Column
    from pgobserve.sql.relation_path import RelationPath


def trace(
    link: RelationPath,
    values: Sequence[Any],
    connection: BaseDatabaseWrapper,
    *,
    among: Sequence[Hashable] | None = None,
    limit: int | None = None,
) -> list[Hashable] | None:
    """
    Return the keys of the rows of the root that changed rows belong to.

    Args:
        link: The way to the table that was changed.
        values: Without a route the keys of the changed rows, as :func:`~pgobserve.sql.keys.to_key`
            returns them. With one its old and new values, as JSON has them; what the field can't
            have is left out.
        connection: Where to read; it is asked at most one query.
        among: Only these keys of the root.
        limit: How many keys are wanted at most.

    Returns:
        The keys, each once; None if there are more than ``limit``.

    Raises:
        django.db.Error: As the database raises it.
    """
    known = _decoded(link, values)
    if not known or (among is not None and not among):
        return []
    if direct(link):
        wanted = set(known if among is None else among)
        kept = [key for key in known if key in wanted]
        return None if limit is not None and len(kept) > limit else kept
    query, params = _query(link, known, among, limit, connection)
    with session_of(connection), connection.cursor() as cursor:
        cursor.execute(query, params)
        rows = cursor.fetchall()
    if limit is not None and len(rows) > limit:
        return None
    return keys_from(link.root, rows, connection)


def direct(link: RelationPath) -> bool:
    """Tell whether what a change tells are keys of the root, so that nothing must be asked."""
    _, columns = _way(link)
    return columns == tuple((0, field) for field in key_fields(link.root))


def _decoded(link: RelationPath, values: Sequence[Any]) -> list[Hashable]:
    """Return the values that can be looked for, each once."""
    if link.route is None:
        return list(dict.fromkeys(values))
    _, ((_, field),) = _way(link)
    found: dict[Hashable, None] = {}
    for value in values:
        with suppress(ValueError):
            found[to_value(field, value)] = None
    return list(found)


@lru_cache(maxsize=1024)
def _way(link: RelationPath) -> tuple[tuple[Join, ...], tuple[Column, ...]]:
    """
    Return the joins that are needed, and the columns that have the values that are looked for.

    A column is the number of its table, 0 for the root, and its field. A table that would be joined
    only by columns that the one before it has as well is left out, the last one above all: the rows
    that refer to a row are found also when it is gone.
    """
    hops: list[Join] = []
    for hop in link.hops:
        _join(hops, hop)
    last = hops[-1]
    before = {target: source for source, target in last.on}
    wanted = key_fields(link.hops[-1].model) if link.route is None else (link.route,)
    if all(field in before for field in wanted):
        return tuple(hops[:-1]), tuple((len(hops) - 1, before[field]) for field in wanted)
    return tuple(hops), tuple((len(hops), field) for field in wanted)


def _join(hops: list[Join], hop: Join) -> None:
    """Add a join; it takes the place of the one before it if it needs no more than that one had."""
    on = hop.on
    while hops:
        before = {target: source for source, target in hops[-1].on}
        if not all(source in before for source, _ in on):
            break
        on = tuple((before[source], target) for source, target in on)
        hops.pop()
    hops.append(Join(hop.model, on))


def _query(
    link: RelationPath,
    values: Sequence[Hashable],
    among: Sequence[Hashable] | None,
    limit: int | None,
    connection: BaseDatabaseWrapper,
) -> tuple[sql.Composed, list[list[Any]]]:
    hops, columns = _way(link)
    keys = [(0, field) for field in key_fields(link.root)]
    where, params = is_any(columns, values, connection)
    if among is not None:
        kept, more = is_any(keys, among, connection)
        where = sql.SQL("{} AND {}").format(where, kept)
        params += more
    query = sql.SQL("SELECT DISTINCT {} FROM {} t0{} WHERE {}{}").format(
        sql.SQL(", ").join(column_of(each, connection) for each in keys),
        quoted(link.root._meta.db_table, connection),
        sql.Composed([*joins(hops, connection)]),
        where,
        sql.SQL("" if limit is None else f" LIMIT {limit + 1:d}"),
    )
    return query, params
