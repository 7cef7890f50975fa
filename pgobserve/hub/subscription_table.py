"""The subscriptions, and the rows and lists that they share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pgobserve.hub.list_state import ListState
from pgobserve.hub.subscriptions import ListSubscription
from pgobserve.hub.table_dependencies import (
    DependencyIndex,
    RowState,
    SubjectState,
    TableDependencies,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

    from pgobserve.hub.snapshot import Stale
    from pgobserve.hub.subscriptions import RowSubscription, Subscription


class SubscriptionTable:
    """
    The subscriptions, their lanes, and which reads are due for them.

    A new subscription makes a read due. :class:`~pgobserve.hub.hub.Hub` adds reads for changes, and hands
    them out.
    """

    def __init__(self) -> None:
        self._kinds: dict[TableDependencies, SubjectState] = {}
        self._index = DependencyIndex()
        self._watches: dict[RowSubscription, RowState] = {}
        self._lists: dict[ListSubscription, tuple[TableDependencies, ListState]] = {}
        # Due reads: rows, lists, and reverse look-ups.
        self._dirty: dict[RowState, Stale] = {}
        self._stale: dict[ListState, None] = {}
        self._lookups: dict[TableDependencies, None] = {}
        # Callbacks of `settled`; mostly there are none.
        self._awaited: dict[Hashable, list[Callable[[], object]]] = {}
        # Subscriptions in lanes of their own; mostly there are none.
        self._lanes: dict[Hashable, dict[Subscription, None]] = {}

    def __len__(self) -> int:
        """Return the number of subscriptions."""
        return len(self._watches) + len(self._lists)

    @property
    def empty(self) -> bool:
        """Whether no subscription has left anything."""
        remembered = (self._kinds, self._dirty, self._stale, self._watches, self._lists)
        return not any((*remembered, self._lookups, self._awaited, self.tables()))

    @property
    def dirty(self) -> int:
        """The number of due reads: of rows, lists and reverse look-ups."""
        return len(self._dirty) + len(self._stale) + len(self._lookups)

    @property
    def busy(self) -> bool:
        """Whether any read is due or under way."""
        return (
            bool(self.dirty)
            or any(row.loading for row in set(self._watches.values()))
            or any(roster.loading for _, roster in self._lists.values())
            or any(kind.resolving for kind in self._kinds.values())
        )

    # Subscriptions

    def add(self, watch: RowSubscription, subject: TableDependencies) -> None:
        """Start a subscription to a row, whose read is due even if it was just read for another one."""
        rows = self._kind(subject).rows
        row = rows.get(watch.key)
        if row is None:
            row = rows[watch.key] = RowState(subject, watch.key)
        row.watches[watch] = None
        self._watches[watch] = row
        self._dirty[row] = None

    def add_list(
        self,
        watch: ListSubscription,
        subject: TableDependencies,
        identity: Hashable,
        *,
        single: bool = False,
    ) -> None:
        """
        Start a subscription to a list, whose read is due; or move a subscription to it.

        Args:
            subject: The tables that the list's rows depend on.
            identity: Distinguishes the list from others with the same dependencies.
            single: See :class:`ListState`.
        """
        rosters = self._kind(subject).rosters
        roster = rosters.get(identity)
        if roster is None:
            roster = rosters[identity] = ListState(identity, single=single, lane=subject.lane)
        roster.newcomers[watch] = None
        self._lists[watch] = (subject, roster)
        self._stale[roster] = None

    def discard(self, watch: Subscription) -> None:
        """End a subscription. An unknown subscription is no error."""
        watch.active = False
        if self._lanes:
            self._leave_lane(watch)
        if isinstance(watch, ListSubscription):
            watch.send_queue.sweep()
            self._leave(watch)
            return
        watch.send_queue.forget(watch)
        self._leave_row(watch)

    def _leave_row(self, watch: RowSubscription) -> RowState | None:
        row = self._watches.pop(watch, None)
        if row is None:
            return None
        del row.watches[watch]
        if not row.watches:
            del self._kinds[row.subject].rows[row.key]
            self._dirty.pop(row, None)
            self._drop_if_empty(row.subject)
        self._progressed(row)
        return row

    def rename(self, row: RowState, key: Hashable) -> None:
        """Move the subscriptions of a row to the key that the database has for it; a read of it is due."""
        for watch in row.audience:
            self._leave_row(watch)
            watch.key = key
            self._add_again(watch, row.subject, row)

    def _add_again(
        self, watch: RowSubscription, subject: TableDependencies, before: RowState
    ) -> None:
        self.add(watch, subject)
        # A consumer with custom delivery would take a lower number for a change.
        after = self._watches[watch]
        after.touched = max(after.touched, before.touched)

    def move_all(self, places: Mapping[Subscription, tuple[TableDependencies, Hashable]]) -> None:
        """Move subscriptions that see other rows now to their lists, with what their clients hold."""
        for watch, (subject, identity) in places.items():
            if isinstance(watch, ListSubscription) and watch.roster is not None:
                lane = self._lists[watch][0].lane
                if lane is not None and subject.lane is None:
                    subject = replace(subject, lane=lane)
                self._move(watch, subject, identity)

    def _move(
        self, watch: ListSubscription, subject: TableDependencies, identity: Hashable
    ) -> None:
        before = self._lists[watch][1]
        if watch.roster is not None:
            watch.has, watch.special = before.holdings(watch), {}
        self._leave(watch)
        self.add_list(watch, subject, identity, single=before.single)

    def _leave(self, watch: ListSubscription) -> None:
        found = self._lists.pop(watch, None)
        if found is None:
            return
        subject, roster = found
        roster.leave(watch)
        if not len(roster):
            del self._kinds[subject].rosters[roster.identity]
            self._stale.pop(roster, None)
            self._drop_if_empty(subject)
        self._progressed(roster)

    # Lanes

    def isolate(self, watches: Iterable[Subscription], lane: Hashable) -> None:
        """
        Move subscriptions to a lane, whose reads are apart from all others.

        Args:
            watches: The subscriptions. Ended ones are ignored.
            lane: The lane; None for the common one.
        """
        for watch in watches:
            if isinstance(watch, ListSubscription):
                isolated = self._isolate_list(watch, lane)
            else:
                isolated = self._isolate_row(watch, lane)
            if isolated:
                self._leave_lane(watch)
                if lane is not None:
                    self._lanes.setdefault(lane, {})[watch] = None

    def _isolate_row(self, watch: RowSubscription, lane: Hashable) -> bool:
        before = self._leave_row(watch)
        if before is None:
            return False
        self._add_again(watch, replace(before.subject, lane=lane), before)
        return True

    def _isolate_list(self, watch: ListSubscription, lane: Hashable) -> bool:
        found = self._lists.get(watch)
        if found is None:
            return False
        self._move(watch, replace(found[0], lane=lane), found[1].identity)
        return True

    def _leave_lane(self, watch: Subscription) -> None:
        for lane, watches in [*self._lanes.items()]:
            if watch in watches:
                del watches[watch]
                if not watches:
                    del self._lanes[lane]

    def lane(self, lane: Hashable) -> tuple[Subscription, ...]:
        """Return the subscriptions in a lane."""
        return tuple(self._lanes.get(lane, ()))

    def clear_lanes(self) -> None:
        """Move all subscriptions to the common lane."""
        for watches in [*self._lanes.values()]:
            self.isolate([*watches], None)

    # Progress, for `settled`

    def place(self, watch: Subscription) -> tuple[TableDependencies, RowState | ListState] | None:
        """Return the dependencies of a subscription, and its row or list; None if it has ended."""
        if isinstance(watch, ListSubscription):
            return self._lists.get(watch)
        row = self._watches.get(watch)
        return None if row is None else (row.subject, row)

    def kind(self, subject: TableDependencies) -> SubjectState | None:
        """Return the rows and lists with the same dependencies; None if there are none."""
        return self._kinds.get(subject)

    def is_dirty(self, row: RowState) -> bool:
        """Return whether a read of a row is due."""
        return row in self._dirty

    def watch_progress(self, thing: Hashable, callback: Callable[[], object]) -> None:
        """
        Call a function once, at the next progress of a row, a list or a subject.

        Progress is the end of a load, of a reverse look-up or of a subscription. The call precedes the
        delivery of the result, so the function must only schedule work.
        """
        self._awaited.setdefault(thing, []).append(callback)

    def forget_progress(self, thing: Hashable, callback: Callable[[], object]) -> None:
        """Undo :meth:`watch_progress`. A function that was already called is no error."""
        callbacks = self._awaited.get(thing, [])
        if callback in callbacks:
            callbacks.remove(callback)
            if not callbacks:
                del self._awaited[thing]

    def _progressed(self, thing: Hashable) -> None:
        for callback in self._awaited.pop(thing, ()):
            callback()

    # Tables

    def tables(self) -> list[str]:
        """Return the tables whose changes concern a subscription."""
        return self._index.tables()

    def watches_table(self, table: str) -> bool:
        """Return whether a change of a table can concern a subscription."""
        return table in self._index

    def spread(self, table: str) -> tuple[int, int]:
        """Return how many rows and how many lists a change of a table may concern."""
        index, kinds, rows, lists = self._index, self._kinds, 0, 0
        # Called for each change: plain loops, since there is mostly one subject.
        for subjects in (index.keyed.get(table, ()), index.full_refresh.get(table, ())):
            for subject in subjects:
                kind = kinds[subject]
                rows += len(kind.rows)
                lists += len(kind.rosters)
        for subject, _ in index.linked.get(table, ()):
            kind = kinds[subject]
            rows += len(kind.rows)
            lists += len(kind.rosters)
        return rows, lists

    def routes(self) -> dict[str, set[str]]:
        """Return the columns whose values resolve to rows of other tables, by table."""
        return self._index.routes()

    def _kind(self, subject: TableDependencies) -> SubjectState:
        kind = self._kinds.get(subject)
        if kind is None:
            kind = self._kinds[subject] = SubjectState()
            self._index.add(subject)
        return kind

    def _drop_if_empty(self, subject: TableDependencies) -> None:
        kind = self._kinds[subject]
        if not kind.rows and not kind.rosters:
            del self._kinds[subject]
            self._lookups.pop(subject, None)
            self._index.remove(subject)
            self._progressed(subject)
