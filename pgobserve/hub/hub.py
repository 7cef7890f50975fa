"""
From a change to the rows and lists that somebody watches.

Pure Python, no I/O; publishing never awaits. What needs reading gathers here while a load runs,
so that batches grow with the load and an idle feed pays one query of latency.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from pgobserve.hub.dependency_index import DependencyIndex
from pgobserve.hub.list_state import ListState
from pgobserve.hub.list_subscription import ListItemUpdate, ListSubscription
from pgobserve.hub.row_subscription import RowSubscription
from pgobserve.hub.snapshot import FRESH, is_old_news, with_xid
from pgobserve.hub.table_dependencies import (
    ReverseLookup,
    RowState,
    SubjectState,
    TableDependencies,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

    from pgobserve.hub.list_state import ListRow
    from pgobserve.hub.list_subscription import Subscription
    from pgobserve.hub.row_subscription import Deliverable
    from pgobserve.hub.snapshot import Snapshot, Stale

__all__ = ["Hub", "ReverseLookup", "RowState", "TableDependencies"]


#: Values to be led back by one way; beyond it all rows are read.
MOST_VALUES: Final = 20_000


class Hub:
    """Who watches what, and what of it needs reading."""

    def __init__(self) -> None:
        self._kinds: dict[TableDependencies, SubjectState] = {}
        self._index = DependencyIndex()
        self._dirty: dict[RowState, Stale] = {}
        self._stale: dict[ListState, None] = {}
        self._lookups: dict[TableDependencies, None] = {}
        self._watches: dict[RowSubscription, RowState] = {}
        self._lists: dict[ListSubscription, tuple[TableDependencies, ListState]] = {}
        # What `settled` waits for; mostly nothing.
        self._awaited: dict[Hashable, list[Callable[[], object]]] = {}
        # Subscriptions in lanes of their own; mostly there are none.
        self._lanes: dict[Hashable, dict[Subscription, None]] = {}

    def __len__(self) -> int:
        """Return the number of subscriptions."""
        return len(self._watches) + len(self._lists)

    @property
    def empty(self) -> bool:
        """Whether nothing is remembered of anybody."""
        remembered = (self._kinds, self._dirty, self._stale, self._watches, self._lists)
        return not any((*remembered, self._lookups, self._awaited, self.tables()))

    @property
    def dirty(self) -> int:
        """Rows and lists waiting to be read, and changes to be led back to such."""
        return len(self._dirty) + len(self._stale) + len(self._lookups)

    @property
    def busy(self) -> bool:
        """Whether anything is waiting to be read, or is being read."""
        return (
            bool(self.dirty)
            or any(row.loading for row in set(self._watches.values()))
            or any(roster.loading for _, roster in self._lists.values())
            or any(kind.resolving for kind in self._kinds.values())
        )

    # Subscriptions

    def add(self, watch: RowSubscription, subject: TableDependencies) -> None:
        """Begin a subscription: its row is read, even if it has just been for somebody else."""
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
        Begin a subscription to a list, which is read; or let one go on with another list.

        Args:
            watch: The subscription.
            subject: What kind of rows are on it.
            identity: What tells the list from others of these rows.
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
        """End a subscription; an unknown one is no error."""
        watch.active = False
        if self._lanes:
            self._leave_lane(watch)
        if isinstance(watch, ListSubscription):
            watch.mailbox.sweep()
            self._leave(watch)
            return
        watch.mailbox.forget(watch)
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

    def move_all(self, places: Mapping[Subscription, tuple[TableDependencies, Hashable]]) -> None:
        """Let those who see other rows from now on go on with their lists, from what they have."""
        for watch, (subject, identity) in places.items():
            if (
                isinstance(watch, ListSubscription)
                and watch in self._lists
                and watch.roster is not None
            ):
                self._move(watch, subject, identity)

    def _move(
        self, watch: ListSubscription, subject: TableDependencies, identity: Hashable
    ) -> None:
        before, roster = self._lists[watch]
        if before.lane is not None and subject.lane is None:
            subject = replace(subject, lane=before.lane)
        watch.has = roster.holdings(watch)
        watch.special = {}
        self._leave(watch)
        self.add_list(watch, subject, identity, single=roster.single)

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
        Have subscriptions read in a lane, apart from all that is not in it.

        Args:
            watches: The subscriptions; those that have ended are left out.
            lane: Where; None for where most are read.
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
        self.add(watch, replace(before.subject, lane=lane))
        # A consumer that shows the row by itself would take another number for a change.
        after = self._watches[watch]
        after.touched = max(after.touched, before.touched)
        return True

    def _isolate_list(self, watch: ListSubscription, lane: Hashable) -> bool:
        found = self._lists.get(watch)
        if found is None:
            return False
        subject, roster = replace(found[0], lane=lane), found[1]
        if watch.roster is not None:
            watch.has, watch.special = roster.holdings(watch), {}
        self._leave(watch)
        self.add_list(watch, subject, roster.identity, single=roster.single)
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
        """Have all subscriptions read where most are."""
        for watches in [*self._lanes.values()]:
            self.isolate([*watches], None)

    # Changes

    def publish(
        self,
        table: str,
        xid: int | None,
        keys: Sequence[Hashable] | None,
        routes: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        """
        Mark what a change concerns.

        A change that is visible in the snapshot of a row's last load is old news.

        Args:
            table: The table's name.
            xid: The writing transaction; None for several, of which no snapshot tells anything.
            keys: The rows' keys; None for all rows of the table.
            routes: Values, by column, that lead back to rows which these belong to.
        """
        for subject in self._index.full_refresh.get(table, ()):
            self._mark_all(subject, xid)
        for subject in self._index.keyed.get(table, ()):
            if keys is None:
                self._mark_all(subject, xid)
            else:
                self._mark(subject, keys, xid)
        for subject, path in self._index.linked.get(table, ()):
            column = path.column
            values = keys if column is None else (routes or {}).get(column)
            if keys is None or values is None:
                self._mark_all(subject, xid)
            elif values:
                waiting = self._kinds[subject].lookups.setdefault(path, {})
                waiting.update(dict.fromkeys(values))
                self._lookups[subject] = None
                if len(waiting) > MOST_VALUES:
                    del self._kinds[subject].lookups[path]
                    self._mark_all(subject, None)

    def publish_gap(self) -> tuple[int, int]:
        """Mark everything: changes may have passed unseen. Return how many rows and lists that are."""
        for kind in self._kinds.values():
            for row in kind.rows.values():
                row.touched += 1
                self._dirty[row] = None
            for roster in kind.rosters.values():
                roster.mark_whole(None)
                self._stale[roster] = None
        kinds = self._kinds.values()
        return sum(len(kind.rows) for kind in kinds), sum(len(kind.rosters) for kind in kinds)

    # What to read

    def take(self, limit: int, lane: Hashable = None) -> list[RowState | ListRow]:
        """Return at most ``limit`` rows, and as many of lists, to read now; they are being read."""
        return [*self._take_rows(limit, lane), *self._take_entries(limit, lane)]

    def take_lists(
        self, batch: int, *, few: int = 0, limit: int = 1, lane: Hashable = None
    ) -> list[ListState]:
        """
        Return lists to read as a whole, and note them as being read.

        Args:
            batch: Rows from which on to read the whole list may be less work.
            few: Rows that lists may have which are read together.
            limit: Lists that are read together at most.
            lane: Of which lane.
        """
        taken: list[ListState] = []
        for roster in self._stale:
            if roster.lane != lane:
                continue
            alone = roster.alone or len(roster.shown) > few
            if (alone and taken) or roster.loading or not roster.needs_whole(batch):
                continue
            taken.append(roster)
            if alone or len(taken) >= limit:
                break
        for roster in taken:
            del self._stale[roster]
            roster.take_whole()
        return taken

    def take_lookups(self) -> list[ReverseLookup]:
        """Return the changes that are to be led back."""
        lookups = []
        for subject in self._lookups:
            kind = self._kinds[subject]
            among = None if kind.rosters else list(kind.rows)
            kind.batch += 1
            lookups += [
                ReverseLookup(subject, path, list(v), among, kind, kind.batch)
                for path, v in kind.lookups.items()
            ]
            kind.resolving += len(kind.lookups)
            if kind.lookups:
                kind.open[kind.batch] = len(kind.lookups)
            kind.lookups = {}
            self._progressed(subject)
        self._lookups.clear()
        return lookups

    def resolved(self, lookup: ReverseLookup, keys: Sequence[Hashable] | None) -> None:
        """Mark the rows that changes were led back to; None: all rows, there are too many."""
        self._close(lookup)
        if self._kinds.get(lookup.subject) is not lookup.kind:
            return  # nobody watches them any more; who does since has read them since
        # Made stale by what is not their own: their snapshots tell nothing of it.
        if keys is None:
            self._mark_all(lookup.subject, None)
        else:
            self._mark(lookup.subject, keys, None)

    def give_back(self, lookup: ReverseLookup) -> None:
        """Have changes led back again."""
        kind = lookup.kind
        kind.setbacks += 1
        self._close(lookup)
        if self._kinds.get(lookup.subject) is kind:
            kind.lookups.setdefault(lookup.path, {}).update(dict.fromkeys(lookup.values))
            self._lookups[lookup.subject] = None

    def _close(self, lookup: ReverseLookup) -> None:
        kind = lookup.kind
        kind.resolving -= 1
        left = kind.open.get(lookup.batch, 0) - 1
        if left > 0:
            kind.open[lookup.batch] = left
        else:
            kind.open.pop(lookup.batch, None)
        self._progressed(lookup.subject)

    def done(self, row: RowState, snapshot: Snapshot | None) -> None:
        """Note that a row's load has ended; without a snapshot it failed and must be repeated."""
        row.loading = False
        if snapshot is not None:
            row.snapshot = snapshot
            row.reads += 1
            if self._awaited:
                self._progressed(row)
        else:
            self.mark(row)

    def done_list(self, roster: ListState) -> None:
        """Note that a load of a roster has ended: it may have more to be read."""
        if len(roster) and roster.needs_reading:
            self._stale[roster] = None
        if self._awaited:
            self._progressed(roster)

    def mark(self, thing: RowState | ListRow | ListState) -> None:
        """Have a row or a list read again, if anybody still watches it."""
        if not thing.wanted:
            return
        if isinstance(thing, RowState):
            self._dirty[thing] = None
        elif isinstance(thing, ListState):
            thing.mark_whole(None)
            self._stale[thing] = None
        else:
            thing.roster.mark([thing.key], None)
            self._stale[thing.roster] = None

    def read_again(self, item: Deliverable) -> None:
        """Have a row read for a client that has not received it yet: what it may see may differ."""
        if isinstance(item, ListItemUpdate):
            if item.watch.roster is not None:
                roster = self._lists[item.watch][1]
                roster.mark([roster.names.key_of(item.key)], None)
                self._note_stale(roster)
        elif isinstance(item, RowSubscription) and item in self._watches:
            self._dirty[self._watches[item]] = None

    # Progress, for `settled`

    def place(self, watch: Subscription) -> tuple[TableDependencies, RowState | ListState] | None:
        """Return the subject of a subscription, and its row or list; None if it has ended."""
        if isinstance(watch, ListSubscription):
            return self._lists.get(watch)
        row = self._watches.get(watch)
        return None if row is None else (row.subject, row)

    def kind(self, subject: TableDependencies) -> SubjectState | None:
        """Return what is watched of a subject; None if nothing is."""
        return self._kinds.get(subject)

    def is_dirty(self, row: RowState) -> bool:
        """Return whether a row waits to be read."""
        return row in self._dirty

    def watch_progress(self, thing: Hashable, callback: Callable[[], object]) -> None:
        """
        Have a function called once, at the next progress of a row, a list or a subject.

        Progress is the end of a load or of a reverse look-up, and the end of a subscription. The
        function is called before the result is delivered, so it must only schedule work.
        """
        self._awaited.setdefault(thing, []).append(callback)

    def forget_progress(self, thing: Hashable, callback: Callable[[], object]) -> None:
        """Undo :meth:`watch_progress`; a function that was called already is no error."""
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
        """Return the tables whose changes concern anybody."""
        return self._index.tables()

    def watches_table(self, table: str) -> bool:
        """Tell whether a change of the table can concern anybody."""
        return table in self._index

    def spread(self, table: str) -> tuple[int, int]:
        """Return how many rows and how many lists a change of the table may concern."""
        index, kinds, rows, lists = self._index, self._kinds, 0, 0
        # For each change that is heard: plain loops, for mostly there is one subject.
        for subject in index.keyed.get(table, ()):
            kind = kinds[subject]
            rows += len(kind.rows)
            lists += len(kind.rosters)
        for subject in index.full_refresh.get(table, ()):
            kind = kinds[subject]
            rows += len(kind.rows)
            lists += len(kind.rosters)
        for subject, _ in index.linked.get(table, ()):
            kind = kinds[subject]
            rows += len(kind.rows)
            lists += len(kind.rosters)
        return rows, lists

    def routes(self) -> dict[str, set[str]]:
        """Return the columns whose values lead back, by table."""
        return self._index.routes()

    def _mark(self, subject: TableDependencies, keys: Iterable[Hashable], xid: int | None) -> None:
        kind = self._kinds[subject]
        if kind.rows:
            self._mark_rows((kind.rows[key] for key in keys if key in kind.rows), xid)
        for roster in kind.rosters.values():
            roster.mark(keys, xid)
            self._note_stale(roster)

    def _mark_all(self, subject: TableDependencies, xid: int | None) -> None:
        kind = self._kinds[subject]
        self._mark_rows(kind.rows.values(), xid)
        for row in kind.rows.values():
            row.touched += 1
        for roster in kind.rosters.values():
            roster.mark_whole(xid)
            self._note_stale(roster)

    def _note_stale(self, roster: ListState) -> None:
        if roster.needs_reading:
            self._stale[roster] = None

    def _mark_rows(self, rows: Iterable[RowState], xid: int | None) -> None:
        for row in rows:
            if xid is None:
                row.touched += 1
                self._dirty[row] = None
            # While a row is read its snapshot is out of date: of another server even, restored
            # from an older state, whose transactions seem long seen. `take` judges by the new one.
            elif row.loading or row.snapshot is None or not row.snapshot.sees(xid):
                self._dirty[row] = with_xid(self._dirty.get(row, FRESH), xid)

    def _take_rows(self, limit: int, lane: Hashable) -> list[RowState]:
        rows: list[RowState] = []
        seen: list[RowState] = []
        mixed = bool(self._lanes)
        # One look at each row until there are enough: after a gap there may be very many.
        for row, xids in self._dirty.items():
            if len(rows) >= limit:
                break
            if not row.loading and not (mixed and row.subject.lane != lane):
                (seen if is_old_news(row.snapshot, xids) else rows).append(row)
        for row in chain(seen, rows):
            del self._dirty[row]
        for row in seen:
            row.reads += 1
            self._progressed(row)
        for row in rows:
            row.loading = True
        return rows

    def _take_entries(self, limit: int, lane: Hashable) -> list[ListRow]:
        entries: list[ListRow] = []
        taken: list[ListState] = []
        for roster in self._stale:
            if len(entries) >= limit:
                break
            if roster.loading or roster.lane != lane or roster.needs_whole(limit):
                continue
            entries += roster.take(limit - len(entries))
            taken.append(roster)
        for roster in taken:
            # One that has more to be read, or will have, comes back when this is done.
            del self._stale[roster]
            if not roster.loading:
                self.done_list(roster)
        return entries

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
