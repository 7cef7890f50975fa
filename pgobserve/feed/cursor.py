"""
Where a reader of the outbox stands, and when that place can't be gone on from.

The cursor is a snapshot: what is visible now and was not then is what comes next. Transaction ids
and times would not do, for transactions end in another order than they begin.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgobserve.feed.snapshot import Snapshot


class Why(StrEnum):
    """Why changes may be missing, so that whoever follows them must begin again."""

    RETENTION = "retention"
    NOT_WRITTEN = "not written"
    OTHER_SERVER = "other server"
    WHOLE_TABLE = "whole table"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Place:
    """
    How far a reader has come among the transactions between two snapshots.

    Attributes:
        until: The later snapshot.
        at: When the last transaction that was handled wrote last, in microseconds.
        xid: That transaction.
    """

    until: Snapshot
    at: int
    xid: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """
    What a reader has handled.

    Attributes:
        seen: All that is visible in it.
        place: And some of what came after, if there was too much to be read at once.
    """

    seen: Snapshot
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """
    What a read says besides rows.

    Attributes:
        now: The snapshot that it read in.
        horizon: All rows that were removed from the outbox are visible in it.
        lost: Greatest transaction that could not write to the outbox; 0 if none ever.
        full: Nothing is written now.
    """

    now: Snapshot
    horizon: Snapshot
    lost: int
    full: bool


def broken(cursor: Cursor, facts: Facts) -> Why | None:
    """Return why something between the cursor and now may be missing, or None if nothing is."""
    if not facts.now.covers(cursor.seen):
        return Why.OTHER_SERVER
    if not cursor.seen.covers(facts.horizon):
        return Why.RETENTION
    if _any_new(cursor.seen, facts.now, facts.lost):
        return Why.NOT_WRITTEN
    return None


def advance(cursor: Cursor, facts: Facts, last: tuple[int, int] | None) -> Cursor:
    """
    Return where a reader stands after a read.

    Args:
        cursor: Where it stood.
        facts: Of the read.
        last: Time and id of the last transaction that was read, if there may be more.
    """
    until = cursor.place.until if cursor.place else facts.now
    return Cursor(until) if last is None else Cursor(cursor.seen, Place(until, *last))


def _any_new(before: Snapshot, now: Snapshot, lost: int) -> bool:
    """
    Tell whether a transaction up to ``lost`` is visible now and was not before.

    Only the greatest one is remembered of those that could not write, so each up to it may be one.
    """
    if any(xid <= lost and now.sees(xid) for xid in before.in_progress):
        return True
    end = min(lost + 1, now.xmax)
    still = sum(before.xmax <= xid < end for xid in now.in_progress)
    return end - before.xmax > still
