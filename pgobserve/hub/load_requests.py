"""What the loader asks of whoever reads rows, and what it is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pgobserve.hub.outcome import NOTHING, UNREAD, Refusal
from pgobserve.hub.row_subscription import RowSubscription
from pgobserve.hub.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from pgobserve.hub.hub import RowState, TableDependencies
    from pgobserve.hub.list_state import ListRow, ListState
    from pgobserve.hub.list_subscription import ListSubscription, Shown, Subscription
    from pgobserve.hub.outcome import Outcome

#: The snapshot that has seen nothing.
NEVER: Final = Snapshot(1, 1, frozenset())

#: The answer when serializing failed; the log says why, the client must not know.
FAILED: Final = Refusal(500, UNREAD.errors, named=True)

#: The answer for a row that no frame can hold.
TOO_LARGE: Final = Refusal(
    413,
    ("The row is longer than a frame may be. It is sent when it has become shorter.",),
    named=True,
)


@dataclass(slots=True)
class LoadRequest:
    """
    A row to read, and for whom.

    Attributes:
        row: The row: watched by itself, or on a list.
        watches: Who watched it when the job was made; who came later has a job of his own.
    """

    row: RowState | ListRow
    watches: tuple[Subscription, ...]

    @property
    def key(self) -> Hashable:
        """The row's key."""
        return self.row.key

    def shown(self, watch: RowSubscription | ListSubscription) -> bytes | None:
        """Return the digest of what one of them has been told last, or is about to be."""
        if isinstance(watch, RowSubscription):
            return watch.shown
        roster: ListState = self.row.roster  # type: ignore[union-attr]  # a list's watch has an entry
        if watch.roster is not roster:
            return NOTHING
        key = roster.names.of(self.key)
        return watch.special.get(key, roster.shown.get(key, NOTHING))


@dataclass(slots=True)
class LoadResult:
    """
    What a load found of one row.

    Attributes:
        job: What was asked.
        snapshot: In which it was read.
        outcome: For everyone who is not in ``special``.
        special: For those who see something else, or nothing.
        failed: A query failed for somebody; the row is to be read again.
        moved: Those who see another list by now, and which: they are told nothing of this one.
        name: What names the row on its list in place of its primary key, if that is so.
    """

    job: LoadRequest
    snapshot: Snapshot
    outcome: Outcome
    special: Mapping[Subscription, Outcome] = field(default_factory=dict)
    failed: bool = False
    moved: Mapping[Subscription, tuple[TableDependencies, Hashable]] = field(default_factory=dict)
    name: str | None = None

    @property
    def key(self) -> Hashable:
        """What names the row on its list."""
        return self.job.key if self.name is None else self.name


@dataclass(slots=True)
class ListLoadRequest:
    """
    A list to read.

    Attributes:
        roster: The list.
        watches: Who has it.
        newcomers: Who waits for it.
    """

    roster: ListState
    watches: tuple[ListSubscription, ...]
    newcomers: tuple[ListSubscription, ...]


@dataclass(slots=True)
class ListLoadResult:
    """
    What a load found of a list.

    Attributes:
        job: What was asked.
        snapshot: In which it was read.
        rows: What was found of each row, in the list's order.
        refusal: Who asked for it can't have it, for this reason. Those who have it, or something of
            it, keep it if there are rows.
        has: Of newcomers that come back what they say that they hold.
        moved: Those who see another list by now, and which.
        failed: A query failed; the list is to be read again.
        skipped: Those of whom it could not be found out what they may see, and what they are told.
    """

    job: ListLoadRequest
    snapshot: Snapshot
    rows: Sequence[LoadResult]
    refusal: Refusal | None = None
    has: Mapping[ListSubscription, Shown] = field(default_factory=dict)
    moved: Mapping[Subscription, tuple[TableDependencies, Hashable]] = field(default_factory=dict)
    failed: bool = False
    skipped: Mapping[Subscription, Refusal] = field(default_factory=dict)
