"""What is still to be read for some subscriptions: all of that, and nothing that comes later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from pgobserve.deliver.send_queue import SendQueue
from pgobserve.hub.backlog import Backlog, untold
from pgobserve.hub.hub import Hub, RowState, TableDependencies
from pgobserve.hub.list_state import MAX_DIRTY, ListRow, ListState
from pgobserve.hub.load_requests import FAILED
from pgobserve.hub.outcome import ABSENT, NOTHING, View
from pgobserve.hub.snapshot import Snapshot
from pgobserve.hub.subscriptions import ListSubscription, RowSubscription

if TYPE_CHECKING:
    from collections.abc import Hashable

SNAPSHOT = Snapshot(100, 100, frozenset())
LATER = Snapshot(200, 200, frozenset())
ITEM = TableDependencies(("item",))


@dataclass(frozen=True)
class Way:
    table: str
    column: str | None


LINKED = TableDependencies(("item",), (), (Way("owner", None),))  # type: ignore[arg-type]


@pytest.fixture
def hub() -> Hub:
    return Hub()


def watching(hub: Hub, key: Hashable, subject: TableDependencies = ITEM) -> RowSubscription:
    """Watch a row that was read."""
    watch = RowSubscription(SendQueue(lambda: None), key, 1, None, lambda outcome: None)
    hub.add(watch, subject)
    read(hub)
    return watch


def following(
    hub: Hub, identity: Hashable = "all", subject: TableDependencies = ITEM
) -> ListSubscription:
    """Subscribe to a list that was read."""
    watch = ListSubscription(SendQueue(lambda: None), 1, None, lambda listed: None)
    hub.add_list(watch, subject, identity)
    (roster,) = hub.take_lists(500)
    roster.join(watch)
    roster.shown = dict.fromkeys(range(100, 200), b"x")  # large, so that single rows are read
    finish(hub, roster)
    return watch


def finish(hub: Hub, roster: ListState, snapshot: Snapshot | None = SNAPSHOT) -> None:
    roster.done_whole(snapshot)
    hub.done_list(roster)


def end(hub: Hub, thing: RowState | ListRow, *, failed: bool = False) -> None:
    if isinstance(thing, RowState):
        hub.done(thing, None if failed else SNAPSHOT)
    else:
        thing.roster.done(thing.key, failed=failed)
        hub.done_list(thing.roster)


def read(hub: Hub, limit: int = 500) -> None:
    """Read everything that is waiting, once."""
    for thing in hub.take(limit):
        end(hub, thing)
    for roster in hub.take_lists(limit, few=1000, limit=1000):
        finish(hub, roster)


def test_nothing(hub: Hub) -> None:
    """What is not marked is not waited for."""
    watch, followed = watching(hub, 1), following(hub)

    assert Backlog(hub, [watch, followed]).waits_for() is None


def test_row(hub: Hub) -> None:
    """A marked row is waited for until it was read."""
    watch = watching(hub, 1)
    hub.publish("item", 101, [1])
    backlog = Backlog(hub, [watch])

    assert isinstance(backlog.waits_for(), RowState)
    (row,) = hub.take(9)
    assert backlog.waits_for() is row
    end(hub, row)
    assert backlog.waits_for() is None


def test_row_being_read(hub: Hub) -> None:
    """A load that is under way is waited for; what was marked since needs another one."""
    watch = watching(hub, 1)
    hub.publish("item", 101, [1])
    (row,) = hub.take(9)
    under_way = Backlog(hub, [watch])
    hub.publish("item", 102, [1])
    both = Backlog(hub, [watch])
    end(hub, row)

    assert under_way.waits_for() is None
    assert both.waits_for() is row
    read(hub)
    assert both.waits_for() is None


def test_later_changes_of_a_row(hub: Hub) -> None:
    """A row that is written without end is not waited for without end."""
    watch = watching(hub, 1)
    hub.publish("item", 101, [1])
    backlog = Backlog(hub, [watch])
    (row,) = hub.take(9)
    hub.publish("item", 102, [1])
    end(hub, row)

    assert hub.dirty
    assert backlog.waits_for() is None


def test_row_that_failed(hub: Hub) -> None:
    """A load that is given back is no read."""
    watch = watching(hub, 1)
    hub.publish("item", 101, [1])
    backlog = Backlog(hub, [watch])
    (row,) = hub.take(9)
    end(hub, row, failed=True)

    assert backlog.waits_for() is row
    read(hub)
    assert backlog.waits_for() is None


def test_old_news(hub: Hub) -> None:
    """A mark that a later snapshot made superfluous is not waited for."""
    watch = watching(hub, 1)
    hub.publish("item", 101, [1])
    backlog = Backlog(hub, [watch])
    (row,) = hub.take(9)
    hub.publish("item", 102, [1])
    both = Backlog(hub, [watch])
    hub.done(row, LATER)  # type: ignore[arg-type]
    assert both.waits_for() is row
    assert hub.take(9) == []

    assert backlog.waits_for() is None
    assert both.waits_for() is None


def test_list_in_order(hub: Hub) -> None:
    """Rows of a list are waited for as far as they were marked."""
    watch = following(hub)
    hub.publish("item", 101, [1, 2, 3])
    backlog = Backlog(hub, [watch])
    hub.publish("item", 102, [4, 5])
    for expected in (2, 2):
        assert backlog.waits_for() is watch.roster
        entries: list[Any] = hub.take(expected)
        assert len(entries) == expected
        for entry in entries:
            end(hub, entry)

    assert hub.dirty
    assert backlog.waits_for() is None


def test_entry_that_failed(hub: Hub) -> None:
    """A row that goes to the end of the queue again is waited for there."""
    watch = following(hub)
    hub.publish("item", 101, [1])
    backlog = Backlog(hub, [watch])
    (first,) = hub.take(9)
    hub.publish("item", 102, [2, 3])
    end(hub, first, failed=True)
    for _ in range(2):
        assert backlog.waits_for() is watch.roster
        (entry,) = hub.take(1)
        end(hub, entry)
    assert backlog.waits_for() is watch.roster
    (entry,) = hub.take(1)
    assert entry.key == 1
    end(hub, entry)

    assert backlog.waits_for() is None


def test_whole(hub: Hub) -> None:
    """A list that is to be read as a whole is waited for, failures included."""
    watch = following(hub)
    hub.publish("item", 101, [1])
    hub.publish_gap()
    backlog = Backlog(hub, [watch])
    (roster,) = hub.take_lists(500)
    finish(hub, roster, None)
    assert backlog.waits_for() is roster
    hub.publish("item", 102, [7])
    (roster,) = hub.take_lists(500)
    hub.publish("item", 103, [8])
    finish(hub, roster)

    assert hub.dirty
    assert backlog.waits_for() is None


def test_too_many_rows(hub: Hub) -> None:
    """Marks of rows that become a mark of the whole list are waited for all the same."""
    watch = following(hub)
    hub.publish("item", 101, [0])
    backlog = Backlog(hub, [watch])
    hub.publish("item", 102, [*range(1, MAX_DIRTY + 1)])
    assert backlog.waits_for() is watch.roster
    (roster,) = hub.take_lists(500)
    assert backlog.waits_for() is roster
    hub.publish("item", 102, [1])
    finish(hub, roster)

    assert backlog.waits_for() is None


def test_moved(hub: Hub) -> None:
    """A subscription that goes on with another list is waited for there."""
    watch = following(hub)
    hub.publish("item", 101, [1])
    backlog = Backlog(hub, [watch])
    (entry,) = hub.take(9)
    hub.move_all({watch: (ITEM, "another")})
    end(hub, entry)
    assert backlog.waits_for() is not None
    (roster,) = hub.take_lists(500)
    assert backlog.waits_for() is roster
    roster.join(watch)
    finish(hub, roster)

    assert backlog.waits_for() is None


def test_lane(hub: Hub) -> None:
    """So is one that is read in a lane from now on."""
    watch = watching(hub, 1)
    hub.publish("item", 101, [1])
    backlog = Backlog(hub, [watch])
    backlog.waits_for()
    hub.isolate([watch], "lane")
    assert backlog.waits_for() is not None
    assert hub.take(9) == []
    (row,) = hub.take(9, "lane")
    end(hub, row)

    assert backlog.waits_for() is None


def test_ended(hub: Hub) -> None:
    """A subscription that ends is not waited for."""
    watch, followed = watching(hub, 1), following(hub)
    hub.publish("item", 101, [1])
    backlog = Backlog(hub, [watch, followed])
    assert backlog.waits_for() is not None
    hub.discard(watch)
    hub.discard(followed)

    assert backlog.waits_for() is None


def test_reverse_look_up(hub: Hub) -> None:
    """What changes elsewhere lead to is waited for, first the way and then the rows."""
    watch = watching(hub, 1, LINKED)
    hub.publish("owner", 101, ["o"])
    backlog = Backlog(hub, [watch])
    assert backlog.waits_for() == LINKED
    (trace,) = hub.take_lookups()
    hub.publish("owner", 102, ["p"])
    assert backlog.waits_for() == LINKED
    hub.resolved(trace, [1])

    assert isinstance(backlog.waits_for(), RowState)
    read(hub)
    assert hub.dirty  # the second change is not this one's business
    assert backlog.waits_for() is None


def test_two_reverse_look_ups(hub: Hub) -> None:
    """A later look-up that ends first does not stand for an earlier one."""
    watch = watching(hub, 1, LINKED)
    hub.publish("owner", 101, ["o"])
    (first,) = hub.take_lookups()
    backlog = Backlog(hub, [watch])
    hub.publish("owner", 102, ["p"])
    (second,) = hub.take_lookups()
    hub.resolved(second, [])

    assert backlog.waits_for() == LINKED
    hub.resolved(first, [])
    assert backlog.waits_for() is None


def test_look_up_that_failed(hub: Hub) -> None:
    """A look-up that is given back is waited for with the later ones."""
    watch = watching(hub, 1, LINKED)
    hub.publish("owner", 101, ["o"])
    backlog = Backlog(hub, [watch])
    (trace,) = hub.take_lookups()
    hub.give_back(trace)
    assert backlog.waits_for() == LINKED
    (trace,) = hub.take_lookups()
    assert backlog.waits_for() == LINKED
    hub.resolved(trace, [])

    assert backlog.waits_for() is None


def test_progress(hub: Hub) -> None:
    """Progress is told once, and to nobody who has gone."""
    calls: list[str] = []
    told, gone = lambda: calls.append("told"), lambda: calls.append("gone")
    watch = watching(hub, 1)
    hub.publish("item", 101, [1])
    thing = Backlog(hub, [watch]).waits_for()
    hub.watch_progress(thing, told)
    hub.watch_progress(thing, gone)
    hub.forget_progress(thing, gone)
    read(hub)
    hub.publish("item", 102, [1])
    read(hub)
    hub.forget_progress(thing, told)
    hub.discard(watch)

    assert calls == ["told"]
    assert hub.empty


@pytest.mark.parametrize(
    ("shown", "waits"), [(ABSENT, True), (View.of("1"), False), (FAILED, False)]
)
def test_untold_row(hub: Hub, shown: Any, waits: bool) -> None:
    """A failed load is waited for if the client has neither a copy nor an error frame."""
    watch = watching(hub, 1)
    watch.shown = None if shown is FAILED else shown.digest
    row = hub.place(watch)[1]  # type: ignore[index]

    assert bool(untold([row], hub, [watch])) is waits
    assert not untold([row], hub, [watching(hub, 2)])


def test_untold_entry(hub: Hub) -> None:
    """The same for a row of a list, where some see it otherwise than others."""
    watch, other = following(hub), following(hub, "other")
    roster = watch.roster
    assert roster is not None

    assert untold([ListRow(roster, 1)], hub, [watch]) == [roster]
    assert not untold([ListRow(roster, 1), roster], hub, [other])
    roster.shown[1] = b"x"
    assert not untold([ListRow(roster, 1)], hub, [watch])
    watch.special[1] = NOTHING
    assert untold([ListRow(roster, 1)], hub, [watch]) == [roster]
