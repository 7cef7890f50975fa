"""
From what a load found to those who watch: rows, and lists with all who subscribed to them.

A row of a list may have thousands of readers, so others have their turn in between.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pgobserve.hub.hub import RowState
from pgobserve.hub.list_admission import admit, admit_as_others, admit_returning
from pgobserve.hub.list_subscription import ListSnapshot
from pgobserve.hub.load_requests import FAILED, NEVER
from pgobserve.hub.send_queue import (
    ABSENT,
    UNKNOWN,
    UNREAD,
    RowSubscription,
    View,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

    from pgobserve.hub.hub import Hub
    from pgobserve.hub.list_state import ListRow, ListState
    from pgobserve.hub.list_subscription import ListSubscription
    from pgobserve.hub.load_requests import ListLoadResult, LoadResult
    from pgobserve.hub.send_queue import Refusal
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

    async def through(self, work: Iterator[None], steps: int) -> None:
        """Do work that has breaks of its own, to its end whatever happens."""
        try:
            for _ in work:
                await asyncio.sleep(0)
        finally:
            # Some were told and the others must be, even if this is cancelled.
            for _ in work:
                pass
        await self.after(steps % self._breath)


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
        special, outcome, snapshot = item.special, item.outcome, item.snapshot
        for watch in item.job.watches:
            mine = special.get(watch, outcome) if special else outcome
            # Who waits for the answer to his request gets one.
            if not (told and mine in _AGAIN and watch.begun is None):
                watch.offer(mine, snapshot)

    async def _entries(self, found: Sequence[tuple[LoadResult, ListRow]]) -> None:
        """Let those have rows who have them on a list; gives the event loop its turns."""
        pause = Pause(YIELD_EVERY)
        undone = dict.fromkeys(entry for _, entry in found)
        try:
            # Once: they may have been let in there, and have gone on, when others had their turn.
            for item, _ in found:
                self._hub.move_all(item.moved)
            for item, entry in found:
                told = self._note_repeats(entry, item)
                news = entry.roster.telling(
                    *(entry.key, item.outcome, item.special, item.snapshot, item.job.watches),
                    again=told,
                    unread=item.failed,
                    breath=YIELD_EVERY,
                )
                await pause.through(news, len(item.job.watches))
                del undone[entry]
                self.done(entry, failed=False)
        finally:
            for entry in undone:
                self.done(entry, failed=True)

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
                await self._tell_whole(found)
                roster.base = found.snapshot
                await self._admit(found)
                snapshot = found.snapshot
        finally:
            roster.done_whole(snapshot)
            if not found.failed:
                # Otherwise it is repeated, but not at once.
                self._hub.done_list(roster)

    async def _tell_whole(self, found: ListLoadResult) -> None:
        job, roster, pause = found.job, found.job.roster, Pause(YIELD_EVERY)
        if not job.watches:
            roster.shown.clear()
            roster.refused.clear()
        options: Any = {"skipped": found.skipped, "breath": YIELD_EVERY}
        for item in found.rows:
            what = (item.job.key, item.outcome, item.special, found.snapshot, job.watches)
            await pause.through(roster.telling(*what, again=True, **options), len(job.watches))
        for key in roster.rest(item.job.key for item in found.rows):
            news = roster.telling(key, ABSENT, {}, found.snapshot, job.watches, **options)
            await pause.through(news, len(job.watches))
        for watch in job.watches:
            if watch in found.skipped:
                roster.skip(watch, found.skipped[watch], found.snapshot)
            elif watch.refused:
                watch.refused.discard(None)
        roster.told_all(found.snapshot)

    async def _admit(self, found: ListLoadResult) -> None:
        """Let those have the list who wait for it."""
        pause, views = Pause(YIELD_EVERY), _same_for_all(found)
        bodies = [view.body for view in (views or {}).values() if view.body is not None]
        shared = ListSnapshot(bodies)
        for watch in found.job.newcomers:
            if watch.active and watch in found.job.roster.newcomers:
                listed = self._admit_one(watch, found, views, shared)
                if watch.begun is not None:
                    begun, watch.begun = watch.begun, None
                    begun(listed, found.snapshot)
                # It takes long where rows are gone through for each of them.
                await pause.after(1 if listed is shared else len(found.rows))

    def _admit_one(
        self,
        watch: ListSubscription,
        found: ListLoadResult,
        views: Mapping[Hashable, View] | None,
        shared: ListSnapshot,
    ) -> ListSnapshot:
        """Return the list as one has it; ``shared`` is that of all who see the ``views``."""
        roster, reset = found.job.roster, False
        if watch in found.has:
            watch.has = found.has[watch]
            reset = watch.has is None
        if views is not None:
            if watch.has is not None:
                admit_returning(roster, watch, views, found.snapshot)
                return ListSnapshot(unchanged=True)
            admit_as_others(roster, watch, found.snapshot)
            return replace(shared, reset=True) if reset else shared
        back = watch.has is not None
        rows = [(item.job.key, item.special.get(watch, item.outcome)) for item in found.rows]
        return ListSnapshot(admit(roster, watch, rows, found.snapshot), unchanged=back, reset=reset)

    def failed(self, watches: Iterable[RowSubscription | ListSubscription]) -> None:
        """Let subscriptions hear that what they watch can't be shown for now."""
        for watch in watches:
            if isinstance(watch, RowSubscription):
                watch.offer(FAILED, NEVER)
            elif watch.begun is not None:
                self._refuse(watch, FAILED)
            elif None not in watch.refused:
                watch.refused.add(None)
                watch.put(None, UNKNOWN, FAILED, NEVER)

    def _refuse(self, watch: ListSubscription, refusal: Refusal) -> None:
        if watch.begun is not None and watch.active:
            begun, watch.begun = watch.begun, None
            self._hub.discard(watch)
            begun(refusal, NEVER)


def _same_for_all(found: ListLoadResult) -> dict[Hashable, View] | None:
    """Return the rows of a list by key if all see the same, and none is refused."""
    views: dict[Hashable, View] = {}
    for item in found.rows:
        if item.special or not isinstance(item.outcome, View):
            return None
        views[item.job.key] = item.outcome
    return views
