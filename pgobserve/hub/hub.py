"""
From a change to the rows and lists that must be read.

Pure Python, no I/O; publishing never awaits. Due reads gather here during a load, so that batches grow with
the load and an idle feed pays one query of latency.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from pgobserve.hub.list_state import ListState
from pgobserve.hub.snapshot import FRESH, is_old_news, with_xid
from pgobserve.hub.subscription_table import SubscriptionTable
from pgobserve.hub.subscriptions import ListItemUpdate
from pgobserve.hub.table_dependencies import ReverseLookup, RowState, TableDependencies

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from pgobserve.hub.list_state import ListRow
    from pgobserve.hub.snapshot import Snapshot
    from pgobserve.hub.subscriptions import Deliverable

__all__ = ["Hub", "ReverseLookup", "RowState", "TableDependencies"]


#: Values of one reverse look-up. Beyond it, all rows of its subject are read.
MAX_VALUES: Final = 20_000


class Hub(SubscriptionTable):
    """The subscriptions, and the reads that changes make due for them."""

    # Changes

    def publish(
        self,
        table: str,
        xid: int | None,
        keys: Sequence[Hashable] | None,
        routes: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        """
        Make the reads due that a change calls for.

        A change that is visible in the snapshot of a row's last load is ignored.

        Args:
            xid: The writing transaction. None for several, which no snapshot covers.
            keys: The rows' keys; None for all rows of the table.
            routes: Values by column, which resolve to rows of other tables.
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
                if len(waiting) > MAX_VALUES:
                    del self._kinds[subject].lookups[path]
                    self._mark_all(subject, None)

    def publish_gap(self) -> tuple[int, int]:
        """Make all reads due after a gap in the changes; return the number of rows and of lists."""
        for kind in self._kinds.values():
            for row in kind.rows.values():
                row.touched += 1
                self._dirty[row] = None
            for roster in kind.rosters.values():
                roster.mark_whole(None)
                self._stale[roster] = None
        kinds = self._kinds.values()
        return sum(len(kind.rows) for kind in kinds), sum(len(kind.rosters) for kind in kinds)

    # Loads

    def take(self, limit: int, lane: Hashable = None) -> list[RowState | ListRow]:
        """Start a load: return up to ``limit`` rows, and as many rows of lists."""
        return [*self._take_rows(limit, lane), *self._take_entries(limit, lane)]

    def take_lists(
        self, batch: int, *, few: int = 0, limit: int = 1, lane: Hashable = None
    ) -> list[ListState]:
        """
        Start a load of whole lists, and return them.

        Args:
            batch: Number of changed rows above which a read of the whole list may be less work.
            few: Maximum number of rows in a list that is read together with others.
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
        """Start the due reverse look-ups, and return them."""
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
        """Make the reads due that a reverse look-up has found. None stands for all rows."""
        self._close(lookup)
        if self._kinds.get(lookup.subject) is not lookup.kind:
            return  # all of its subscriptions have ended; later ones have read the rows since
        # Changes of other tables: the rows' snapshots do not cover them.
        if keys is None:
            self._mark_all(lookup.subject, None)
        else:
            self._mark(lookup.subject, keys, None)

    def give_back(self, lookup: ReverseLookup) -> None:
        """Repeat a reverse look-up that failed."""
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
        """Record that the load of a row has ended; without a snapshot it failed and is repeated."""
        row.loading = False
        if snapshot is not None:
            row.snapshot = snapshot
            row.reads += 1
            if self._awaited:
                self._progressed(row)
        else:
            self.mark(row)

    def done_list(self, roster: ListState) -> None:
        """Record that a load of a list has ended. Another one may be due."""
        if len(roster) and roster.needs_reading:
            self._stale[roster] = None
        if self._awaited:
            self._progressed(roster)

    def mark(self, thing: RowState | ListRow | ListState) -> None:
        """Make another read of a row or a list due, if it still has subscriptions."""
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
        """Make a read due for a client whose frame waited: its permissions may have changed."""
        if isinstance(item, ListItemUpdate):
            if item.watch.roster is not None:
                roster = self._lists[item.watch][1]
                roster.mark([roster.names.key_of(item.key)], None)
                self._note_stale(roster)
        elif item in self._watches:
            self._dirty[self._watches[item]] = None

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
            # During a load the row's snapshot is out of date. It may even be of another server, restored
            # from an older state, whose transactions look like old ones. `take` uses the new snapshot.
            elif row.loading or row.snapshot is None or not row.snapshot.sees(xid):
                self._dirty[row] = with_xid(self._dirty.get(row, FRESH), xid)

    def _take_rows(self, limit: int, lane: Hashable) -> list[RowState]:
        rows: list[RowState] = []
        seen: list[RowState] = []
        mixed = bool(self._lanes)
        # Rows are visited once, until there are enough: after a gap there may be very many.
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
            # `done_list` makes it due again if it has more rows to read.
            del self._stale[roster]
            if not roster.loading:
                self.done_list(roster)
        return entries
