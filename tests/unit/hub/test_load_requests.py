"""What the loader asks of whoever reads rows."""

from __future__ import annotations

from pgobserve.deliver.delivery import offer
from pgobserve.deliver.send_queue import SendQueue
from pgobserve.hub.hub import RowState, TableDependencies
from pgobserve.hub.list_deliveries import admit
from pgobserve.hub.list_state import ListRow, ListState
from pgobserve.hub.load_requests import LoadRequest
from pgobserve.hub.outcome import ABSENT, NOTHING, View
from pgobserve.hub.snapshot import Snapshot
from pgobserve.hub.subscriptions import ListSubscription, RowSubscription
from tests.unit.hub.lists import deliver

A, B = View.of("a"), View.of("b")
SNAPSHOT = Snapshot(1, 1, frozenset())


def test_shown_of_a_row() -> None:
    """Who watches a row has what he was sent."""
    watch = RowSubscription(SendQueue(lambda: None), 1, 1, None, lambda outcome: None)
    offer(watch, A)
    job = LoadRequest(RowState(TableDependencies(("a",)), 1), (watch,))

    assert job.key == 1
    assert job.shown(watch) == A.digest


def test_shown_of_a_list() -> None:
    """Who has a list has what all have, but for his exceptions; who waits for it has nothing."""
    roster = ListState("list")
    plain, other, waiting = (
        ListSubscription(SendQueue(lambda: None), n, None, lambda listed: None) for n in range(3)
    )
    admit(roster, plain, [])
    admit(roster, other, [])
    job = LoadRequest(ListRow(roster, 1), roster.audience)
    assert job.shown(plain) == NOTHING
    deliver(roster, 1, A, {other: B}, roster.audience)

    assert [job.shown(watch) for watch in (plain, other, waiting)] == [A.digest, B.digest, NOTHING]
    deliver(roster, 1, ABSENT, {}, roster.audience)
    assert job.shown(other) == NOTHING
