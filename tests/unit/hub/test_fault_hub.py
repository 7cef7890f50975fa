"""A server that was restored to an older state gives transaction ids that were given before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgobserve.deliver.send_queue import SendQueue
from pgobserve.hub.hub import Hub, TableDependencies
from pgobserve.hub.snapshot import Snapshot
from pgobserve.hub.subscriptions import RowSubscription

if TYPE_CHECKING:
    from pgobserve.hub.hub import RowState

ITEM = TableDependencies(("item",))


def snapshot(xmax: int) -> Snapshot:
    """Return a snapshot that sees all before a transaction."""
    return Snapshot(xmax, xmax, frozenset())


def watched(hub: Hub) -> RowState:
    """Watch a row, taken to be read."""
    hub.add(RowSubscription(SendQueue(lambda: None), 1, 1, None, lambda *_: None), ITEM)
    (row,) = hub.take(10)
    return row


def test_change_during_the_load_after_a_restore() -> None:
    """What is written while a row is read again counts, whatever the old server had seen."""
    hub = Hub()
    row = watched(hub)
    hub.done(row, snapshot(1000))
    hub.publish_gap()
    assert hub.take(10) == [row]
    hub.publish("item", 900, [1])
    hub.done(row, snapshot(900))

    assert hub.take(10) == [row]


def test_load_of_the_old_server_ends_after_the_gap() -> None:
    """A load that was under way does not vouch for the restored server's transactions."""
    hub = Hub()
    row = watched(hub)
    hub.publish_gap()
    hub.publish("item", 900, [1])
    hub.done(row, snapshot(1000))

    assert hub.take(10) == [row]


def test_change_seen_by_the_load_that_it_met() -> None:
    """A change that a load under way turns out to have seen is not read again."""
    hub = Hub()
    row = watched(hub)
    hub.done(row, snapshot(100))
    hub.publish("item", 100, [1])
    assert hub.take(10) == [row]
    hub.publish("item", 101, [1])
    hub.done(row, snapshot(102))

    assert hub.take(10) == []
