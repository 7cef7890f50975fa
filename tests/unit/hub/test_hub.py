"""From a change to the rows that somebody watches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pgobserve.deliver.delivery import offer
from pgobserve.deliver.send_queue import SendQueue
from pgobserve.hub.hub import Hub, TableDependencies
from pgobserve.hub.outcome import ABSENT, View
from pgobserve.hub.snapshot import MAX_XIDS, Snapshot
from pgobserve.hub.subscriptions import ListSubscription, RowSubscription

if TYPE_CHECKING:
    from collections.abc import Hashable

    from pgobserve.hub.list_state import ListState

ITEM = TableDependencies(("item",))
CHILD = TableDependencies(("child", "item"))
WIDE = TableDependencies(("order",), ("item",))
SNAPSHOT = Snapshot(100, 100, frozenset())


@pytest.fixture
def hub() -> Hub:
    return Hub()


def watch(key: Hashable) -> RowSubscription:
    return RowSubscription(SendQueue(lambda: None), key, 1, None, lambda outcome: None)


def load(hub: Hub, snapshot: Snapshot = SNAPSHOT, limit: int = 100) -> list[Hashable]:
    """Read all that is dirty once, and return the keys."""
    rows = hub.take(limit)
    for row in rows:
        hub.done(row, snapshot)
    return [row.key for row in rows]


def watching(hub: Hub, subject: TableDependencies, *keys: Hashable) -> list[RowSubscription]:
    """Watch rows that have been read already."""
    watches = [watch(key) for key in keys]
    for each in watches:
        hub.add(each, subject)
    load(hub)
    return watches


def test_new_row_is_read(hub: Hub) -> None:
    """A subscription's row is read, once."""
    hub.add(watch(1), ITEM)

    assert load(hub) == [1]
    assert load(hub) == []


def test_second_watch_reads_again(hub: Hub) -> None:
    """A second subscription to a row has it read again: it begins at a snapshot of its own."""
    watching(hub, ITEM, 1)
    hub.add(watch(1), ITEM)

    assert load(hub) == [1]


def test_publish(hub: Hub) -> None:
    """A change has those rows read that it names and that somebody watches, each once."""
    watching(hub, ITEM, 1, 2, 3)
    hub.publish("item", 100, [3, 1, 3, 99])
    hub.publish("item", 101, [1])

    assert load(hub) == [3, 1]


def test_publish_without_keys(hub: Hub) -> None:
    """A change that names no keys concerns every row of the table, and none of another."""
    watching(hub, ITEM, 1, 2)
    watching(hub, TableDependencies(("other",)), 1)
    hub.publish("item", 100, None)

    assert load(hub) == [1, 2]


def test_parent_table(hub: Hub) -> None:
    """A change of a parent's table concerns the child's row of the same key."""
    watching(hub, CHILD, 1, 2)
    hub.publish("item", 100, [2])

    assert load(hub) == [2]


def test_wide_table(hub: Hub) -> None:
    """A change of a wide table concerns all rows of the subject, whatever its keys."""
    watching(hub, WIDE, 1, 2)
    hub.publish("item", 100, [77])

    assert load(hub) == [1, 2]


def test_old_news(hub: Hub) -> None:
    """A change that the row's last load has seen is no news; one that was in progress is."""
    watching(hub, ITEM, 1)
    hub.publish("item", 99, [1])
    assert hub.dirty == 0

    hub.publish("item", 100, [1])
    assert load(hub, Snapshot(101, 105, frozenset({101, 103}))) == [1]

    hub.publish("item", 102, [1])
    assert hub.dirty == 0
    hub.publish("item", 103, [1])
    assert load(hub) == [1]


def test_change_during_load(hub: Hub) -> None:
    """A change during a load is read after it, unless the load has seen it after all."""
    watching(hub, ITEM, 1)
    hub.publish("item", 100, [1])
    (row,) = hub.take(1)
    hub.publish("item", 101, [1])
    assert hub.take(1) == []

    hub.done(row, Snapshot(101, 101, frozenset()))
    (row,) = hub.take(1)
    hub.publish("item", 102, [1])
    hub.done(row, Snapshot(103, 103, frozenset()))

    assert hub.take(1) == []
    assert hub.dirty == 0


def test_late_watch_is_not_served_by_a_running_load(hub: Hub) -> None:
    """Who comes while a load runs gets one of his own, whatever the running one saw."""
    hub.add(watch(1), ITEM)
    (row,) = hub.take(1)
    hub.add(watch(1), ITEM)
    hub.done(row, SNAPSHOT)

    assert load(hub) == [1]


def test_late_watch_is_read_whatever_the_load_saw(hub: Hub) -> None:
    """Who comes to a row that is dirty anyway is not content with a load that began before him."""
    watching(hub, ITEM, 1)
    hub.publish("item", 100, [1])
    (row,) = hub.take(1)
    hub.publish("item", 101, [1])
    hub.add(watch(1), ITEM)
    hub.done(row, Snapshot(102, 102, frozenset()))

    assert load(hub) == [1]


def test_many_transactions(hub: Hub) -> None:
    """More transactions than are remembered for a row have it read, whatever was seen."""
    watching(hub, ITEM, 1)
    (row,) = [hub._watches[each] for each in hub._watches]
    for xid in range(100, 100 + MAX_XIDS + 1):
        hub.publish("item", xid, [1])
    row.snapshot = Snapshot(1000, 1000, frozenset())

    assert load(hub) == [1]


def test_one_unseen_transaction_of_many(hub: Hub) -> None:
    """A row is read if any one of the transactions that changed it was not seen."""
    hub.add(watch(1), ITEM)
    (row,) = hub.take(1)
    hub.publish("item", 100, [1])
    hub.publish("item", 101, [1])
    hub.done(row, Snapshot(100, 102, frozenset({100})))

    assert load(hub) == [1]


def test_failed_load_is_repeated(hub: Hub) -> None:
    """A load without a snapshot failed: its rows are read again, if still watched."""
    first, second = watch(1), watch(2)
    hub.add(first, ITEM)
    hub.add(second, ITEM)
    rows = hub.take(2)
    hub.discard(second)
    for row in rows:
        hub.done(row, None)

    assert load(hub) == [1]


def test_gap(hub: Hub) -> None:
    """After a gap everything is read again, even what was read a moment ago."""
    watching(hub, ITEM, 1, 2)
    watching(hub, WIDE, 3)
    hub.publish_gap()

    assert load(hub, Snapshot(10**6, 10**6, frozenset())) == [1, 2, 3]


def test_limit(hub: Hub) -> None:
    """A batch is as long as asked for at most, first come first served."""
    for key in range(5):
        hub.add(watch(key), ITEM)

    assert [load(hub, limit=2) for _ in range(4)] == [[0, 1], [2, 3], [4], []]


def test_busy(hub: Hub) -> None:
    """The hub is busy while a row waits to be read or is being read."""
    assert not hub.busy
    hub.add(watch(1), ITEM)
    assert hub.busy
    (row,) = hub.take(1)
    assert hub.busy
    hub.done(row, SNAPSHOT)
    assert not hub.busy


def test_discard(hub: Hub) -> None:
    """After the last subscription nothing of a row is left, and a change is no work."""
    one, other = watching(hub, WIDE, 1, 1)
    hub.discard(one)
    assert len(hub) == 1
    assert hub.watches_table("order")
    assert hub.watches_table("item")
    hub.publish("item", 100, None)

    hub.discard(other)
    hub.publish("item", 101, None)

    assert len(hub) == hub.dirty == 0
    assert not hub.watches_table("order")
    assert not hub.watches_table("item")
    assert hub.empty


def test_discard_twice(hub: Hub) -> None:
    """To end a subscription twice, or one that never began, is no error."""
    (one,) = watching(hub, ITEM, 1)
    hub.discard(one)
    hub.discard(one)
    hub.discard(watch(5))

    assert len(hub) == 0


def test_discarded_watch_is_silent(hub: Hub) -> None:
    """An ended subscription gets nothing any more: not what is pending, not what is being read."""
    send_queue = SendQueue(lambda: None)
    one = RowSubscription(send_queue, 1, 1, None, lambda outcome: None)
    hub.add(one, ITEM)
    offer(one, ABSENT)
    offer(one, View.of("1"))
    assert len(send_queue) == 1

    hub.discard(one)
    offer(one, View.of("2"))

    assert len(send_queue) == 0
    assert send_queue.take() is None


def test_discard_during_load_and_again(hub: Hub) -> None:
    """A row given up and watched again during its load is read for the newcomer."""
    first = watch(1)
    hub.add(first, ITEM)
    (row,) = hub.take(1)
    hub.discard(first)
    hub.add(watch(1), ITEM)
    hub.done(row, SNAPSHOT)

    assert load(hub) == [1]


def lists(hub: Hub, *sizes: int) -> list[ListState]:
    """Have lists of some rows each, all of which must be read again."""
    rosters = []
    for number, size in enumerate(sizes):
        watch = ListSubscription(SendQueue(lambda: None), 1, None, lambda *_: None)
        hub.add_list(watch, ITEM, number)
        (roster,) = hub.take_lists(10)
        roster.shown = dict.fromkeys(range(size), b"shown")
        roster.join(watch)
        roster.done_whole(SNAPSHOT)
        hub.done_list(roster)
        rosters.append(roster)
    hub.publish_gap()
    return rosters


def test_small_lists_are_read_together(hub: Hub) -> None:
    """Lists of few rows are read together, so many at a time; one of many rows is read alone."""
    a, large, b, c, d = lists(hub, 1, 9, 2, 0, 1)

    taken = [hub.take_lists(10, few=2, limit=3) for _ in range(4)]

    assert taken == [[a, b, c], [large], [d], []]
    assert all(roster.loading for roster in (a, large, b, c, d))


def test_list_that_must_be_read_alone(hub: Hub) -> None:
    """A list that could not be read together with others is read alone, once."""
    a, b = lists(hub, 1, 1)
    a.alone = True
    assert [hub.take_lists(10, few=2, limit=3) for _ in range(2)] == [[a], [b]]
    for roster in (a, b):
        roster.done_whole(SNAPSHOT)
        hub.done_list(roster)
    hub.publish_gap()

    assert hub.take_lists(10, few=2, limit=3) == [a, b]
