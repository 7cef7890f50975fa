"""Where a reader stands, in a world of transactions that overlap, fail to write and are forgotten."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pgobserve.hub.snapshot import Snapshot
from pgobserve.outbox.cursor import (
    Cursor,
    GapReason,
    OutboxStatus,
    Position,
    Progress,
    advance,
    gap_reason,
)


def snapshot(text: str) -> Snapshot:
    """Return a snapshot."""
    return Snapshot.parse(text)


def facts(now: str, *, horizon: str = "1:1:", lost: int = 0) -> OutboxStatus:
    """Return what a read says."""
    return OutboxStatus(snapshot(now), snapshot(horizon), lost, full=False)


def test_whole() -> None:
    """A cursor that had seen all that is gone can be gone on from."""
    cursor = Cursor(snapshot("5:10:5,7"))

    assert gap_reason(cursor, facts("7:12:7")) is None
    assert gap_reason(cursor, facts("7:12:7", horizon="5:8:5,7")) is None


def test_horizon_is_beyond() -> None:
    """One that may not have seen all that is gone can't."""
    cursor = Cursor(snapshot("5:10:5,7"))

    assert gap_reason(cursor, facts("7:12:7", horizon="8:8:")) is GapReason.RETENTION
    assert gap_reason(cursor, facts("7:12:7", horizon="7:11:7")) is GapReason.RETENTION


def test_seen_what_is_not_there() -> None:
    """One that has seen more than there is comes from another server."""
    assert gap_reason(Cursor(snapshot("5:10:5")), facts("5:9:5")) is GapReason.OTHER_SERVER
    assert gap_reason(Cursor(snapshot("7:10:7")), facts("6:12:6")) is GapReason.OTHER_SERVER


def test_lost_before() -> None:
    """What could not be written by a transaction that it had seen is of no concern."""
    assert gap_reason(Cursor(snapshot("5:10:5")), facts("5:12:5", lost=4)) is None


def test_lost_is_not_visible_yet() -> None:
    """Nor is it while the transaction has not ended, for nothing of it is visible."""
    assert gap_reason(Cursor(snapshot("5:10:5")), facts("5:10:5", lost=5)) is None
    assert gap_reason(Cursor(snapshot("10:10:")), facts("11:11:", lost=11)) is GapReason.NOT_WRITTEN
    assert gap_reason(Cursor(snapshot("10:10:")), facts("10:11:10", lost=10)) is None


def test_lost() -> None:
    """What could not be written by one that is newly visible is missing."""
    assert gap_reason(Cursor(snapshot("5:10:5")), facts("10:10:", lost=5)) is GapReason.NOT_WRITTEN
    assert gap_reason(Cursor(snapshot("5:10:5")), facts("5:12:5", lost=11)) is GapReason.NOT_WRITTEN


def test_advances() -> None:
    """Having read all that there is, a reader stands at the snapshot of the read."""
    assert advance(Cursor(snapshot("5:5:")), facts("9:9:"), None) == Cursor(snapshot("9:9:"))


def test_advances_in_pages() -> None:
    """Having read a part, it stands between the two snapshots; the later one stays what it was."""
    begin = Cursor(snapshot("5:5:"))
    first = advance(begin, facts("9:9:"), (100, 7))
    second = advance(first, facts("12:12:"), (200, 6))

    assert first == Cursor(begin.seen, Position(snapshot("9:9:"), 100, 7))
    assert second == Cursor(begin.seen, Position(snapshot("9:9:"), 200, 6))
    assert advance(second, facts("13:13:"), None) == Cursor(snapshot("9:9:"))


def at(xid: int, *, written: int, flushed: int) -> tuple[Cursor, OutboxStatus]:
    """Return a cursor, and what the read says that led to it."""
    now = snapshot(f"{xid}:{xid}:")
    return Cursor(now), OutboxStatus(
        now, snapshot("1:1:"), 0, full=False, written=written, flushed=flushed
    )


def test_goes_back_to_what_is_on_disk() -> None:
    """Over a new connection a reader goes back to a cursor whose WAL was on disk, and knows the rest."""
    progress = Progress(Cursor(snapshot("5:5:")))
    progress.note(*at(6, written=60, flushed=50), {(1, 5)})
    progress.note(*at(7, written=70, flushed=65), {(2, 6)})
    progress.note(*at(8, written=80, flushed=69), {(3, 7)})

    progress.go_back()
    assert progress.cursor == Cursor(snapshot("6:6:"))
    assert [progress.knows(*each) for each in ((1, 5), (2, 6), (3, 7))] == [False, True, True]
    # The connection is lost again before anything of it is on disk.
    progress.note(*at(9, written=90, flushed=70), {(4, 8)})
    progress.go_back()
    assert progress.cursor == Cursor(snapshot("6:6:"))
    assert [progress.knows(*each) for each in ((2, 6), (4, 8))] == [True, True]
    progress.note(*at(9, written=90, flushed=90), {(5, 9)})
    progress.go_back()
    assert progress.cursor == Cursor(snapshot("9:9:"))
    assert not progress.knows(2, 6)


def test_does_not_go_back_into_pages() -> None:
    """It does not go back to the middle of what was read in pages, for that is told by times."""
    begin = Cursor(snapshot("5:5:"))
    progress = Progress(begin)
    _, known = at(9, written=60, flushed=60)
    progress.note(Cursor(begin.seen, Position(known.now, 1, 5)), known, {(1, 5)})

    progress.go_back()
    assert progress.cursor == begin
    assert progress.knows(1, 5)


@dataclass
class Box:
    """The outbox: what was written, what was removed, and what was not written."""

    rows: dict[int, bool] = field(default_factory=dict)
    horizon: Snapshot = field(default_factory=lambda: Snapshot(1, 1, frozenset()))
    lost: int = 0


class Readers(RuleBasedStateMachine):
    """One reader; whatever is committed it has been told, or told that something is missing."""

    def __init__(self) -> None:
        super().__init__()
        self.next = 1
        self.open: set[int] = set()
        self.box = Box()
        self.committed: dict[int, None] = {}
        self.told: list[int] = []
        self.excused: set[int] = set()
        self.cursor = Cursor(self.now())

    def now(self) -> Snapshot:
        return Snapshot(min(self.open, default=self.next), self.next, frozenset(self.open))

    @rule(writes=st.booleans())
    def begin(self, writes: bool) -> None:
        """A transaction begins; it will be able to write to the outbox, or not."""
        self.open.add(self.next)
        self.box.rows[self.next] = writes
        if not writes:
            self.box.lost = max(self.box.lost, self.next)
        self.next += 1

    @precondition(lambda self: self.open)
    @rule(data=st.data(), commits=st.booleans())
    def end(self, data: st.DataObject, commits: bool) -> None:
        """A transaction ends."""
        xid = data.draw(st.sampled_from(sorted(self.open)))
        self.open.remove(xid)
        if commits:
            self.committed[xid] = None
        else:
            self.box.rows[xid] = False

    @rule()
    def forget(self) -> None:
        """All rows that are visible now are removed."""
        self.box.horizon = self.now()
        for xid in self.committed:
            self.box.rows[xid] = False

    @rule(limit=st.integers(1, 4))
    def read(self, limit: int) -> None:
        """The reader reads a page."""
        known = OutboxStatus(self.now(), self.box.horizon, self.box.lost, full=False)
        if gap_reason(self.cursor, known) is not None:
            self.cursor = Cursor(known.now)
            self.excused |= self.committed.keys()
            return
        place = self.cursor.place
        until = place.until if place else known.now
        # Committed in this order; the time is the position.
        new = [
            (at, xid)
            for at, xid in enumerate(self.committed)
            if until.sees(xid) and not self.cursor.seen.sees(xid) and self.box.rows[xid]
            if place is None or (at, xid) > (place.at, place.xid)
        ][:limit]
        self.told += [xid for _, xid in new]
        self.cursor = advance(self.cursor, known, new[-1] if len(new) == limit else None)

    @invariant()
    def nothing_is_told_twice(self) -> None:
        assert len(self.told) == len(set(self.told))

    def teardown(self) -> None:
        for _ in range(len(self.committed) + 2):
            self.read(limit=4)
        assert set(self.committed) <= set(self.told) | self.excused


TestReaders = Readers.TestCase
TestReaders.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
