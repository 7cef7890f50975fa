"""
From a change to the rows that somebody watches.

Pure Python, no I/O; publishing never awaits. Rows that need reading gather here while a load runs,
so that batches grow with the load and an idle feed pays one query of latency.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

    from pgobserve.feed.mailbox import Watch
    from pgobserve.feed.snapshot import Snapshot

#: Transactions remembered for a dirty row, to find out that a load saw them all.
MAX_XIDS = 8


@dataclass(frozen=True, slots=True)
class Subject:
    """
    What kind of rows a subscription is about; for the ORM a model.

    Attributes:
        tables: Tables in which a row of the same key concerns it; the first is its own.
        wide: Tables of which any change concerns all of its rows.
    """

    tables: tuple[str, ...]
    wide: tuple[str, ...] = ()


class Row:
    """
    A row that somebody watches.

    Attributes:
        subject: What kind of row.
        key: Its key.
        watches: The subscriptions; a dictionary for its order.
        snapshot: Of its last load.
        loading: It is being read now, and must not be read by a second load at a time: the older
            of two could end last.
    """

    __slots__ = ("key", "loading", "snapshot", "subject", "watches")

    def __init__(self, subject: Subject, key: Hashable) -> None:
        self.subject = subject
        self.key = key
        self.watches: dict[Watch, None] = {}
        self.snapshot: Snapshot | None = None
        self.loading = False


class Hub:
    """Who watches what, and what of it needs reading."""

    def __init__(self) -> None:
        self._rows: dict[Subject, dict[Hashable, Row]] = {}
        self._index: dict[str, dict[Subject, None]] = {}
        self._wide: dict[str, dict[Subject, None]] = {}
        # Per row the transactions that made it dirty; None: it must be read whatever was seen.
        self._dirty: dict[Row, tuple[int, ...] | None] = {}
        self._watches: dict[Watch, Row] = {}

    def __len__(self) -> int:
        """Return the number of subscriptions."""
        return len(self._watches)

    @property
    def dirty(self) -> int:
        """Rows waiting to be read."""
        return len(self._dirty)

    @property
    def busy(self) -> bool:
        """Whether rows are waiting to be read, or are being read."""
        return bool(self._dirty) or any(row.loading for row in set(self._watches.values()))

    def add(self, watch: Watch, subject: Subject) -> None:
        """Begin a subscription: its row is read, even if it has just been for somebody else."""
        rows = self._rows.get(subject)
        if rows is None:
            rows = self._add_subject(subject)
        row = rows.get(watch.key)
        if row is None:
            row = rows[watch.key] = Row(subject, watch.key)
        row.watches[watch] = None
        self._watches[watch] = row
        self._dirty[row] = None

    def discard(self, watch: Watch) -> None:
        """End a subscription; an unknown one is no error."""
        watch.active = False
        watch.mailbox.forget(watch)
        row = self._watches.pop(watch, None)
        if row is None:
            return
        del row.watches[watch]
        if not row.watches:
            self._drop(row)

    def publish(self, table: str, xid: int, keys: Iterable[Hashable] | None) -> None:
        """
        Mark the rows that a change concerns.

        A change that is visible in the snapshot of a row's last load is old news.

        Args:
            table: The table's name.
            xid: The writing transaction.
            keys: The rows' keys; None for all rows of the table.
        """
        for row in self._concerned(table, keys):
            # While a row is read its snapshot is out of date: of another server even, restored
            # from an older state, whose transactions seem long seen. `take` judges by the new one.
            if row.loading or row.snapshot is None or not row.snapshot.sees(xid):
                known = self._dirty.get(row, ())
                self._dirty[row] = (
                    None if known is None or len(known) >= MAX_XIDS else (*known, xid)
                )

    def publish_gap(self) -> None:
        """Mark everything: changes may have passed unseen."""
        for rows in self._rows.values():
            self._dirty.update(dict.fromkeys(rows.values()))

    def take(self, limit: int) -> list[Row]:
        """Return at most ``limit`` rows to read now, and note them as being read."""
        rows: list[Row] = []
        seen: list[Row] = []
        # One look at each row until there are enough: after a gap there may be very many.
        for row, xids in self._dirty.items():
            if len(rows) >= limit:
                break
            if not row.loading:
                (seen if _is_old_news(row, xids) else rows).append(row)
        for row in chain(seen, rows):
            del self._dirty[row]
        for row in rows:
            row.loading = True
        return rows

    def done(self, row: Row, snapshot: Snapshot | None) -> None:
        """Note that a row's load has ended; without a snapshot it failed and must be repeated."""
        row.loading = False
        if snapshot is not None:
            row.snapshot = snapshot
        else:
            self.mark(row)

    def mark(self, row: Row) -> None:
        """Have a row read again, if anybody still watches it."""
        if row.watches:
            self._dirty[row] = None

    def tables(self) -> list[str]:
        """Return the tables whose changes concern anybody."""
        return list({**self._index, **self._wide})

    def watches_table(self, table: str) -> bool:
        """Tell whether a change of the table can concern anybody."""
        return table in self._index or table in self._wide

    def _concerned(self, table: str, keys: Iterable[Hashable] | None) -> Iterator[Row]:
        for subject in self._wide.get(table, ()):
            yield from self._rows[subject].values()
        subjects = [self._rows[subject] for subject in self._index.get(table, ())]
        if keys is None:
            yield from chain.from_iterable(rows.values() for rows in subjects)
            return
        for key in keys:
            for rows in subjects:
                if key in rows:
                    yield rows[key]

    def _add_subject(self, subject: Subject) -> dict[Hashable, Row]:
        for table in subject.tables:
            self._index.setdefault(table, {})[subject] = None
        for table in subject.wide:
            self._wide.setdefault(table, {})[subject] = None
        rows: dict[Hashable, Row] = {}
        self._rows[subject] = rows
        return rows

    def _drop(self, row: Row) -> None:
        rows = self._rows[row.subject]
        del rows[row.key]
        self._dirty.pop(row, None)
        if rows:
            return
        del self._rows[row.subject]
        for index, tables in ((self._index, row.subject.tables), (self._wide, row.subject.wide)):
            for table in tables:
                del index[table][row.subject]
                if not index[table]:
                    del index[table]


def _is_old_news(row: Row, xids: tuple[int, ...] | None) -> bool:
    """Tell whether a load that ended meanwhile had seen all that made the row dirty."""
    snapshot = row.snapshot
    return snapshot is not None and xids is not None and all(map(snapshot.sees, xids))
