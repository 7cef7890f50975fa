"""
Delivers the results of loads: rows, and lists with all their subscriptions.

A row of a list may have thousands of subscriptions, so the event loop gets turns in between.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from pgobserve.hub.hub import RowState
from pgobserve.hub.list_deliveries import (
    ListRowChange,
    admit,
    admit_returning,
    deliveries,
    differences,
)
from pgobserve.hub.load_requests import FAILED
from pgobserve.hub.outcome import ABSENT, UNKNOWN, UNREAD, View
from pgobserve.hub.subscriptions import ListItemUpdate, ListSnapshot, RowSubscription, SnapshotRow

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

    from pgobserve.hub.hub import Hub
    from pgobserve.hub.list_deliveries import Delivery as ListDelivery
    from pgobserve.hub.list_deliveries import Difference
    from pgobserve.hub.list_state import ListRow, ListState
    from pgobserve.hub.load_requests import ListLoadResult, LoadResult
    from pgobserve.hub.outcome import Outcome, Refusal
    from pgobserve.hub.subscriptions import ListSubscription, Shown
    from pgobserve.workers.retrying import Retries

#: Errors that a subscriber receives only once while the loader retries.
_ONCE: Final = (FAILED, UNREAD)

#: Deliveries of lists after which the event loop gets a turn.
YIELD_EVERY: Final = 100


class Pause:
    """Gives the event loop a turn after some steps."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._steps = 0

    async def after(self, steps: int) -> None:
        """Count steps."""
        self._steps += steps
        if self._steps >= self._every:
            self._steps = 0
            await asyncio.sleep(0)


@dataclass(slots=True, eq=False)
class Delivery:
    """Delivers results to subscriptions."""

    _hub: Hub
    _retries: Retries

    async def rows(self, results: Sequence[LoadResult]) -> None:
        """Deliver rows to their own subscriptions, then to those of lists."""
        of_lists = []
        for result in results:
            row = result.job.row
            if not isinstance(row, RowState):
                # Last: no single row must wait for a list's many subscriptions.
                of_lists.append((result, row))
                continue
            self._hub.done(row, result.snapshot)
            if result.written is not None:
                self._hub.rename(row, result.written)
                continue
            again = self._note_retry(row, result)
            if again is None:
                continue
            special, outcome = result.special, result.outcome
            for each in cast("Sequence[RowSubscription]", result.job.watches):
                mine = special.get(each, outcome) if special else outcome
                # A new subscriber receives the error even during retries: its request needs a reply.
                if not (again and mine in _ONCE and each.on_started is None):
                    offer(each, mine)
        if of_lists:
            await self._entries(of_lists)

    async def _entries(self, results: Sequence[tuple[LoadResult, ListRow]]) -> None:
        """Deliver rows of lists; gives the event loop its turns."""
        pause = Pause(YIELD_EVERY)
        undone = dict.fromkeys(entry for _, entry in results)
        try:
            # Once, first: a subscription may be admitted to the other list, and move on, in a pause.
            for result, _ in results:
                self._hub.move_all(result.moved)
            for result, entry in results:
                await self._entry(result, entry, pause)
                del undone[entry]
                self.done(entry, failed=False)
        finally:
            for entry in undone:
                self.done(entry, failed=True)

    async def _entry(self, result: LoadResult, entry: ListRow, pause: Pause) -> None:
        again = self._note_retry(entry, result)
        if again is None:
            return
        state, outcome = entry.roster, result.outcome
        names = state.named(result.name)
        subscriptions = cast("Sequence[ListSubscription]", result.job.watches)
        left = names.rename(entry.key, result.name)
        if left is not None:  # clients see another row leave
            await self._change(state, ListRowChange(left, ABSENT), subscriptions, pause)
        if names.holds(entry.key):
            change = ListRowChange(
                *(names.of(entry.key), outcome, result.special), again=again, unread=result.failed
            )
            await self._change(state, change, subscriptions, pause)
        if result.name is None and outcome is ABSENT and not result.failed:
            names.forget(entry.key)
        if result.unclear:
            state.mark_whole(None)

    async def _change(
        self,
        state: ListState,
        change: ListRowChange,
        subscriptions: Sequence[ListSubscription],
        pause: Pause,
    ) -> None:
        """Deliver one row of a list, in parts; to its end even if this is cancelled."""
        due = deliveries(state, change, subscriptions)
        waiting = _parts(due)
        try:
            for part in waiting:
                self._put(state, change.key, part)
                await pause.after(len(part[0]))
        finally:
            # The list's state counts all of them as delivered.
            for part in waiting:
                self._put(state, change.key, part)
        if not due:
            await pause.after(len(subscriptions))

    def _put(self, state: ListState, key: Hashable, delivery: ListDelivery) -> None:
        subscriptions, had, outcome, kind = delivery
        for each in subscriptions:
            if each.roster is state:
                each.put(key, had, outcome, kind)
            elif each.active:
                # It moved to another list in a pause, and took the row with it as delivered.
                each.correct(key, had)
                self._hub.read_again(ListItemUpdate(each, key, had))

    def done(self, entry: ListRow, *, failed: bool) -> None:
        """End the load of a list's row; a failed row is dirty again."""
        entry.roster.done(entry.key, failed=failed)
        self._hub.done_list(entry.roster)

    def _note_retry(
        self, row: RowState | ListRow | ListState, result: LoadResult | ListLoadResult
    ) -> bool | None:
        """
        Schedule or cancel the retry of a row.

        Returns:
            Whether an error of it has been sent before. None: nothing is sent, because it waits for a lock.
        """
        again = self._retries.reported(row)
        if not result.failed:
            self._retries.succeeded(row)
        elif not self._retries.failed(row, locked=result.locked):
            return None
        return again

    async def whole(self, result: ListLoadResult) -> None:
        """Deliver a list to its subscriptions and to those that wait for it."""
        state, snapshot = result.job.roster, None
        waits = self._note_retry(state, result) is None
        try:
            if result.refusal is not None and not waits:
                for each in result.job.newcomers:
                    self._refuse(each, result.refusal)
                for each in result.job.watches if result.failed and not result.rows else ():
                    state.skip(each, result.refusal)
            if result.refusal is None or result.rows:
                self._hub.move_all(result.moved)
                await self._deliver_whole(result)
                await self._admit(result)
                snapshot = result.snapshot
        finally:
            state.done_whole(snapshot)
            if not result.failed:
                # Otherwise the retry makes it due, after a delay.
                self._hub.done_list(state)

    async def _deliver_whole(self, result: ListLoadResult) -> None:
        request, state, pause = result.job, result.job.roster, Pause(YIELD_EVERY)
        if not request.watches:
            state.shown.clear()
        names = {row.job.key: row.name for row in result.rows if row.name is not None}
        state.named(next(iter(names.values()), None)).replace(names)
        for row in result.rows:
            change = ListRowChange(
                *(row.key, row.outcome, row.special), again=True, skipped=result.skipped
            )
            await self._change(state, change, request.watches, pause)
        for key in state.missing(row.key for row in result.rows):
            change = ListRowChange(key, ABSENT, skipped=result.skipped)
            await self._change(state, change, request.watches, pause)
        for each in request.watches:
            if each in result.skipped:
                state.skip(each, result.skipped[each])
            else:
                each.failing = False

    async def _admit(self, result: ListLoadResult) -> None:
        """Deliver a list to the subscriptions that wait for it."""
        pause, shared = Pause(YIELD_EVERY), _same_for_all(result)
        for each in result.job.newcomers:
            # It may have ended, or moved to another list, in a pause.
            if each.active and each in result.job.roster.newcomers:
                snapshot, steps = self._admit_one(each, result, shared)
                if each.on_started is not None:
                    on_started, each.on_started = each.on_started, None
                    on_started(snapshot)
                # Slow where the rows are compared for each subscription.
                await pause.after(steps)

    def _admit_one(
        self, subscription: ListSubscription, result: ListLoadResult, shared: _Shared | None
    ) -> tuple[ListSnapshot, int]:
        """Return the list as a subscription receives it, and the number of steps that took."""
        state, claimed = result.job.roster, subscription in result.has
        if claimed:
            subscription.has, subscription.have = result.has[subscription], None
        resumed = subscription.has is not None
        if shared is None:
            rows = [(row.key, row.special.get(subscription, row.outcome)) for row in result.rows]
            admitted = admit(state, subscription, rows, claimed=claimed)
            return ListSnapshot(admitted, resumed), len(result.rows)
        if subscription.has is None:
            state.join(subscription)
            return shared.listed, 1
        news = shared.differences(subscription.has)
        admit_returning(state, subscription, news)
        return ListSnapshot(resumed=True), max(1, len(news))

    def failed(self, subscriptions: Iterable[RowSubscription | ListSubscription]) -> None:
        """Deliver an error to subscriptions that can't be loaded for now."""
        for each in subscriptions:
            if isinstance(each, RowSubscription):
                offer(each, FAILED)
            elif each.on_started is not None:
                self._refuse(each, FAILED)
            elif not each.failing:
                each.failing = True
                each.put(None, UNKNOWN, FAILED)

    def _refuse(self, subscription: ListSubscription, refusal: Refusal) -> None:
        if subscription.on_started is not None and subscription.active:
            on_started, subscription.on_started = subscription.on_started, None
            self._hub.discard(subscription)
            on_started(refusal)


def offer(subscription: RowSubscription, outcome: Outcome) -> None:
    """Deliver the outcome of a load to a subscription. The first one answers the request to subscribe."""
    if not subscription.active:
        return
    if subscription.on_started is None:
        subscription.send_queue.put(subscription, outcome)
        return
    on_started, subscription.on_started = subscription.on_started, None
    if isinstance(outcome, View):
        subscription.shown = outcome.digest
    on_started(outcome)


def _parts(due: Iterable[ListDelivery]) -> Iterator[ListDelivery]:
    for subscriptions, had, outcome, kind in due:
        for start in range(0, len(subscriptions), YIELD_EVERY):
            yield subscriptions[start : start + YIELD_EVERY], had, outcome, kind


class _Shared:
    """
    A list that all subscriptions see alike.

    Attributes:
        listed: The list for a subscription that holds nothing.
    """

    def __init__(self, views: Mapping[Hashable, View]) -> None:
        self._views = views
        self._last: tuple[Shown, list[Difference]] | None = None
        self.listed = ListSnapshot([SnapshotRow(key, view) for key, view in views.items()])

    def differences(self, held: Shown) -> list[Difference]:
        """Return the difference to the rows that a client holds; cached for the last object."""
        if self._last is None or self._last[0] is not held:
            self._last = held, differences(held, self._views)
        return self._last[1]


def _same_for_all(result: ListLoadResult) -> _Shared | None:
    """Return the list if all subscriptions see the same rows, and none is refused."""
    views: dict[Hashable, View] = {}
    for row in result.rows:
        if row.special or not isinstance(row.outcome, View):
            return None
        if row.outcome.body is not None:
            views[row.key] = row.outcome
    return _Shared(views)
