"""
The state of a list, shared by all subscriptions to it.

It keeps one digest per row for all clients. A client for which a row looks different, or is absent, has an
exception. Rows that wait to be sent are in the client's queue, with what the client really holds, so that a
slow client costs the others nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final

from pgobserve.hub.identity import NO_NAMES, Names
from pgobserve.hub.outcome import NOTHING, UNKNOWN
from pgobserve.hub.snapshot import FRESH, is_old_news, with_xid

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from pgobserve.hub.outcome import Refusal
    from pgobserve.hub.snapshot import Snapshot, Stale
    from pgobserve.hub.subscriptions import ListSubscription, Shown

#: Rows of a list that wait to be read. Beyond it, the whole list is read.
MAX_DIRTY: Final = 20_000


@dataclass(frozen=True, slots=True)
class ListRow:
    """A row of a list that a load reads."""

    roster: ListState
    key: Hashable

    @property
    def audience(self) -> tuple[ListSubscription, ...]:
        """The subscriptions to the list."""
        return self.roster.audience

    @property
    def wanted(self) -> bool:
        """Whether it has subscriptions."""
        return self.roster.wanted


@dataclass(slots=True, eq=False)
class ListState:
    """
    A list with subscriptions.

    Attributes:
        identity: Distinguishes it from other lists with the same dependencies; opaque here.
        single: Whether it can only be read as a whole, such as a number of rows.
        watches: The subscriptions, in a dictionary for its order.
        newcomers: Subscriptions that wait for the list.
        gathering: Whether newcomers alone make no load due for now: more of them are on their way.
        names: What identifies its rows in place of their primary keys, if that is so. Everything but
            ``dirty`` is filed under names.
        shown: Digests of the rows, for all subscriptions without an exception.
        snapshot: The snapshot of the last load of the whole list.
        loading: Number of rows in the load under way; 1 for a whole list. There is one load at a time,
            since the older of two could end last.
        dirty: The rows to read, with the transactions that changed them.
        whole: The transactions that made the whole list stale.
        alone: Whether the next load has only this list: it has many rows, or might make others fail.
        lane: See :class:`~pgobserve.hub.table_dependencies.TableDependencies`.
        taken: Number of marks taken by loads so far; a mark of the whole list counts as one.
        read: Number of marks whose loads have ended.
        setbacks: Number of failed loads that put a mark at the end of the queue again.
    """

    identity: Hashable
    single: bool = False
    lane: Hashable = None
    watches: dict[ListSubscription, None] = field(default_factory=dict)
    newcomers: dict[ListSubscription, None] = field(default_factory=dict)
    gathering: bool = False
    names: Names = NO_NAMES
    shown: Shown = field(default_factory=dict)
    snapshot: Snapshot | None = None
    loading: int = 0
    dirty: dict[Hashable, Stale] = field(default_factory=dict)
    whole: Stale = FRESH
    alone: bool = False
    taken: int = 0
    read: int = 0
    setbacks: int = 0
    _reading: int = 0
    _tuple: tuple[ListSubscription, ...] | None = None

    def __post_init__(self) -> None:
        self.alone = self.single

    def __len__(self) -> int:
        """Return the number of subscriptions, waiting ones included."""
        return len(self.watches) + len(self.newcomers)

    @property
    def wanted(self) -> bool:
        """Whether it has subscriptions."""
        return len(self) > 0

    # Marks: what a load must read

    def mark(self, keys: Iterable[Hashable], xid: int | None) -> None:
        """Record that rows changed, whether they are on the list or not."""
        if self.single:
            self.mark_whole(xid)
            return
        # During a load the snapshot is out of date, perhaps even of another server: see `Hub.publish`.
        if xid is not None and not self.loading and self._sees(xid):
            return
        for key in keys:
            self.dirty[key] = None if xid is None else with_xid(self.dirty.get(key, FRESH), xid)
        if len(self.dirty) > MAX_DIRTY:
            self.taken += len(self.dirty)  # the mark of the whole list replaces them
            self.dirty.clear()
            self.whole = None

    def mark_whole(self, xid: int | None) -> None:
        """Record that any of its rows may have changed, or others may belong to it."""
        if xid is None:
            self.whole = None
        elif self.loading or not self._sees(xid):
            self.whole = with_xid(self.whole, xid)

    @property
    def needs_reading(self) -> bool:
        """Whether a load is due."""
        return bool(self._newcomers_due or self.dirty or self.whole is None or self.whole)

    @property
    def _newcomers_due(self) -> bool:
        return bool(self.newcomers) and not self.gathering

    @property
    def goal(self) -> int:
        """
        The number that :attr:`read` reaches once all present marks have been read.

        Loads take marks in order, so later marks don't delay it.
        """
        whole = bool(self.newcomers or self.whole is None or self.whole)
        return self.taken + len(self.dirty) + whole

    def needs_whole(self, batch: int) -> bool:
        """Return whether a load of the whole list is due, or is less work than one of its rows."""
        if not self.newcomers and self.whole != FRESH and is_old_news(self.snapshot, self.whole):
            self.whole = FRESH
            self.taken += 1
            if not self.loading:
                self.read = self.taken
        many = len(self.dirty) > batch and len(self.dirty) >= len(self.shown)
        return bool(self._newcomers_due or self.whole is None or self.whole or many)

    def take(self, limit: int) -> list[ListRow]:
        """Return up to ``limit`` rows to read now, and record that their load has started."""
        keys: list[Hashable] = []
        seen: list[Hashable] = []
        for key, xids in self.dirty.items():
            if len(keys) >= limit:
                break
            (seen if is_old_news(self.snapshot, xids) else keys).append(key)
        for key in chain(seen, keys):
            del self.dirty[key]
        self.loading = len(keys)
        self.taken += len(seen) + len(keys)
        self._reading = self.taken
        if not keys:
            self.read = self.taken
        return [ListRow(self, key) for key in keys]

    def take_whole(self) -> None:
        """Record that a load of the whole list has started."""
        self.loading = 1
        self._reading = self.taken = self.taken + len(self.dirty) + 1
        self.dirty.clear()
        self.whole = FRESH

    def done(self, key: Hashable, *, failed: bool) -> None:
        """Record that the load of a row has ended; a failed row is marked again."""
        self.loading -= 1
        if failed:
            self.dirty[key] = None
            self.setbacks += 1
        if not self.loading:
            self.read = self._reading

    def done_whole(self, snapshot: Snapshot | None) -> None:
        """Record that the load of the whole list has ended; without a snapshot it failed."""
        self.loading = 0
        if snapshot is None:
            self.whole = None
        else:
            self.snapshot = snapshot
            self.read = self._reading
            self.alone = self.single

    def _sees(self, xid: int) -> bool:
        return self.snapshot is not None and self.snapshot.sees(xid)

    def named(self, name: str | None) -> Names:
        """Return the names of the rows; a first name makes the list one whose rows have names."""
        if name is not None and self.names is NO_NAMES:
            self.names = Names()
        return self.names

    # Subscriptions

    @property
    def audience(self) -> tuple[ListSubscription, ...]:
        """The subscriptions that hold the list; the same tuple while they are the same."""
        if self._tuple is None:
            self._tuple = tuple(self.watches)
        return self._tuple

    def join(self, watch: ListSubscription) -> None:
        """Add a subscription."""
        self.newcomers.pop(watch, None)
        self.watches[watch] = None
        self._tuple = None
        watch.roster = self

    def leave(self, watch: ListSubscription) -> None:
        """Remove a subscription, or a waiting one."""
        self.newcomers.pop(watch, None)
        if watch in self.watches:
            del self.watches[watch]
            self._tuple = None
        watch.roster = None

    def holdings(self, watch: ListSubscription) -> Shown:
        """Return what a client holds, from which its subscription continues with another list."""
        held = {**self.shown, **watch.special}
        return {key: digest for key, digest in held.items() if digest != NOTHING}

    def correct(self, watch: ListSubscription, key: Hashable, digest: bytes | None) -> None:
        """Record what a client really holds of a row."""
        if digest != watch.special.get(key, self.shown.get(key, NOTHING)):
            watch.special[key] = digest

    def skip(self, watch: ListSubscription, refusal: Refusal) -> None:
        """Send one error until the next success: what the client may see is not known."""
        if watch.roster is self and not watch.failing:
            watch.failing = True
            watch.put(None, UNKNOWN, refusal)

    def missing(self, found: Iterable[Hashable]) -> set[Hashable]:
        """Return the keys that some client holds and a load has not found."""
        return set(self.shown).union(*(watch.special for watch in self.watches)).difference(found)

    def record(self, key: Hashable, digest: bytes | None) -> None:
        """Record the digest of a row for all subscriptions without an exception."""
        if digest == NOTHING:
            self.shown.pop(key, None)
        else:
            self.shown[key] = digest
