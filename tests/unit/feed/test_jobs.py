"""What the loader asks of whoever reads rows."""

from __future__ import annotations

from pgobserve.feed.admission import admit
from pgobserve.feed.hub import Row, Subject
from pgobserve.feed.jobs import Job
from pgobserve.feed.listwatch import ListWatch
from pgobserve.feed.mailbox import ABSENT, NOTHING, Mailbox, View, Watch
from pgobserve.feed.roster import Entry, Roster
from pgobserve.feed.snapshot import Snapshot

A, B = View.of("a"), View.of("b")
SNAPSHOT = Snapshot(1, 1, frozenset())


def test_shown_of_a_row() -> None:
    """Who watches a row has what he was sent."""
    watch = Watch(Mailbox(lambda: None), 1, 1, None, lambda outcome, snapshot: None)
    watch.offer(A, SNAPSHOT)
    job = Job(Row(Subject(("a",)), 1), (watch,))

    assert job.key == 1
    assert job.shown(watch) == A.digest


def test_shown_of_a_list() -> None:
    """Who has a list has what all have, but for his exceptions; who waits for it has nothing."""
    roster = Roster("list")
    plain, other, waiting = (
        ListWatch(Mailbox(lambda: None), n, None, lambda listed, snapshot: None) for n in range(3)
    )
    admit(roster, plain, [], SNAPSHOT)
    admit(roster, other, [], SNAPSHOT)
    job = Job(Entry(roster, 1), roster.audience)
    assert job.shown(plain) == NOTHING
    roster.tell(1, A, {other: B}, SNAPSHOT, roster.audience)

    assert [job.shown(watch) for watch in (plain, other, waiting)] == [A.digest, B.digest, NOTHING]
    roster.tell(1, ABSENT, {}, SNAPSHOT, roster.audience)
    assert job.shown(other) == NOTHING
