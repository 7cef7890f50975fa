"""What kinds of rows are watched, which rows and lists of them, and what is known of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from pgobserve.hub.list_state import ListState
    from pgobserve.hub.row_subscription import RowSubscription
    from pgobserve.hub.snapshot import Snapshot


class TablePath(Protocol):
    """The way from a watched table to another whose rows count as a part of it."""

    @property
    def table(self) -> str:
        """The table at its end: changes there matter."""

    @property
    def column(self) -> str | None:
        """The column whose old and new values lead back; None: the changed row's key does."""


@dataclass(frozen=True, slots=True)
class TableDependencies:
    """
    What kind of rows a subscription is about; for the ORM a model, and what is shown of it.

    Attributes:
        tables: Tables in which a row of the same key concerns it; the first is its own.
        full_refresh: Tables of which any change concerns all of its rows.
        paths: The ways to tables of which a change concerns some of its rows.
        lane: Where its rows are read, apart from all others; None for where most are.
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
        # Asked at each change; that of a link's fields takes its time.
        return self._hash


class RowState:
    """
    A row that somebody watches.

    Attributes:
        subject: What kind of row.
        key: Its key.
        watches: The subscriptions; a dictionary for its order.
        snapshot: Of its last load.
        loading: It is being read now, and must not be read by a second load at a time: the older
            of two could end last.
        touched: How often rows of other tables that belong to it have changed.
        reads: Loads of it that have ended, those included that a later snapshot made superfluous.
    """

    __slots__ = ("key", "loading", "reads", "snapshot", "subject", "touched", "watches")

    def __init__(self, subject: TableDependencies, key: Hashable) -> None:
        self.subject = subject
        self.key = key
        self.watches: dict[RowSubscription, None] = {}
        self.snapshot: Snapshot | None = None
        self.loading = False
        self.touched = 0
        self.reads = 0

    @property
    def audience(self) -> tuple[RowSubscription, ...]:
        """The subscriptions."""
        return tuple(self.watches)

    @property
    def wanted(self) -> bool:
        """Whether anybody watches it."""
        return bool(self.watches)


@dataclass(slots=True)
class SubjectState:
    """
    What is watched of one subject.

    Attributes:
        rows: Single rows, by key.
        rosters: Lists, by what tells one from another.
        lookups: By link the values of changes that are still to be led back.
        resolving: How many links' changes are being led back now.
        batch: Number of the last batch of changes that was taken to be led back.
        open: How many traces of a batch have not ended, by its number; only of such as have any.
        setbacks: How often a trace was given back, so that it is part of a later batch.
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
    Changes that are to be led back to the rows that they concern.

    Attributes:
        subject: What kind of rows.
        path: The way.
        values: Keys or values of the link's route, whichever the link takes.
        among: The only rows that somebody watches; None if any may be.
        kind: What was watched of them then.
        batch: Number of the batch that it was taken with.
    """

    subject: TableDependencies
    path: TablePath
    values: Sequence[Any]
    among: Sequence[Hashable] | None
    kind: SubjectState
    batch: int = 0
