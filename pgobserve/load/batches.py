"""
Takes due reads from the hub batch by batch, reads each in a loader thread, and delivers the results.

While a thread reads a batch, the next one gathers in the hub, so that batches grow with the load. A batch
that fails is split until the row or list is found that fails.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, TypeVar

from django.db import DatabaseError

from pgobserve.database.connection_watchdog import Unreachable, is_locked
from pgobserve.hub.list_state import ListRow, ListState
from pgobserve.hub.load_requests import (
    FAILED,
    NEVER,
    ListLoadRequest,
    ListLoadResult,
    LoadRequest,
    LoadResult,
)
from pgobserve.hub.outcome import UNREAD
from pgobserve.load.lanes import Lane
from pgobserve.read.list_batch import MAX_LISTS_PER_QUERY, SMALL_LIST
from pgobserve.workers.pool_worker import ThreadHeld
from pgobserve.workers.retrying import backoff
from pgobserve.workers.thread_pool import HOLD_TIMEOUT

Thing = TypeVar("Thing", bound="RowState | ListRow | ListState")

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable, Sequence

    from pgobserve.deliver.delivery import Delivery
    from pgobserve.hub.hub import Hub, ReverseLookup, RowState
    from pgobserve.hub.subscriptions import Subscription
    from pgobserve.load.lanes import Lanes
    from pgobserve.load.load_log import LoadLog
    from pgobserve.read.row_reader import RowReader

    #: The subscriptions of each row or list of a batch.
    Audiences = Sequence[Sequence[Subscription]]

#: Subscriptions to one list that arrive together, such as those of clients that all reconnect.
CROWD: Final = 8

#: Seconds in which a crowd gathers before the list is read for it again.
GATHER_TIME: Final = 0.2

#: Tasks that serve in place of others whose loads are slow.
MAX_EXTRA: Final = 6

#: Keys read by one query at most.
MAX_KEYS_PER_QUERY: Final = 500


@dataclass(slots=True, eq=False)
class Batches:
    """
    Reads what is due in a hub, and delivers it.

    Args:
        run: Runs a load in a thread of its lane, while it is wanted.
        list_threads: How many threads may read lists at a time, outside of lanes.
    """

    _hub: Hub
    _reader: RowReader
    _run: Callable[..., Coroutine[Any, Any, Any]]
    _delivery: Delivery
    _lanes: Lanes
    _log: LoadLog
    list_threads: int = 1
    _work: asyncio.Event = field(default_factory=asyncio.Event)
    _reading_lists: int = 0
    # Models whose tables are locked: their loads wait for each other, in threads of their own.
    _locked: set[str] = field(default_factory=set)
    _lock_lane: Lane = field(default_factory=lambda: Lane(object, shared=True))
    # Loads that wait for locks, and tasks that serve while loads are slow.
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _extra: int = 0

    def kick(self) -> None:
        """Wake the threads and lanes if the hub has work for them."""
        if self._hub.dirty:
            self._work.set()
            self._lanes.kick()

    async def serve(self, ended: asyncio.Event | None = None) -> None:
        """Take work from the hub and do it, until cancelled or ``ended``."""
        delays, lists_first = backoff(), False
        while True:
            await self._work.wait()
            if ended is not None and ended.is_set():
                return
            work = self._take(lists_first)
            lists_first = not lists_first
            if work is None:
                self._work.clear()
                continue
            # While the work is slow, another task serves in its place.
            replaced = asyncio.Event()
            timer = asyncio.get_running_loop().call_later(HOLD_TIMEOUT, self._replace, replaced)
            try:
                reached = await work
            finally:
                timer.cancel()
                replaced.set()
                if self._extra:
                    self._work.set()  # so that the other task ends
            if reached:
                delays = backoff()
            else:
                # The database is away. Nothing is lost, for the rows are dirty again.
                await asyncio.sleep(next(delays))
            self.kick()

    def _replace(self, ended: asyncio.Event) -> None:
        if self._extra < MAX_EXTRA:
            self._extra += 1
            self.list_threads += 1
            self._start(self.serve(ended)).add_done_callback(self._replaced)
            self._work.set()

    def _replaced(self, _: object) -> None:
        self._extra -= 1
        self.list_threads -= 1

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name="pgobserve-loader-extra")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.task_failed(error)
        self.kick()

    async def aclose(self) -> None:
        """End the additional tasks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _apart(
        self, taken: list[Thing], load: Callable[..., Coroutine[Any, Any, bool]]
    ) -> list[Thing]:
        """Return what no lock delays; the rest is read by threads for which no other load waits."""
        if not self._locked:
            return taken
        free: list[Thing] = []
        locked: list[Thing] = []
        for each in taken:
            audience = each.audience
            if isinstance(each, ListState):
                audience = (*audience, *each.newcomers)
            (locked if self._model(audience) in self._locked else free).append(each)
        if locked:
            self._start(self._wait(load(locked, self._lock_lane)))
        return free

    async def _wait(self, work: Coroutine[Any, Any, bool]) -> None:
        if not await work:
            await asyncio.sleep(next(backoff(1.0)))

    def _model(self, subscriptions: Sequence[Subscription]) -> str:
        return self._reader.label(subscriptions[0]) if subscriptions else ""

    def _take(self, lists_first: bool) -> Coroutine[Any, Any, bool] | None:
        """
        Take work from the hub.

        Returns:
            The work, which must be awaited at once; it returns False if the database could not be
            reached. None if there is no work.
        """
        if lookups := self._hub.take_lookups():
            return self._resolve(lookups)
        if lists_first and (states := self._take_lists()):
            return self.load_lists(states)
        while rows := self._hub.take(MAX_KEYS_PER_QUERY):
            if rows := self._apart(rows, self.load_rows):
                return self.load_rows(rows)
        if states := self._take_lists():
            return self.load_lists(states)
        return None

    def _take_lists(self, lane: Hashable = None) -> list[ListState]:
        if lane is None and self._reading_lists >= self.list_threads:
            return []
        while states := self._hub.take_lists(
            MAX_KEYS_PER_QUERY, few=SMALL_LIST, limit=MAX_LISTS_PER_QUERY, lane=lane
        ):
            if lane is not None or (states := self._apart(states, self.load_lists)):
                break
        return states

    async def load_lane(self, lane: Lane) -> bool:
        """Load from a lane; return whether there was work."""
        if rows := self._hub.take(MAX_KEYS_PER_QUERY, lane):
            work = self.load_rows(rows, lane)
        elif states := self._take_lists(lane):
            work = self.load_lists(states, lane)
        else:
            return False
        if not await work:
            await asyncio.sleep(next(backoff(1.0)))
        return True

    async def load_rows(self, rows: Sequence[RowState | ListRow], lane: Lane | None = None) -> bool:
        """Read rows and deliver them; return False if the database could not be reached."""
        requests = [LoadRequest(row, row.audience) for row in rows]
        batches, reached = [requests], True
        try:
            while batches:
                batch = batches.pop()
                audiences = [request.watches for request in batch]
                wanted = partial(_any_active, audiences)
                try:
                    load = partial(self._reader.load, batch)
                    results = await self._run(load, lane, wanted)
                except Unreachable as error:
                    self.give_back(batch)
                    reached = self._missed(error, wanted) and reached
                except Exception as error:  # noqa: BLE001 (it is logged)
                    batches += await self._batch_failed(batch, error, lane)
                else:
                    self._log.loaded(len(results))
                    if lane is self._lock_lane:
                        self._locked -= {self._model(each) for each in audiences}
                    await self._delivery.rows(results)
        except BaseException:
            self.give_back(requests)
            raise
        return reached

    async def _batch_failed(
        self, batch: list[LoadRequest], error: Exception, lane: Lane | None
    ) -> list[list[LoadRequest]]:
        """Return the halves of a batch, the last one to be read first; for a single row deliver the error."""
        if isinstance(error, ThreadHeld) and error.watches:
            self.give_back(batch)
            self._isolate(error, [request.watches for request in batch], lane)
            return []
        if is_locked(error):
            return await self._rows_locked(batch, error)
        # One row must not spoil the batch that it shares: halve it until the row is found.
        if len(batch) > 1:
            half = len(batch) // 2
            return [batch[half:], batch[:half]]
        self._log.row_failed(batch[0], error)
        failed = isinstance(error, DatabaseError | ThreadHeld)
        await self._delivery.rows([LoadResult(batch[0], NEVER, UNREAD, failed=failed)])
        return []

    async def _rows_locked(
        self, batch: list[LoadRequest], error: Exception
    ) -> list[list[LoadRequest]]:
        """Return a batch by models, to find the locked table; of a single model schedule the retry."""
        by_model: dict[str, list[LoadRequest]] = defaultdict(list)
        for request in batch:
            by_model[self._model(request.watches)].append(request)
        if len(by_model) > 1:
            return [*by_model.values()]
        self._is_locked(next(iter(by_model)), error)
        results = [LoadResult(each, NEVER, UNREAD, failed=True, locked=True) for each in batch]
        await self._delivery.rows(results)
        return []

    async def _lists_locked(
        self,
        requests: Sequence[ListLoadRequest],
        error: Exception,
        lane: Lane | None,
        wanted: Callable[[], bool],
    ) -> Sequence[ListLoadResult | None]:
        by_model: dict[str, dict[int, ListLoadRequest]] = defaultdict(dict)
        for number, each in enumerate(requests):
            by_model[self._model((*each.watches, *each.newcomers))][number] = each
        if len(by_model) == 1:
            self._is_locked(next(iter(by_model)), error)
            return [
                ListLoadResult(each, NEVER, (), refusal=FAILED, failed=True, locked=True)
                for each in requests
            ]
        results: dict[int, ListLoadResult | None] = {}
        for some in by_model.values():
            read = await self._read_lists([*some.values()], lane, wanted)
            results.update(zip(some, read, strict=True))
        return [results[number] for number in range(len(requests))]

    def _is_locked(self, model: str, error: Exception) -> None:
        if model not in self._locked:
            self._locked.add(model)
            self._log.locked(model, error)

    def _isolate(self, error: ThreadHeld, audiences: Audiences, lane: Lane | None) -> None:
        """Read the subscriptions whose hook holds the thread apart from all others."""
        if lane is not None and not lane.shared:
            raise error
        culprits, owner = set(error.watches), error.owner
        self._lanes.isolate(
            error,
            []
            if lane is not None
            else [
                each
                for each in chain.from_iterable(audiences)
                if each not in culprits and self._reader.owner(each) is owner
            ],
        )

    def _missed(self, error: Unreachable, wanted: Callable[[], bool]) -> bool:
        """Return whether the database may be there although a load has failed to reach it."""
        if not wanted():
            return True  # its query was ended because of that
        self._log.unreachable(error)
        return False

    async def load_lists(self, states: Sequence[ListState], lane: Lane | None = None) -> bool:
        """Read lists and deliver them; return False if the database could not be reached."""
        self._reading_lists += lane is None
        waiting = {
            state: ListLoadRequest(state, state.audience, tuple(state.newcomers))
            for state in states
        }
        audiences = [(*each.watches, *each.newcomers) for each in waiting.values()]
        wanted = partial(_any_active, audiences)
        try:
            results = await self._read_lists(list(waiting.values()), lane, wanted)
            for state, result in zip(states, results, strict=True):
                if result is None:
                    state.alone = True
                    continue
                del waiting[state]
                await self._delivery.whole(result)
                if len(result.job.newcomers) >= CROWD:
                    self._gather(state)
        except Unreachable as error:
            return self._missed(error, wanted)
        except ThreadHeld as error:
            audiences = [(*each.watches, *each.newcomers) for each in waiting.values()]
            self._isolate(error, audiences, lane)
        finally:
            self._reading_lists -= lane is None
            for state in waiting:
                state.done_whole(None)
                self._hub.done_list(state)
        return True

    def _gather(self, state: ListState) -> None:
        """Delay the next read for newcomers: a read for each of a thousand would delay all of them."""
        state.gathering = True
        asyncio.get_running_loop().call_later(GATHER_TIME, self._gathered, state)

    def _gathered(self, state: ListState) -> None:
        state.gathering = False
        self._hub.done_list(state)
        self.kick()

    async def _read_lists(
        self, requests: Sequence[ListLoadRequest], lane: Lane | None, wanted: Callable[[], bool]
    ) -> Sequence[ListLoadResult | None]:
        try:
            load = partial(self._reader.load_lists, requests)
            results: Sequence[ListLoadResult | None] = await self._run(load, lane, wanted)
        except Unreachable:
            raise
        except Exception as error:
            if isinstance(error, ThreadHeld) and error.watches:
                raise
            if is_locked(error):
                return await self._lists_locked(requests, error, lane, wanted)
            if len(requests) > 1:
                self._log.lists_failed(len(requests), error)
                return [None] * len(requests)
            self._log.list_failed(requests[0], error)
            return [ListLoadResult(requests[0], NEVER, (), refusal=FAILED, failed=True)]
        self._log.loaded(sum(len(each.rows) for each in results if each is not None))
        if lane is self._lock_lane:
            self._locked -= {self._model((*each.watches, *each.newcomers)) for each in requests}
        return results

    async def _resolve(self, lookups: list[ReverseLookup]) -> bool:
        """Resolve changes of related tables to the rows that they concern."""
        waiting = list(lookups)
        try:
            while waiting:
                keys = await self._keys_of(waiting[0])
                self._hub.resolved(waiting.pop(0), keys)
        except Unreachable as error:
            self._log.unreachable(error)
            return False
        finally:
            for lookup in waiting:
                self._hub.give_back(lookup)
        return True

    async def _keys_of(self, lookup: ReverseLookup) -> Sequence[Hashable] | None:
        """Return the keys of a reverse look-up; None if any row may be concerned."""
        try:
            resolve = partial(self._reader.resolve, lookup)
            keys: Sequence[Hashable] | None = await self._run(resolve, None, lambda: True)
        except Unreachable:
            raise
        except Exception as error:  # noqa: BLE001 (it is logged)
            self._log.lookup_failed(lookup, error)
            return None
        return keys

    def give_back(self, requests: Sequence[LoadRequest]) -> None:
        """Mark the rows of requests dirty again, unless their load has ended."""
        for request in requests:
            row = request.row
            if isinstance(row, ListRow):
                if row.roster.loading:
                    self._delivery.done(row, failed=True)
            elif row.loading:
                self._hub.done(row, None)


def _any_active(audiences: Audiences) -> bool:
    return any(each.active for audience in audiences for each in audience)
