"""
One read of the outbox: the query, and what its answer means.

One statement is one snapshot. Whatever is visible in it and was not in the cursor is new, in
whichever order transactions began and ended.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from psycopg import sql

from pgobserve.hub.snapshot import Snapshot
from pgobserve.outbox.cursor import (
    Cursor,
    OutboxStatus,
    advance,
    gap_reason,
)
from pgobserve.wire import OUTBOX_WAKE_UP, Operation

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime
    from typing import LiteralString

    from pgobserve.outbox.cursor import GapReason
    from pgobserve.wire import Namespace

#: The label in a wake-up.
WAKE_UP: Final[str] = json.loads(OUTBOX_WAKE_UP)["t"]

#: Rows of one page at most, and bytes of row images as they are stored; a page ends with a whole
#: transaction.
LIMIT: Final = 10_000
PAGE_BYTES: Final = 4_000_000

#: Ids from ``xmin`` on come from an index. The upper bound lets the planner, which has no statistics
#: of tables that are only ever truncated, suppose that they are few.
#:
#: Transactions come in the order of their last write. For one row that is the order of the commits:
#: whoever writes a row that another transaction has written, writes after its commit.
QUERY: Final = """
SELECT pg_catalog.pg_current_snapshot()::text, s.horizon::text, l.last_value, g.last_value > 2,
       (pg_catalog.pg_current_wal_insert_lsn() - '0/0')::bigint,
       (pg_catalog.pg_current_wal_flush_lsn() - '0/0')::bigint,
       r.xid::text::bigint, r.label, r.op, r.at, r.last, r.keys, r.old, r.new, r.found
  FROM {schema}.outbox_state s
 CROSS JOIN {schema}.outbox_lost l
 CROSS JOIN {schema}.outbox_gate g
  LEFT JOIN (
    SELECT p.xid, p.label, p.op, p.at, p.last, p.command, p.found, p.keys::text AS keys,
           CASE WHEN p.wanted THEN p.old::text END AS old,
           CASE WHEN p.wanted THEN p.new::text END AS new
      FROM (
        SELECT t.*, count(*) OVER () AS found,
               -- of all transactions before this one
               sum(t.size) OVER (ORDER BY t.last, t.xid) - sum(t.size) OVER (PARTITION BY t.xid) AS before
          FROM (
            SELECT o.xid, o.label, o.op, o.at, o.keys, o.old, o.new,
                   o.cmin::text::bigint AS command, w.wanted,
                   (extract(epoch FROM max(o.at) OVER (PARTITION BY o.xid))
                      OPERATOR(pg_catalog.*) 1000000)::bigint AS last,
                   CASE WHEN w.wanted THEN coalesce(pg_catalog.pg_column_size(o.old), 0)
                                         + coalesce(pg_catalog.pg_column_size(o.new), 0)
                        ELSE 0 END AS size
              FROM {schema}.outbox o
             CROSS JOIN LATERAL (
               SELECT %(images)s::text[] IS NULL OR o.label = ANY (%(images)s::text[])) w(wanted)
             WHERE o.xid >= pg_catalog.pg_snapshot_xmin(%(seen)s::pg_snapshot)
               AND o.xid < pg_catalog.pg_snapshot_xmax(
                     coalesce(%(until)s::pg_snapshot, pg_catalog.pg_current_snapshot()))
               AND NOT pg_catalog.pg_visible_in_snapshot(o.xid, %(seen)s::pg_snapshot)
               AND pg_catalog.pg_visible_in_snapshot(
                     o.xid, coalesce(%(until)s::pg_snapshot, pg_catalog.pg_current_snapshot()))
               AND (%(labels)s::text[] IS NULL OR o.label = ANY (%(labels)s::text[]))
               AND (%(since)s::timestamptz IS NULL OR o.at >= %(since)s::timestamptz)
          ) t
         WHERE %(after_xid)s::bigint IS NULL
            OR (t.last, t.xid::text::bigint) > (%(after_at)s::bigint, %(after_xid)s::bigint)
         ORDER BY t.last, t.xid
         FETCH FIRST %(limit)s ROWS WITH TIES
      ) p
     WHERE p.before < %(bytes)s
  ) r ON true
 ORDER BY r.last, r.xid, r.command
"""

#: Where a reader begins that has seen nothing yet.
FACTS: Final = """
SELECT pg_catalog.pg_current_snapshot()::text, s.horizon::text, l.last_value, g.last_value > 2,
       (pg_catalog.pg_current_wal_insert_lsn() - '0/0')::bigint,
       (pg_catalog.pg_current_wal_flush_lsn() - '0/0')::bigint
  FROM {schema}.outbox_state s
 CROSS JOIN {schema}.outbox_lost l
 CROSS JOIN {schema}.outbox_gate g
"""

#: Returns when all WAL up to now is on disk.
FLUSH: Final = "SELECT pg_catalog.pg_logical_emit_message(true, 'pgobserve', '')"


@dataclass(frozen=True, slots=True)
class OutboxRecord:
    """
    A row of the outbox: what one statement did, or a part of it.

    Attributes:
        xid: The transaction.
        label: The model, ``app.model`` in lower case.
        operation: What the statement was.
        at: When it ended.
        keys: JSON of an array, or None: the whole table.
        old: JSON of an array of rows as they were, or None.
        new: And as they are.
        last: When the transaction wrote last, in microseconds.
    """

    xid: int
    label: str
    operation: Operation
    at: datetime
    keys: str | None
    old: str | None
    new: str | None
    last: int


@dataclass(frozen=True, slots=True)
class Page:
    """
    What a read found.

    Attributes:
        facts: What it says besides rows.
        why: Changes may be missing, and this is why; then there are no entries.
        entries: In commit order for each row; those of a transaction follow each other.
        before: Where the reader stood.
        cursor: Where it stands when it has handled them.
        more: There is more already.
    """

    facts: OutboxStatus
    why: GapReason | None
    entries: tuple[OutboxRecord, ...]
    before: Cursor
    cursor: Cursor
    more: bool

    @property
    def transactions(self) -> set[tuple[int, int]]:
        """Time and id of each transaction in it."""
        return {(entry.last, entry.xid) for entry in self.entries}


@cache
def qualified(text: LiteralString, namespace: Namespace) -> sql.Composed:
    """Return a query with a namespace's schema in the place of ``{schema}``."""
    return sql.SQL(text).format(schema=sql.Identifier(namespace.schema))


def parameters(
    cursor: Cursor,
    *,
    limit: int = LIMIT,
    page_bytes: int = PAGE_BYTES,
    images: Collection[str] | None = (),
    labels: Collection[str] | None = None,
    since: datetime | None = None,
) -> dict[str, Any]:
    """
    Return what :data:`QUERY` is run with.

    Args:
        cursor: Where the reader stands.
        limit: Rows after which a page ends, with a whole transaction.
        page_bytes: And bytes of images.
        images: Labels of which row images are wanted, too; None means all.
        labels: Labels that are wanted; None means all.
        since: Leave out what was written before.
    """
    place = cursor.place
    return {
        "seen": str(cursor.seen),
        "until": str(place.until) if place else None,
        "after_at": place.at if place else None,
        "after_xid": place.xid if place else None,
        "images": None if images is None else sorted(images),
        "labels": None if labels is None else sorted(labels),
        "since": since,
        "limit": limit,
        "bytes": page_bytes,
    }


def facts(row: Sequence[Any]) -> OutboxStatus:
    """Return what the first columns of an answer say."""
    now, horizon = Snapshot.parse(row[0]), Snapshot.parse(row[1])
    return OutboxStatus(
        now, horizon, int(row[2]), bool(row[3]), written=int(row[4]), flushed=int(row[5])
    )


def page(
    rows: Sequence[Sequence[Any]], cursor: Cursor, limit: int = LIMIT, *, whole: bool = True
) -> Page:
    """
    Return what an answer to :data:`QUERY` means for a reader that stands at a cursor.

    Args:
        rows: The answer.
        cursor: Where the reader stands.
        limit: As it was given to the query.
        whole: Whether the reader must know when something is missing.
    """
    known = facts(rows[0])
    why = gap_reason(cursor, known) if whole else None
    if why is not None:
        return Page(known, why, (), cursor, Cursor(known.now), more=False)
    found = [row for row in rows if row[6] is not None]
    entries = tuple(
        OutboxRecord(row[6], row[7], Operation(row[8]), row[9], row[11], row[12], row[13], row[10])
        for row in found
    )
    more = len(found) >= limit or any(row[14] > len(found) for row in found[:1])
    after = advance(cursor, known, (found[-1][10], found[-1][6]) if more else None)
    return Page(known, None, entries, cursor, after, more=more)


def keys(text: str) -> tuple[Any, ...]:
    """Return the keys of an entry as JSON has them."""
    return tuple(json.loads(text, parse_float=Decimal))


def values(entry: OutboxRecord, columns: Collection[str]) -> dict[str, tuple[Any, ...]] | None:
    """
    Return the old and new values that some columns have in the rows of an entry, nulls left out.

    A column that the rows lack, because it was added since, is left out, and so is one whose values
    are no scalars.

    Args:
        entry: The entry.
        columns: Names of columns.

    Returns:
        The distinct values by column; None if the entry has no images.
    """
    if entry.old is None and entry.new is None:
        return None
    images = [
        image
        for text in (entry.new, entry.old)
        if text is not None
        for image in json.loads(text, parse_float=Decimal)
        if image is not None
    ]
    found = {}
    for column in columns:
        told = [image[column] for image in images if column in image]
        if len(told) == len(images) and not any(isinstance(each, list | dict) for each in told):
            found[column] = tuple(each for each in dict.fromkeys(told) if each is not None)
    return found


_decoder = json.JSONDecoder(parse_float=Decimal)


def elements(text: str) -> Iterable[tuple[str, Any]]:
    """Yield each element of a JSON array: its text as it was written, and its value."""
    position = _skip(text, 0) + 1
    while text[position := _skip(text, position)] != "]":
        value, end = _decoder.raw_decode(text, position)
        yield text[position:end], value
        position = _skip(text, end)
        if text[position] == ",":
            position += 1


def _skip(text: str, position: int) -> int:
    while text[position] in " \t\n\r":
        position += 1
    return position
