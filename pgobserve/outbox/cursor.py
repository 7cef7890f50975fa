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
    from collections.abc import Iterable

    from pgobserve.hub.snapshot import Snapshot


class GapReason(StrEnum):
    """Why changes may be missing, so that whoever follows them must begin again."""

    RETENTION = "retention"
    NOT_WRITTEN = "not written"
    OTHER_SERVER = "other server"
    WHOLE_TABLE = "whole table"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Position:
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
    place: Position | None = None


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """
    What a read says besides rows.

    Attributes:
        now: The snapshot that it read in.
        horizon: All rows that were removed from the outbox are visible in it.
        lost: Greatest transaction that could not write to the outbox; 0 if none ever.
        full: Nothing is written now.
        written: Position in the WAL up to which there was something when it read.
        flushed: And up to which it was on disk.
    """

    now: Snapshot
    horizon: Snapshot
    lost: int
    full: bool
    written: int = 0
    flushed: int = 0


def broken(cursor: Cursor, facts: OutboxStatus) -> GapReason | None:
    """Return why something between the cursor and now may be missing, or None if nothing is."""
    if not facts.now.covers(cursor.seen):
        return GapReason.OTHER_SERVER
    if not cursor.seen.covers(facts.horizon):
        return GapReason.RETENTION
    if _any_new(cursor.seen, facts.now, facts.lost):
        return GapReason.NOT_WRITTEN
    return None


def advance(cursor: Cursor, facts: OutboxStatus, last: tuple[int, int] | None) -> Cursor:
    """
    Return where a reader stands after a read.

    Args:
        cursor: Where it stood.
        facts: Of the read.
        last: Time and id of the last transaction that was read, if there may be more.
    """
    until = cursor.place.until if cursor.place else facts.now
    return Cursor(until) if last is None else Cursor(cursor.seen, Position(until, *last))


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


class Durable:
    """
    The last cursor that a crash of the server can't falsify, and what was handled since.

    After a crash the server gives transaction ids again: those of transactions of which no WAL was on
    disk, as that of a rollback. A snapshot from before says that they have been seen. So a reader
    whose connection was lost goes back to a snapshot whose WAL was on disk, and leaves out what it
    has handled already. A cursor that is kept in the database needs none of this: if it is there
    after the crash, so is all that was written before it.

    Attributes:
        cursor: The cursor; None before the first.
    """

    def __init__(self) -> None:
        self.cursor: Cursor | None = None
        self._later: list[tuple[int, Cursor, frozenset[tuple[int, int]]]] = []
        self._handled: set[tuple[int, int]] = set()

    def begin(self, cursor: Cursor) -> None:
        """Begin at a cursor whose WAL is on disk."""
        self.cursor, self._later, self._handled = cursor, [], set()

    def note(
        self, cursor: Cursor, facts: OutboxStatus, handled: Iterable[tuple[int, int]] = ()
    ) -> None:
        """
        Note that a reader has come to a cursor.

        Args:
            cursor: Where it is.
            facts: Of the read.
            handled: Time and id of each transaction that was handled on the way.
        """
        self._later.append((facts.written, cursor, frozenset(handled)))
        safe = [
            number
            for number, (written, each, _) in enumerate(self._later)
            if written <= facts.flushed and each.place is None
        ]
        if safe:
            self.cursor = self._later[safe[-1]][1]
            del self._later[: safe[-1] + 1]
            self._handled = set().union(*(each for _, _, each in self._later))
        else:
            self._handled.update(handled)

    def go_back(self) -> Cursor | None:
        """Return the cursor to go on from over a new connection."""
        self._later = []
        return self.cursor

    def knows(self, at: int, xid: int) -> bool:
        """Tell whether a transaction was handled since."""
        return (at, xid) in self._handled
