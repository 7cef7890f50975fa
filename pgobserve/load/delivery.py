"""
From what a load found to those who watch: rows, and lists with all who subscribed to them.

A row of a list may have thousands of readers, so others have their turn in between.
"""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING, Final, cast

from pgobserve.hub.hub import RowState
from pgobserve.hub.list_deliveries import ListRowChange, deliveries
from pgobserve.hub.list_subscription import ListItemUpdate, ListSnapshot, SnapshotRow
from pgobserve.hub.load_requests import FAILED
from pgobserve.hub.outcome import ABSENT, UNKNOWN, UNREAD, View
from pgobserve.hub.row_subscription import RowSubscription
from pgobserve.load.list_admission import admit, admit_returning, differences

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from pgobserve.hub.hub import Hub
    from pgobserve.hub.list_deliveries import Delivery as ListDelivery
    from pgobserve.hub.list_state import ListRow, ListState
    from pgobserve.hub.list_subscription import ListSubscription, Shown
    from pgobserve.hub.load_requests import ListLoadResult, LoadResult
    from pgobserve.hub.outcome import Refusal
    from pgobserve.load.list_admission import Difference
    from pgobserve.load.retries import Retries

#: What a client is not told again while reading is repeated.
_AGAIN: Final = (FAILED, UNREAD)

#: Frames of lists after which the event loop has its turn.
YIELD_EVERY: Final = 100


class Pause:
    """
    Gives the event loop its turns.

    Args:
        breath: After so many steps.
    """

    def __init__(self, breath: int) -> None:
        self._breath = breath
        self._steps = 0

    async def after(self, steps: int) -> None:
        """Note that some steps were taken."""
        self._steps += steps
        if self._steps >= self._breath:
            self._steps = 0
            await asyncio.sleep(0)


class Delivery:
    """
    Lets those who watch have what was found.

    Args:
        hub: Who watches what.
        repeats: What failed, and will be read again.
    """

    def __init__(self, hub: Hub, repeats: Retries) -> None:
        self._hub = hub
        self._repeats = repeats

    async def rows(self, found: Sequence[LoadResult]) -> None:
        """Let those have rows who watch them, by themselves or on lists."""
        waiting = []
        for item in found:
            if isinstance(item.job.row, RowState):
                self._row(item, item.job.row)
            else:
                waiting.append((item, item.job.row))
        # Those who watch a row go first: nobody must wait for a list's many readers.
        if waiting:
            await self._entries(waiting)

    def _row(self, item: LoadResult, row: RowState) -> None:
        self._hub.done(row, item.snapshot)
        told = self._note_repeats(row, item)
        special, outcome = item.special, item.outcome
        for watch in cast("Sequence[RowSubscription]", item.job.watches):
            mine = special.get(watch, outcome) if special else outcome
            # Who waits for the answer to his request gets one.
            if not (told and mine in _AGAIN and watch.on_started is None):
                watch.offer(mine)

    async def _entries(self, found: Sequence[tuple[LoadResult, ListRow]]) -> None:
        """Deliver rows of lists; gives the event loop its turns."""
        pause = Pause(YIELD_EVERY)
        undone = dict.fromkeys(entry for _, entry in found)
        try:
            # Once, first: a subscription may be admitted to the other list, and move on, in a pause.
            for item, _ in found:
                self._hub.move_all(item.moved)
            for item, entry in found:
                await self._entry(item, entry, pause)
                del undone[entry]
                self.done(entry, failed=False)
        finally:
            for entry in undone:
                self.done(entry, failed=True)

    async def _entry(self, item: LoadResult, entry: ListRow, pause: Pause) -> None:
        again = self._note_repeats(entry, item)
        names = entry.roster.named(item.name)
        watches = cast("Sequence[ListSubscription]", item.job.watches)
        left = names.rename(entry.key, item.name)
        if left is not None:  # clients see another row leave
            await self._change(entry.roster, ListRowChange(left, ABSENT), watches, pause)
        if names.holds(entry.key):
            change = ListRowChange(
                names.of(entry.key), item.outcome, item.special, again=again, unread=item.failed
            )
            await self._change(entry.roster, change, watches, pause)
        if item.name is None and item.outcome is ABSENT and not item.failed:
            names.forget(entry.key)

    async def _change(
        self,
        roster: ListState,
        change: ListRowChange,
        watches: Sequence[ListSubscription],
        pause: Pause,
    ) -> None:
        """Deliver one row of a list, in parts; to its end even if this is cancelled."""
        key, waiting = change.key, iter(deliveries(roster, change, watches))
        try:
            while some := [*islice(waiting, YIELD_EVERY)]:
                self._put(roster, key, some)
                if len(some) == YIELD_EVERY:
                    await asyncio.sleep(0)
        finally:
            # The list counts all of them as delivered.
            self._put(roster, key, waiting)
        await pause.after(len(watches) % YIELD_EVERY)

    def _put(self, roster: ListState, key: Hashable, some: Iterable[ListDelivery]) -> None:
        for watch, had, outcome, kind in some:
            if watch.roster is roster:
                watch.put(key, had, outcome, kind)
            elif watch.active:
                # It moved to another list in a pause, and took the row with it as delivered.
                watch.correct(key, had)
                self._hub.read_again(ListItemUpdate(watch, key, had))

    def done(self, entry: ListRow, *, failed: bool) -> None:
        """Note that a load of a list's row has ended; if it failed it is repeated."""
        entry.roster.done(entry.key, failed=failed)
        self._hub.done_list(entry.roster)

    def _note_repeats(
        self, row: RowState | ListRow | ListState, item: LoadResult | ListLoadResult
    ) -> bool:
        """See to a row whose query failed; return whether it had failed before."""
        told = row in self._repeats
        if item.failed:
            self._repeats.failed(row)
        elif told:
            self._repeats.succeeded(row)
        return told

    async def whole(self, found: ListLoadResult) -> None:
        """Let those have a list who have it already, and those who wait for it."""
        roster, snapshot = found.job.roster, None
        self._note_repeats(roster, found)
        try:
            if found.refusal is not None:
                for watch in found.job.newcomers:
                    self._refuse(watch, found.refusal)
            if found.refusal is None or found.rows:
                self._hub.move_all(found.moved)
                await self._deliver_whole(found)
                await self._admit(found)
                snapshot = found.snapshot
        finally:
            roster.done_whole(snapshot)
            if not found.failed:
                # Otherwise it is repeated, but not at once.
                self._hub.done_list(roster)

    async def _deliver_whole(self, found: ListLoadResult) -> None:
        job, roster, pause = found.job, found.job.roster, Pause(YIELD_EVERY)
        if not job.watches:
            roster.shown.clear()
        names = {item.job.key: item.name for item in found.rows if item.name is not None}
        roster.named(next(iter(names.values()), None)).replace(names)
        for item in found.rows:
            change = ListRowChange(
                item.key, item.outcome, item.special, again=True, skipped=found.skipped
            )
            await self._change(roster, change, job.watches, pause)
        for key in roster.missing(item.key for item in found.rows):
            change = ListRowChange(key, ABSENT, skipped=found.skipped)
            await self._change(roster, change, job.watches, pause)
        for watch in job.watches:
            if watch in found.skipped:
                roster.skip(watch, found.skipped[watch])
            else:
                watch.failing = False

    async def _admit(self, found: ListLoadResult) -> None:
        """Let those have the list who wait for it."""
        pause, shared = Pause(YIELD_EVERY), _same_for_all(found)
        for watch in found.job.newcomers:
            if watch.active and watch in found.job.roster.newcomers:
                listed, steps = self._admit_one(watch, found, shared)
                if watch.on_started is not None:
                    on_started, watch.on_started = watch.on_started, None
                    on_started(listed)
                # It takes long where rows are gone through for each of them.
                await pause.after(steps)

    def _admit_one(
        self, watch: ListSubscription, found: ListLoadResult, shared: _Shared | None
    ) -> tuple[ListSnapshot, int]:
        """Return the list as a subscription receives it, and how much work that was."""
        roster, claimed = found.job.roster, watch in found.has
        if claimed:
            watch.has, watch.have = found.has[watch], None
        resumed = watch.has is not None
        if shared is None:
            rows = [(item.key, item.special.get(watch, item.outcome)) for item in found.rows]
            listed = ListSnapshot(admit(roster, watch, rows, claimed=claimed), resumed)
            return listed, len(found.rows)
        if watch.has is None:
            roster.join(watch)
            return shared.listed, 1
        news = shared.differences(watch.has)
        admit_returning(roster, watch, news)
        return ListSnapshot(resumed=True), max(1, len(news))

    def failed(self, watches: Iterable[RowSubscription | ListSubscription]) -> None:
        """Let subscriptions hear that what they watch can't be shown for now."""
        for watch in watches:
            if isinstance(watch, RowSubscription):
                watch.offer(FAILED)
            elif watch.on_started is not None:
                self._refuse(watch, FAILED)
            elif not watch.failing:
                watch.failing = True
                watch.put(None, UNKNOWN, FAILED)

    def _refuse(self, watch: ListSubscription, refusal: Refusal) -> None:
        if watch.on_started is not None and watch.active:
            on_started, watch.on_started = watch.on_started, None
            self._hub.discard(watch)
            on_started(refusal)


class _Shared:
    """
    A list that all see alike.

    Attributes:
        listed: As a subscription receives it that holds nothing.
    """

    def __init__(self, views: Mapping[Hashable, View]) -> None:
        self._views = views
        self._last: tuple[Shown, list[Difference]] | None = None
        self.listed = ListSnapshot([SnapshotRow(key, view) for key, view in views.items()])

    def differences(self, held: Shown) -> list[Difference]:
        """Return what leads from what a client holds to the list; the same for the same object."""
        if self._last is None or self._last[0] is not held:
            self._last = held, differences(held, self._views)
        return self._last[1]


def _same_for_all(found: ListLoadResult) -> _Shared | None:
    """Return the list if all see the same rows, and none is refused."""
    views: dict[Hashable, View] = {}
    for item in found.rows:
        if item.special or not isinstance(item.outcome, View):
            return None
        if item.outcome.body is not None:
            views[item.key] = item.outcome
    return _Shared(views)
