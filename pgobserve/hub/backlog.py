"""
The loads that are outstanding for some subscriptions at one moment.

A client that waits for its own write must not wait for later writes of others. The backlog therefore
records how far each queue must get, and that point is reached even under constant load. Pure Python, no
I/O: the caller waits for the progress that :meth:`Backlog.waits_for` names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgobserve.hub.hub import RowState
from pgobserve.hub.outcome import NOTHING
from pgobserve.hub.subscriptions import RowSubscription

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Sequence

    from pgobserve.hub.hub import Hub, TableDependencies
    from pgobserve.hub.list_state import ListRow, ListState
    from pgobserve.hub.subscriptions import ListSubscription

    AnyWatch = RowSubscription | ListSubscription


@dataclass(frozen=True, slots=True)
class _Goal:
    """
    How far the loads of one row, list or subject must get.

    Attributes:
        of: The row, list or subject.
        number: The number that its counter must reach.
        setbacks: Its setbacks so far. After another one, the goal no longer covers the failed load.
    """

    of: Hashable
    number: int
    setbacks: int = 0


class Backlog:
    """
    The outstanding loads and reverse look-ups of some subscriptions.

    Args:
        watches: The subscriptions. The backlog does not wait for those that end meanwhile.
    """

    def __init__(self, hub: Hub, watches: Iterable[AnyWatch]) -> None:
        self._hub = hub
        self._watches = tuple(watches)
        self._loads: dict[AnyWatch, _Goal] = {}
        self._noted = False
        self._lookups: dict[TableDependencies, _Goal] = {}
        for watch in self._watches:
            place = hub.place(watch)
            if place is not None and place[0] not in self._lookups:
                self._note_trace(place[0])
        if not self._lookups:
            self._note_loads()

    def waits_for(self) -> Hashable | None:
        """
        Return the row, list or subject that must make progress next; None if there is none.

        :meth:`~pgobserve.hub.hub.Hub.watch_progress` reports its progress.
        """
        for subject in [*self._lookups]:
            if self._is_open(subject):
                return subject
            del self._lookups[subject]
        if not self._noted:
            # Only now, since reverse look-ups have made more reads due.
            self._note_loads()
        for watch in [*self._loads]:
            if self._is_waited_for(watch):
                return self._loads[watch].of
            del self._loads[watch]
        return None

    def _note_loads(self) -> None:
        self._noted = True
        for watch in self._watches:
            self._note_load(watch)

    def _note_trace(self, subject: TableDependencies) -> bool:
        kind = self._hub.kind(subject)
        if kind is None or not (kind.lookups or kind.open):
            return False
        self._lookups[subject] = _Goal(subject, kind.batch + bool(kind.lookups), kind.setbacks)
        return True

    def _is_open(self, subject: TableDependencies) -> bool:
        kind, goal = self._hub.kind(subject), self._lookups[subject]
        if kind is None:
            return False
        if kind.setbacks != goal.setbacks:
            return self._note_trace(subject)
        if not (kind.lookups or kind.open):
            return False
        return kind.batch < goal.number or any(number <= goal.number for number in kind.open)

    def _note_load(self, watch: AnyWatch) -> bool:
        place = self._hub.place(watch)
        if place is None:
            return False
        thing = place[1]
        if isinstance(thing, RowState):
            due = self._hub.is_dirty(thing) + thing.loading
            goal = _Goal(thing, thing.reads + due)
        else:
            due = bool(thing.loading or thing.needs_reading)
            goal = _Goal(thing, thing.goal, thing.setbacks)
        if due:
            self._loads[watch] = goal
        return bool(due)

    def _is_waited_for(self, watch: AnyWatch) -> bool:
        place, goal = self._hub.place(watch), self._loads[watch]
        if place is None:
            return False
        thing = place[1]
        if thing is not goal.of:
            return self._note_load(watch)  # it has moved to another list or lane
        if isinstance(thing, RowState):
            idle = not (thing.loading or self._hub.is_dirty(thing))
            return not idle and thing.reads < goal.number
        if thing.setbacks != goal.setbacks:
            return self._note_load(watch)
        idle = not (thing.loading or thing.needs_reading)
        return not idle and thing.read < goal.number


def untold(
    failing: Iterable[RowState | ListRow | ListState], hub: Hub, watches: Collection[AnyWatch]
) -> Sequence[RowState | ListState]:
    """
    Return the rows and lists whose failed load left one of the subscriptions without any frame.

    A client that holds a copy of the row has received an error frame. Another one has received
    nothing, and will receive the row once it can be read.

    Args:
        failing: The rows and lists whose query failed.
    """
    places = [(watch, place[1]) for watch in watches if (place := hub.place(watch)) is not None]
    found: dict[RowState | ListState, None] = {}
    for each in failing:
        for watch, thing in places:
            if isinstance(watch, RowSubscription):
                if thing is each and watch.shown == NOTHING:
                    found[thing] = None
            elif thing is getattr(each, "roster", None):
                key = each.key  # type: ignore[union-attr]  # an entry
                shown = thing.shown.get(key, NOTHING)
                if watch.special.get(key, shown) == NOTHING:
                    found[thing] = None
    return [*found]
