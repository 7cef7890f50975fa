"""Requests for loads, and their results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pgobserve.hub.outcome import NOTHING, UNREAD, Refusal
from pgobserve.hub.snapshot import Snapshot
from pgobserve.hub.subscriptions import RowSubscription

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from pgobserve.hub.hub import RowState, TableDependencies
    from pgobserve.hub.list_state import ListRow, ListState
    from pgobserve.hub.outcome import Outcome
    from pgobserve.hub.subscriptions import ListSubscription, Shown, Subscription

#: A snapshot in which no transaction is visible.
NEVER: Final = Snapshot(1, 1, frozenset())

#: The answer when serializing failed. The reason is for the log alone.
FAILED: Final = Refusal(500, UNREAD.errors, named=True)

#: The answer for a row that is longer than a frame may be.
TOO_LARGE: Final = Refusal(
    413,
    ("The row is longer than a frame may be. It is sent when it has become shorter.",),
    named=True,
)


@dataclass(slots=True)
class LoadRequest:
    """
    A row to read, and its subscriptions.

    Attributes:
        row: A row with subscriptions of its own, or a row of a list.
        watches: The subscriptions when the load started. Later ones have a load of their own.
    """

    row: RowState | ListRow
    watches: tuple[Subscription, ...]

    @property
    def key(self) -> Hashable:
        """The row's key."""
        return self.row.key

    def shown(self, watch: RowSubscription | ListSubscription) -> bytes | None:
        """Return the digest of the state that a client holds, or that waits in its queue."""
        if isinstance(watch, RowSubscription):
            return watch.shown
        roster: ListState = self.row.roster  # type: ignore[union-attr]  # a list's subscription has a row of the list
        if watch.roster is not roster:
            return NOTHING
        key = roster.names.of(self.key)
        return watch.special.get(key, roster.shown.get(key, NOTHING))


@dataclass(slots=True)
class LoadResult:
    """
    The result of a load for one row.

    Attributes:
        outcome: The outcome for all subscriptions that are not in ``special``.
        special: The outcomes of the others.
        failed: Whether a query failed, so that the row is read again.
        locked: Whether it failed because it waited for a lock.
        moved: Subscriptions that belong to another list by now, which receive nothing of this one.
        name: The name of the row on its list in place of its primary key, if that is so.
        unclear: Whether no row has the key's text, and rows with other texts may be meant: a list is read
            as a whole.
        written: How PostgreSQL writes the key, if not as the subscription has it.
    """

    job: LoadRequest
    snapshot: Snapshot
    outcome: Outcome
    special: Mapping[Subscription, Outcome] = field(default_factory=dict)
    failed: bool = False
    moved: Mapping[Subscription, tuple[TableDependencies, Hashable]] = field(default_factory=dict)
    name: str | None = None
    unclear: bool = False
    written: str | None = None
    locked: bool = False

    @property
    def key(self) -> Hashable:
        """The key of the row on its list."""
        return self.job.key if self.name is None else self.name


@dataclass(slots=True)
class ListLoadRequest:
    """
    A list to read.

    Attributes:
        watches: The subscriptions that hold it.
        newcomers: The subscriptions that wait for it.
    """

    roster: ListState
    watches: tuple[ListSubscription, ...]
    newcomers: tuple[ListSubscription, ...]


@dataclass(slots=True)
class ListLoadResult:
    """
    The result of a load of a list.

    Attributes:
        rows: The results for the rows, in the list's order.
        refusal: Refuses new subscriptions. Clients that hold some of the list keep it if there are rows.
        has: What returning clients claim to hold.
        moved: Subscriptions that belong to another list by now.
        failed: Whether a query failed, so that the list is read again.
        locked: Whether it failed because it waited for a lock.
        skipped: Subscriptions for which the rows that they may see are not known, with their errors.
    """

    job: ListLoadRequest
    snapshot: Snapshot
    rows: Sequence[LoadResult]
    refusal: Refusal | None = None
    has: Mapping[ListSubscription, Shown] = field(default_factory=dict)
    moved: Mapping[Subscription, tuple[TableDependencies, Hashable]] = field(default_factory=dict)
    failed: bool = False
    skipped: Mapping[Subscription, Refusal] = field(default_factory=dict)
    locked: bool = False
