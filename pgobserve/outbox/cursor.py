"""
Positions in the outbox, and when a gap makes one useless.

A cursor is a snapshot: the next records are those visible now but not in it. A transaction id or a time
would not do, because transactions end in another order than they begin.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgobserve.hub.snapshot import Snapshot


class GapReason(StrEnum):
    """Why changes may be missing, so that a follower must start again from the rows."""

    RETENTION = "retention"
    NOT_WRITTEN = "not written"
    OTHER_SERVER = "other server"
    WHOLE_TABLE = "whole table"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Position:
    """
    A position among the transactions between two snapshots, of which ``until`` is the later.

    ``at`` is when the last handled transaction, ``xid``, wrote last, in microseconds.
    """

    until: Snapshot
    at: int
    xid: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """
    What a reader has handled: every transaction visible in ``seen``.

    ``place`` has those handled after that, in the middle of several pages.
    """

    seen: Snapshot
    place: Position | None = None


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """
    The state of the outbox at a read.

    Attributes:
        horizon: Every removed record is visible in it.
        lost: Greatest transaction that could not write to the outbox; 0 if there was none.
        full: The outbox has reached its size limit, and triggers write nothing.
        written: Position in the WAL up to which the server had written.
        flushed: Position in the WAL up to which it was on disk.
    """

    now: Snapshot
    horizon: Snapshot
    lost: int
    full: bool
    written: int = 0
    flushed: int = 0


def gap_reason(cursor: Cursor, status: OutboxStatus) -> GapReason | None:
    """Return why changes between the cursor and now may be missing; None if all are there."""
    if not status.now.covers(cursor.seen):
        return GapReason.OTHER_SERVER
    if not cursor.seen.covers(status.horizon):
        return GapReason.RETENTION
    if _any_new(cursor.seen, status.now, status.lost):
        return GapReason.NOT_WRITTEN
    return None


def advance(cursor: Cursor, status: OutboxStatus, last: tuple[int, int] | None) -> Cursor:
    """Return the cursor after a read; ``last`` is the last transaction's time and id if more may follow."""
    until = cursor.place.until if cursor.place else status.now
    return Cursor(until) if last is None else Cursor(cursor.seen, Position(until, *last))


def _any_new(before: Snapshot, now: Snapshot, lost: int) -> bool:
    """
    Return whether a transaction up to ``lost`` is visible now but was not before.

    The database keeps only the greatest that could not write, so each up to it may be another.
    """
    if any(xid <= lost and now.sees(xid) for xid in before.in_progress):
        return True
    end = min(lost + 1, now.xmax)
    still = sum(before.xmax <= xid < end for xid in now.in_progress)
    return end - before.xmax > still


class Progress:
    """
    How far a reader has come, and how far a crash of the server may set it back.

    A crashed server assigns transaction ids again if no WAL of them reached the disk; rollbacks leave
    none. A snapshot from before the crash counts the new transactions as seen. So after a lost
    connection a reader goes back to a snapshot whose WAL was on disk, and skips what it has handled
    since. A cursor in the database needs none of this: if it survives, so does all WAL before it.
    """

    def __init__(self, cursor: Cursor | None = None) -> None:
        self.start(cursor)

    def start(self, cursor: Cursor | None) -> None:
        """Start at a cursor whose WAL is on disk."""
        self.cursor = self._safe = cursor
        self._later: list[tuple[int, Cursor, frozenset[tuple[int, int]]]] = []
        self._handled: set[tuple[int, int]] = set()

    def note(
        self, cursor: Cursor, status: OutboxStatus, handled: Iterable[tuple[int, int]] = ()
    ) -> None:
        """Move on to a cursor; ``handled`` has the time and id of each transaction handled on the way."""
        self.cursor = cursor
        self._later.append((status.written, cursor, frozenset(handled)))
        safe = [
            number
            for number, (written, each, _) in enumerate(self._later)
            # A position within pages holds a transaction id, which a crash may assign again.
            if written <= status.flushed and each.place is None
        ]
        if safe:
            self._safe = self._later[safe[-1]][1]
            del self._later[: safe[-1] + 1]
            self._handled = set().union(*(each for _, _, each in self._later))
        else:
            self._handled.update(handled)

    def go_back(self) -> None:
        """Return to the last safe cursor, because the connection is new."""
        self._later = []
        self.cursor = self._safe

    def knows(self, at: int, xid: int) -> bool:
        """Return whether a transaction was handled after the safe cursor."""
        return (at, xid) in self._handled
