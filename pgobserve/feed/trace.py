"""
From a changed row of another table back to the watched rows that it belongs to.

One query follows all joins of a link backwards, or none where what the change tells are the watched
rows' keys already.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from psycopg import sql

from pgobserve.feed.keys import array_type, key_fields, to_key, to_value
from pgobserve.feed.links import Hop

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Field

    from pgobserve.feed.keys import Model
    from pgobserve.feed.links import Link

    AnyField = Field[Any, Any]
    Column = tuple[int, AnyField]

#: Types whose values compare with each other as they are.
_FAMILIES: Final = (
    {"smallint", "integer", "bigint", "numeric", "double precision", "real"},
    {"text", "varchar", "citext"},
)


def trace(
    link: Link,
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
        values: Without a route the keys of the changed rows, as :func:`~pgobserve.feed.keys.to_key`
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
    with connection.cursor() as cursor:
        cursor.execute(query, params)
        rows = cursor.fetchall()
    if limit is not None and len(rows) > limit:
        return None
    return _keys(link.root, rows, connection)


def direct(link: Link) -> bool:
    """Tell whether what a change tells are keys of the root, so that nothing must be asked."""
    _, columns = _way(link)
    return columns == tuple((0, field) for field in key_fields(link.root))


def _decoded(link: Link, values: Sequence[Any]) -> list[Hashable]:
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
def _way(link: Link) -> tuple[tuple[Hop, ...], tuple[Column, ...]]:
    """
    Return the joins that are needed, and the columns that have the values that are looked for.

    A column is the number of its table, 0 for the root, and its field. A table that would be joined
    only by columns that the one before it has as well is left out, the last one above all: the rows
    that refer to a row are found also when it is gone.
    """
    hops: list[Hop] = []
    for hop in link.hops:
        _join(hops, hop)
    last = hops[-1]
    before = {target: source for source, target in last.on}
    wanted = key_fields(link.hops[-1].model) if link.route is None else (link.route,)
    if all(field in before for field in wanted):
        return tuple(hops[:-1]), tuple((len(hops) - 1, before[field]) for field in wanted)
    return tuple(hops), tuple((len(hops), field) for field in wanted)


def _join(hops: list[Hop], hop: Hop) -> None:
    """Add a join; it takes the place of the one before it if it needs no more than that one had."""
    on = hop.on
    while hops:
        before = {target: source for source, target in hops[-1].on}
        if not all(source in before for source, _ in on):
            break
        on = tuple((before[source], target) for source, target in on)
        hops.pop()
    hops.append(Hop(hop.model, on))


def _query(
    link: Link,
    values: Sequence[Hashable],
    among: Sequence[Hashable] | None,
    limit: int | None,
    connection: BaseDatabaseWrapper,
) -> tuple[sql.Composed, list[list[Any]]]:
    hops, columns = _way(link)
    keys = [(0, field) for field in key_fields(link.root)]
    where, params = _is_any(columns, values, connection)
    if among is not None:
        kept, more = _is_any(keys, among, connection)
        where = sql.SQL("{} AND {}").format(where, kept)
        params += more
    query = sql.SQL("SELECT DISTINCT {} FROM {} t0{} WHERE {}{}").format(
        sql.SQL(", ").join(_column(each, connection) for each in keys),
        _name(link.root._meta.db_table, connection),
        sql.Composed([*_joins(hops, connection)]),
        where,
        sql.SQL("" if limit is None else f" LIMIT {limit + 1:d}"),
    )
    return query, params


def _joins(hops: Iterable[Hop], connection: BaseDatabaseWrapper) -> Iterator[sql.Composed]:
    for number, hop in enumerate(hops, 1):
        yield sql.SQL(" JOIN {} {} ON {}").format(
            _name(hop.model._meta.db_table, connection),
            sql.SQL(f"t{number}"),
            sql.SQL(" AND ").join(
                _equal((number - 1, source), (number, target), connection)
                for source, target in hop.on
            ),
        )


def _equal(left: Column, right: Column, connection: BaseDatabaseWrapper) -> sql.Composed:
    """Return a comparison; a generic relation's column may well be text where the other is not."""
    pattern = "{} = {}"
    types = {array_type(field, connection)[:-2] for _, field in (left, right)}
    if len(types) > 1 and not any(types <= family for family in _FAMILIES):
        pattern = "{}::text = {}::text"
    return sql.SQL(pattern).format(_column(left, connection), _column(right, connection))


def _is_any(
    columns: Sequence[Column], values: Sequence[Hashable], connection: BaseDatabaseWrapper
) -> tuple[sql.Composed, list[list[Any]]]:
    """Return the condition that columns have one of some values, and its parameters."""
    names = sql.SQL(", ").join(_column(each, connection) for each in columns)
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


def _column(column: Column, connection: BaseDatabaseWrapper) -> sql.Composed:
    number, field = column
    return sql.SQL("{}.{}").format(sql.SQL(f"t{number}"), _name(str(field.column), connection))


def _name(name: str, connection: BaseDatabaseWrapper) -> sql.SQL:
    """Return a name quoted as Django quotes it; what has quotes already is taken as it is."""
    return sql.SQL(connection.ops.quote_name(name).replace("%", "%%"))


def _keys(
    root: Model, rows: Iterable[tuple[Any, ...]], connection: BaseDatabaseWrapper
) -> list[Hashable]:
    fields = key_fields(root)
    keys = []
    for row in rows:
        values = [_converted(*each, connection) for each in zip(fields, row, strict=True)]
        keys.append(to_key(root, values if len(values) > 1 else values[0]))
    return keys


def _converted(field: AnyField, value: Any, connection: BaseDatabaseWrapper) -> Any:
    """Return what the ORM would have read."""
    for convert in field.get_db_converters(connection):
        value = convert(value, None, connection)
    return value
