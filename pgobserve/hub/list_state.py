"""
The rows of a list, for all who subscribed to the same list.

What the rows look like is remembered once for all of them, as a digest of each; a client for whom a
row looks otherwise, or is not there, has an exception. What a client still has to be told is in his
mailbox, together with what he has of it, so that one who does not read costs the others nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Final

from pgobserve.hub.identity import NO_NAMES, Names
from pgobserve.hub.outcome import NOTHING, UNKNOWN, UNTOLD, Refusal, step
from pgobserve.hub.snapshot import FRESH, is_old_news, with_xid

if TYPE_CHECKING:
    from collections.abc import (
        Collection,
        Hashable,
        Iterable,
        Iterator,
        Mapping,
    )

    from pgobserve.hub.list_subscription import ListSubscription, Shown, Subscription
    from pgobserve.hub.outcome import FrameAction, Outcome
    from pgobserve.hub.snapshot import Snapshot, Stale


#: Rows of a list that wait to be read; beyond it the list is read as a whole.
MOST_DIRTY: Final = 20_000


@dataclass(frozen=True, slots=True)
class ListRow:
    """A row of a list that is to be read."""

    roster: ListState
    key: Hashable

    @property
    def audience(self) -> tuple[ListSubscription, ...]:
        """The subscriptions that have the list."""
        return self.roster.audience

    @property
    def wanted(self) -> bool:
        """Whether anybody watches it."""
        return self.roster.wanted


class ListState:
    """
    A list that somebody watches.

    Args:
        identity: What tells it from other lists of the same kind of rows; opaque here.
        single: It can only be read as a whole, as a number of rows can.

    Attributes:
        watches: The subscriptions; a dictionary for its order.
        newcomers: Those that wait for the list.
        names: What names its rows in place of their primary keys, if that is so. All that is kept
            of rows, but which to read, is filed under names.
        shown: Digests of the rows, as those have them who have no exception.
        snapshot: In which it was last read as a whole.
        loading: Rows that are being read now; a whole list counts as one. While there are any no
            others are read: the older of two reads could end last.
        dirty: The rows to read, by what made them so.
        whole: What makes all of it so.
        alone: It is not read together with others the next time: it has too many rows, or may
            spoil them.
        lane: See :class:`~pgobserve.hub.table_dependencies.TableDependencies`.
        taken: Number of marks that loads have taken so far; a mark of the whole list counts as one.
        read: Number of marks whose loads have ended.
        setbacks: How often a load failed and put a mark at the end of the queue again.
    """

    __slots__ = (
        "_reading",
        "_tuple",
        "alone",
        "dirty",
        "identity",
        "lane",
        "loading",
        "names",
        "newcomers",
        "read",
        "setbacks",
        "shown",
        "single",
        "snapshot",
        "taken",
        "watches",
        "whole",
    )

    def __init__(self, identity: Hashable, *, single: bool = False, lane: Hashable = None) -> None:
        self.identity = identity
        self.lane = lane
        self.single = single
        self.watches: dict[ListSubscription, None] = {}
        self.newcomers: dict[ListSubscription, None] = {}
        self.names = NO_NAMES
        self.shown: Shown = {}
        self.snapshot: Snapshot | None = None
        self.loading = 0
        self.dirty: dict[Hashable, Stale] = {}
        self.whole: Stale = FRESH
        self.alone = single
        self.taken = self.read = self.setbacks = self._reading = 0
        self._tuple: tuple[ListSubscription, ...] | None = None

    def __len__(self) -> int:
        """Return the number of subscriptions, waiting ones included."""
        return len(self.watches) + len(self.newcomers)

    @property
    def wanted(self) -> bool:
        """Whether anybody watches it."""
        return len(self) > 0

    # What needs reading

    def mark(self, keys: Iterable[Hashable], xid: int | None) -> None:
        """Note that rows changed, be they on the list or not."""
        if self.single:
            self.mark_whole(xid)
            return
        # While it is read its snapshot is out of date: of another server even. See `Hub.publish`.
        if xid is not None and not self.loading and self._sees(xid):
            return
        for key in keys:
            self.dirty[key] = None if xid is None else with_xid(self.dirty.get(key, FRESH), xid)
        if len(self.dirty) > MOST_DIRTY:
            self.taken += len(self.dirty)  # the mark of the whole list stands for them
            self.dirty.clear()
            self.whole = None

    def mark_whole(self, xid: int | None) -> None:
        """Note that any of its rows may have changed, and any others come."""
        if xid is None:
            self.whole = None
        elif self.loading or not self._sees(xid):
            self.whole = with_xid(self.whole, xid)

    @property
    def needs_reading(self) -> bool:
        """Whether there is anything to read."""
        return bool(self.newcomers or self.dirty or self.whole is None or self.whole)

    @property
    def goal(self) -> int:
        """
        The number that :attr:`read` has once everything that is marked now was read.

        Marks are taken in their order, so later ones don't delay it.
        """
        whole = bool(self.newcomers or self.whole is None or self.whole)
        return self.taken + len(self.dirty) + whole

    def needs_whole(self, batch: int) -> bool:
        """Tell whether it is to be read as a whole: it must be, or that is less work."""
        if not self.newcomers and self.whole != FRESH and is_old_news(self.snapshot, self.whole):
            self.whole = FRESH
            self.taken += 1
            if not self.loading:
                self.read = self.taken
        many = len(self.dirty) > batch and len(self.dirty) >= len(self.shown)
        return bool(self.newcomers or self.whole is None or self.whole or many)

    def take(self, limit: int) -> list[ListRow]:
        """Return at most so many rows to read now, and note them as being read."""
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
        """Note that all of it is being read."""
        self.loading = 1
        self._reading = self.taken = self.taken + len(self.dirty) + 1
        self.dirty.clear()
        self.whole = FRESH

    def done(self, key: Hashable, *, failed: bool) -> None:
        """Note that a row's load has ended; if it failed it must be repeated."""
        self.loading -= 1
        if failed:
            self.dirty[key] = None
            self.setbacks += 1
        if not self.loading:
            self.read = self._reading

    def done_whole(self, snapshot: Snapshot | None) -> None:
        """Note that the load of the whole list has ended; without a snapshot it failed."""
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
        """Return the names of the rows, to which one will be added if it is one."""
        if name is not None and self.names is NO_NAMES:
            self.names = Names()
        return self.names

    # Who has it

    @property
    def audience(self) -> tuple[ListSubscription, ...]:
        """The subscriptions that have the list; the same tuple as long as they are the same."""
        if self._tuple is None:
            self._tuple = tuple(self.watches)
        return self._tuple

    def join(self, watch: ListSubscription) -> None:
        """Let one have it from now on."""
        self.newcomers.pop(watch, None)
        self.watches[watch] = None
        self._tuple = None
        watch.roster = self

    def leave(self, watch: ListSubscription) -> None:
        """Let one have it no more, or not wait for it."""
        self.newcomers.pop(watch, None)
        if watch in self.watches:
            del self.watches[watch]
            self._tuple = None
        watch.roster = None

    def holdings(self, watch: ListSubscription) -> Shown:
        """Return what one has of it, so that he can go on from there with another list."""
        held = {**self.shown, **watch.special}
        return {key: digest for key, digest in held.items() if digest != NOTHING}

    def correct(self, watch: ListSubscription, key: Hashable, digest: bytes | None) -> None:
        """Note what one really has of a row."""
        if digest != watch.special.get(key, self.shown.get(key, NOTHING)):
            watch.special[key] = digest

    # What was found

    def tell(
        self,
        key: Hashable,
        outcome: Outcome,
        special: Mapping[Subscription, Outcome],
        watches: Iterable[ListSubscription],
        *,
        again: bool = False,
        skipped: Collection[Subscription] = (),
    ) -> None:
        """Let all who watched have what was found of a row; see :meth:`telling`."""
        told = self.telling(key, outcome, special, watches, again=again, skipped=skipped)
        for _ in told:
            pass

    def telling(
        self,
        key: Hashable,
        outcome: Outcome,
        special: Mapping[Subscription, Outcome],
        watches: Iterable[ListSubscription],
        *,
        again: bool = False,
        unread: bool = False,
        skipped: Collection[Subscription] = (),
        breath: int = 1000,
    ) -> Iterator[None]:
        """
        Let all who watched have what was found of a row, some at a time.

        Others have their turn at each ``yield``; it must be gone on with in any case, for the
        roster counts on all being told.

        Args:
            key: The row's.
            outcome: For everyone who is not in ``special``.
            special: For those who see something else, or nothing.
            watches: Who watched when the load began.
            again: It was not asked because it had changed: who was told that it can't be shown
                need not be told so again.
            unread: Its query failed: who has not got it must not hear of it, for it may be none of
                his.
            skipped: Who is told nothing: what he may see could not be found out.
            breath: So many are told at a time.
        """
        before = self.shown.get(key, NOTHING)
        after, kind = _step(before, outcome, unread)
        self._note(key, after)
        alike = not special and not skipped
        silent = _is_silent(before, kind, again)
        waiting = iter(watches)
        while some := list(islice(waiting, breath)):
            for watch in some:
                if watch.roster is not self:
                    continue  # it has ended, or goes on with another list
                if alike and not watch.special:
                    if not silent:
                        watch.put(key, before, outcome, kind)
                    continue
                mine = special.get(watch, outcome)
                had = watch.special.pop(key, before)
                now, its_kind = (had, None) if watch in skipped else _step(had, mine, unread)
                if now != after:
                    watch.special[key] = now
                if watch in skipped:
                    continue
                if not _is_silent(had, its_kind, again):
                    watch.put(key, had, mine, its_kind)
            if len(some) == breath:
                yield

    def skip(self, watch: ListSubscription, refusal: Refusal) -> None:
        """Send a subscription one error: what it may see is not known, and will be tried again."""
        if watch.roster is self and not watch.failing:
            watch.failing = True
            watch.put(None, UNKNOWN, refusal)

    def rest(self, found: Iterable[Hashable]) -> set[Hashable]:
        """Return the keys that somebody has and that are not among those found."""
        return set(self.shown).union(*(watch.special for watch in self.watches)).difference(found)

    def _note(self, key: Hashable, digest: bytes | None) -> None:
        if digest == NOTHING:
            self.shown.pop(key, None)
        else:
            self.shown[key] = digest


def _step(
    shown: bytes | None, outcome: Outcome, unread: bool
) -> tuple[bytes | None, FrameAction | None]:
    if unread and shown == NOTHING and isinstance(outcome, Refusal):
        return shown, None
    return step(shown, outcome)


def _is_silent(had: bytes | None, kind: FrameAction | None, again: bool) -> bool:
    """
    Tell whether there is nothing to tell to who had this.

    Nor is an error to who was told so before, if it is found again. That a row can't be shown may
    still wait to be told to one who has it, and be out of date.
    """
    if kind is None:
        return had != UNTOLD
    return again and kind == "error" and had in (UNKNOWN, UNTOLD)
