"""
One read of the outbox: the query, and the page made from its result.

A statement has one snapshot. All that is visible there but not in the cursor is new, in whatever order
transactions began and ended.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from psycopg import sql

from pgobserve.hub.snapshot import Snapshot
from pgobserve.outbox.cursor import Cursor, OutboxStatus, advance, gap_reason
from pgobserve.wire import OUTBOX_WAKE_UP, TEXTS, Operation, texts_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime
    from typing import LiteralString

    from pgobserve.outbox.cursor import GapReason
    from pgobserve.wire import Namespace

#: The label in a wake-up.
WAKE_UP: Final[str] = json.loads(OUTBOX_WAKE_UP)["t"]

#: The most rows of a page, and bytes of its row images as stored. A page ends with a whole transaction,
#: so it may have more.
LIMIT: Final = 10_000
PAGE_BYTES: Final = 4_000_000

#: An index finds the ids from ``xmin`` on. The upper bound makes the planner expect few rows; it has no
#: statistics of tables that are only ever truncated.
#:
#: Transactions come in the order of their last write. For one row this is the commit order: a transaction
#: can write a row that another one wrote only after that one has committed.
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

#: The state of the outbox: where a new reader starts.
STATUS: Final = """
SELECT pg_catalog.pg_current_snapshot()::text, s.horizon::text, l.last_value, g.last_value > 2,
       (pg_catalog.pg_current_wal_insert_lsn() - '0/0')::bigint,
       (pg_catalog.pg_current_wal_flush_lsn() - '0/0')::bigint
  FROM {schema}.outbox_state s
 CROSS JOIN {schema}.outbox_lost l
 CROSS JOIN {schema}.outbox_gate g
"""

#: Returns when all WAL written so far is on disk.
FLUSH: Final = "SELECT pg_catalog.pg_logical_emit_message(true, 'pgobserve', '')"


@dataclass(frozen=True, slots=True)
class OutboxRecord:
    """
    A row of the outbox: the changes of a statement, or a part of them.

    Attributes:
        at: When the statement ended.
        keys: A JSON array of keys; None for the whole table. So are ``old`` and ``new``, of rows.
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
    The result of a read.

    Attributes:
        gap: Why changes may be missing; then there are no entries. None if all are there.
        entries: Records in commit order for each row; those of a transaction follow each other.
        before: The cursor before the page.
        more: Whether there are more records already.
    """

    status: OutboxStatus
    gap: GapReason | None
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
    Return the parameters of :data:`QUERY`; None as ``images`` or ``labels`` means those of all models.

    A page ends with a whole transaction after ``limit`` rows, or after ``page_bytes`` of images. What was
    written before ``since`` is skipped.
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


def status_of(row: Sequence[Any]) -> OutboxStatus:
    """Return the state that the first columns of a row hold."""
    now, horizon = Snapshot.parse(row[0]), Snapshot.parse(row[1])
    return OutboxStatus(
        now, horizon, int(row[2]), bool(row[3]), written=int(row[4]), flushed=int(row[5])
    )


def page(
    rows: Sequence[Sequence[Any]], cursor: Cursor, limit: int = LIMIT, *, whole: bool = True
) -> Page:
    """Return the page that a result of :data:`QUERY` holds; ``whole``: report missing records."""
    status = status_of(rows[0])
    gap = gap_reason(cursor, status) if whole else None
    if gap is not None:
        return Page(status, gap, (), cursor, Cursor(status.now), more=False)
    records = [row for row in rows if row[6] is not None]
    entries = tuple(
        OutboxRecord(row[6], row[7], Operation(row[8]), row[9], row[11], row[12], row[13], row[10])
        for row in records
    )
    more = len(records) >= limit or any(row[14] > len(records) for row in records[:1])
    after = advance(cursor, status, (records[-1][10], records[-1][6]) if more else None)
    return Page(status, None, entries, cursor, after, more=more)


def keys(text: str) -> tuple[Any, ...] | None:
    """Return the texts of the keys in a JSON array, tuples for composite keys; None if they are none."""
    return texts_of(TEXTS.decode(text))


def values(entry: OutboxRecord, columns: Collection[str]) -> dict[str, tuple[Any, ...]] | None:
    """
    Return the texts of the distinct old and new values of columns in a record's rows, without nulls.

    Columns that were added after the write, and columns with values that are no scalars, are omitted.
    None if the record has no images.
    """
    if entry.old is None and entry.new is None:
        return None
    images = [
        image
        for text in (entry.new, entry.old)
        if text is not None
        for image in TEXTS.decode(text)
        if image is not None
    ]
    result = {}
    for column in columns:
        given = [image[column] for image in images if column in image]
        if len(given) == len(images) and not any(isinstance(each, list | dict) for each in given):
            result[column] = tuple(
                _BOOLEANS.get(each, each) for each in dict.fromkeys(given) if each is not None
            )
    return result


#: As PostgreSQL writes them.
_BOOLEANS: Final = {True: "t", False: "f"}

_decoder = json.JSONDecoder(parse_float=Decimal)


def elements(text: str) -> Iterable[tuple[str, Any]]:
    """Yield each element of a JSON array: its text, with all digits, and its value."""
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
