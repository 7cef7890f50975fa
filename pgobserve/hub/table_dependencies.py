"""The tables that subscriptions depend on, and the rows and lists with the same dependencies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from pgobserve.hub.list_state import ListState
    from pgobserve.hub.snapshot import Snapshot
    from pgobserve.hub.subscriptions import RowSubscription


class TablePath(Protocol):
    """A path from an observed table to another one whose rows count as parts of its rows."""

    @property
    def table(self) -> str:
        """The table at its end, whose changes concern the observed rows."""

    @property
    def column(self) -> str | None:
        """The column whose old and new values resolve to observed rows; None for the primary key."""


@dataclass(frozen=True, slots=True)
class TableDependencies:
    """
    The tables that a subscription's rows depend on.

    Attributes:
        tables: Tables whose rows concern the row with the same key; the first is the rows' own.
        full_refresh: Tables whose changes concern all rows.
        paths: Paths to tables whose changes concern some rows.
        lane: The lane in which the rows are read; None for the common one.
    """

    tables: tuple[str, ...]
    full_refresh: tuple[str, ...] = ()
    paths: tuple[TablePath, ...] = ()
    lane: Hashable = None
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "_hash", hash((self.tables, self.full_refresh, self.paths, self.lane))
        )

    def __hash__(self) -> int:
        # Needed for each change; to hash the paths again takes too long.
        return self._hash


@dataclass(slots=True, eq=False)
class RowState:
    """
    A row with subscriptions.

    Attributes:
        watches: The subscriptions, in a dictionary for its order.
        loading: Whether a load is under way. There is one at a time, since the older of two could end
            last.
        touched: Number of changes of rows of other tables that belong to it.
        reads: Number of loads that have ended, or that a later snapshot made superfluous.
    """

    subject: TableDependencies
    key: Hashable
    watches: dict[RowSubscription, None] = field(default_factory=dict)
    snapshot: Snapshot | None = None
    loading: bool = False
    touched: int = 0
    reads: int = 0

    @property
    def audience(self) -> tuple[RowSubscription, ...]:
        """The subscriptions."""
        return tuple(self.watches)

    @property
    def wanted(self) -> bool:
        """Whether it has subscriptions."""
        return bool(self.watches)


@dataclass(slots=True)
class SubjectState:
    """
    The rows and lists with the same dependencies.

    Attributes:
        rows: Single rows, by key.
        rosters: Lists, by identity.
        lookups: The values of changes that are still to be resolved, by path.
        resolving: Number of reverse look-ups under way.
        batch: Number of the last batch of reverse look-ups.
        open: Number of reverse look-ups under way, by their batch.
        setbacks: Number of failed reverse look-ups, which are part of a later batch.
    """

    rows: dict[Hashable, RowState] = field(default_factory=dict)
    rosters: dict[Hashable, ListState] = field(default_factory=dict)
    lookups: dict[TablePath, dict[Any, None]] = field(default_factory=dict)
    resolving: int = 0
    batch: int = 0
    open: dict[int, int] = field(default_factory=dict)
    setbacks: int = 0


@dataclass(slots=True)
class ReverseLookup:
    """
    Changes of one table that are to be resolved to the rows that they concern.

    Attributes:
        subject: The rows' dependencies.
        values: Keys of changed rows, or values of the path's column.
        among: The only rows with subscriptions; None if any row may have one.
        kind: The rows and lists at that time.
        batch: Number of its batch.
    """

    subject: TableDependencies
    path: TablePath
    values: Sequence[Any]
    among: Sequence[Hashable] | None
    kind: SubjectState
    batch: int = 0


class DependencyIndex:
    """
    Dependencies by the tables whose changes concern them.

    Attributes:
        keyed: By tables whose rows have the same keys.
        full_refresh: By tables whose changes concern all rows.
        linked: By tables at the end of a path.
    """

    def __init__(self) -> None:
        # Dictionaries for their order.
        self.keyed: dict[str, dict[TableDependencies, None]] = {}
        self.full_refresh: dict[str, dict[TableDependencies, None]] = {}
        self.linked: dict[str, dict[tuple[TableDependencies, TablePath], None]] = {}

    def __contains__(self, table: str) -> bool:
        """Return whether a change of a table concerns any dependencies."""
        return table in self.keyed or table in self.full_refresh or table in self.linked

    def tables(self) -> list[str]:
        """Return the tables whose changes concern any dependencies."""
        return list({**self.keyed, **self.full_refresh, **self.linked})

    def routes(self) -> dict[str, set[str]]:
        """Return the columns whose values resolve to rows of other tables, by table."""
        found: dict[str, set[str]] = {}
        for table, entries in self.linked.items():
            if columns := {path.column for _, path in entries if path.column is not None}:
                found[table] = columns
        return found

    def add(self, subject: TableDependencies) -> None:
        """Add dependencies."""
        _add(self.keyed, subject.tables, subject)
        _add(self.full_refresh, subject.full_refresh, subject)
        for path in subject.paths:
            _add(self.linked, [path.table], (subject, path))

    def remove(self, subject: TableDependencies) -> None:
        """Remove dependencies."""
        _remove(self.keyed, subject.tables, subject)
        _remove(self.full_refresh, subject.full_refresh, subject)
        for path in subject.paths:
            _remove(self.linked, [path.table], (subject, path))


def _add(index: dict[str, dict[Any, None]], tables: Iterable[str], entry: Hashable) -> None:
    for table in tables:
        index.setdefault(table, {})[entry] = None


def _remove(index: dict[str, dict[Any, None]], tables: Iterable[str], entry: Hashable) -> None:
    for table in tables:
        entries = index.get(table, {})
        entries.pop(entry, None)
        if not entries:
            index.pop(table, None)
