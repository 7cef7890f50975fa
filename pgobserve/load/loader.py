"""
Loads what has changed, batch by batch, and delivers the results.

While a loader thread reads a batch, the next one gathers in the hub, so that batches grow with the load.
A :class:`~pgobserve.read.row_reader.Reader` reads and renders.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from django.db import connections

from pgobserve.database.connection_watchdog import ConnectionWatchdog, Unreachable
from pgobserve.deliver.delivery import Delivery
from pgobserve.load.batches import Batches
from pgobserve.load.lanes import Lane, Lanes
from pgobserve.load.load_log import LoadLog
from pgobserve.read.list_batch import MAX_LISTS_PER_QUERY, SMALL_LIST
from pgobserve.workers.backoff import backoff
from pgobserve.workers.retries import Retries
from pgobserve.workers.supervisor import Supervisor
from pgobserve.workers.thread_pool import ABANDON_TIMEOUT, ThreadPool

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Hashable, Sequence

    from pgobserve.hub.hub import Hub, ReverseLookup, RowState
    from pgobserve.hub.list_state import ListRow, ListState
    from pgobserve.read.row_reader import Reader

Result = TypeVar("Result")

#: Keys read by one query at most.
MAX_KEYS_PER_QUERY: Final = 500

#: ThreadPool of lanes: for subscriptions whose hooks have held a thread.
LANES: Final = 2


class Loader:
    """
    Takes dirty rows from the hub, loads them in threads and delivers the results.

    Args:
        alias: The database alias.
        hub: The hub in which the rows gather.
        reader: Reads and renders, in the loader's threads.
        threads: How many threads read, each a batch at a time.
        timeout: Seconds that a hook may hold a thread.
        lost: Called when a task of the loader has ended: its batch may be lost.
        statement_timeout: Seconds after which the server ends a statement; 0 for no limit.
    """

    def __init__(
        self,
        alias: str,
        hub: Hub,
        reader: Reader,
        threads: int,
        *,
        timeout: float = ABANDON_TIMEOUT,
        statement_timeout: float = 0,
        lost: Callable[[], object] = lambda: None,
    ) -> None:
        self._alias = alias
        self._hub = hub
        self._reader = reader
        self._log = LoadLog(alias, hub, reader)
        self.state = self._log.state
        self._work = asyncio.Event()
        self._count = threads
        self._retries = Retries(self._retry)
        self._delivery = Delivery(hub, self._retries)
        self._watchdog = ConnectionWatchdog(alias, timeout=statement_timeout)
        self._timeout = timeout
        self._lost = lost
        self._held: dict[Any, None] = {}
        self._threads = self._make_threads(threads)
        # Made with the first lane: most loaders never have any.
        self._lane_threads: ThreadPool | None = None
        self._lanes = Lanes(
            *(hub, self._load_lane, self._lane_failed, self.kick, self._threads.held_by),
            alias=alias,
        )
        self._batches = Batches(
            *(hub, reader, self._in_thread, self._delivery, self._lanes, self._log),
            wake=self.kick,
        )
        hub.clear_lanes()  # those of a loader before this one

    def _make_threads(self, count: int) -> ThreadPool:
        watchdog = self._watchdog
        return ThreadPool(
            *(count, connections.close_all, watchdog.tidy),
            timeout=self._timeout,
            waits=watchdog.waits,
            cut=watchdog.cut,
            held=self._held,
            alias=self._alias,
        )

    @property
    def failing(self) -> Collection[RowState | ListRow | ListState]:
        """The rows and lists whose query failed; the loader retries them."""
        return self._retries.failing

    def kick(self) -> None:
        """Wake the loader if the hub has work for it."""
        if self._hub.dirty:
            self._work.set()
            self._lanes.kick()

    async def call(self, function: Callable[[], Result], *, owner: type | None = None) -> Result:
        """
        Run a function that needs the database in one of the loader's threads.

        Args:
            function: The function.
            owner: The class whose hooks it runs, if it runs any.

        Raises:
            Unreachable: The database can't be reached, or the loader has been stopped.
            ThreadHeld: A hook holds the thread for too long, or the owner's hooks hold too many.
        """
        if self._threads.stopped:
            raise Unreachable("the feed is being stopped")
        return await self._threads.run(lambda: self._watchdog.run(function), owner=owner)

    def stop(self) -> None:
        """End the threads once they are idle, even if :meth:`run` has never started."""
        self._threads.stop()
        if self._lane_threads is not None:
            self._lane_threads.stop()

    def abandon(self) -> None:
        """End the threads of a closed event loop at once; may be called in any thread."""
        for pool in (self._threads, self._lane_threads):
            if pool is not None:
                pool.abandon()

    async def run(self) -> None:
        """Serve the hub until cancelled; then end the threads and their connections."""
        works = {f"pgobserve-loader-{number}": self._serve for number in range(self._count)}
        try:
            supervisor = Supervisor(
                f"the loader of database {self._alias!r}", self._lost, alias=self._alias
            )
            await supervisor.run({**works, "pgobserve-watchdog": self._watchdog.watch})
        finally:
            self._retries.end()
            self.stop()
            await self._lanes.aclose()
            self._watchdog.end()
            for pool in (self._threads, self._lane_threads):
                if pool is not None:
                    await pool.close()

    async def _serve(self) -> None:
        delays, lists_first = backoff(), False
        while True:
            await self._work.wait()
            work = self._take(lists_first)
            lists_first = not lists_first
            if work is None:
                self._work.clear()
                continue
            if await work:
                delays = backoff()
            else:
                # The database is away. Nothing is lost, for the rows are dirty again.
                await asyncio.sleep(next(delays))
            self.kick()

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
            return self._batches.load_lists(states)
        if rows := self._hub.take(MAX_KEYS_PER_QUERY):
            return self._batches.load_rows(rows)
        if states := self._take_lists():
            return self._batches.load_lists(states)
        return None

    def _take_lists(self) -> list[ListState]:
        # One thread is left for rows: a list takes as long as its clients' searches do.
        if self._batches.reading_lists >= max(1, self._count - 1):
            return []
        return self._hub.take_lists(MAX_KEYS_PER_QUERY, few=SMALL_LIST, limit=MAX_LISTS_PER_QUERY)

    async def _load_lane(self, lane: Lane) -> bool:
        """Load from a lane; return whether there was work."""
        if rows := self._hub.take(MAX_KEYS_PER_QUERY, lane):
            work = self._batches.load_rows(rows, lane)
        elif states := self._hub.take_lists(
            MAX_KEYS_PER_QUERY, few=SMALL_LIST, limit=MAX_LISTS_PER_QUERY, lane=lane
        ):
            work = self._batches.load_lists(states, lane)
        else:
            return False
        if not await work:
            await asyncio.sleep(next(backoff(1.0)))
        return True

    def _lane_failed(self, lane: Lane) -> None:
        self._delivery.failed(self._hub.lane(lane))

    def _in_thread(
        self, function: Callable[[], Result], lane: Lane | None, wanted: Callable[[], bool]
    ) -> Coroutine[Any, Any, Result]:
        """Run a load; that of a lane runs in threads that other subscriptions do not wait for."""
        if self._threads.stopped:
            raise Unreachable("the feed is being stopped")
        pool = self._threads
        if lane is not None:
            pool = self._lane_threads = self._lane_threads or self._make_threads(LANES)
        alone = lane is not None and not lane.shared
        work = partial(self._watchdog.run, function, wanted)
        return pool.run(work, alone=alone, wanted=wanted)

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
            return await self.call(lambda: self._reader.resolve(lookup))
        except Unreachable:
            raise
        except Exception as error:  # noqa: BLE001 (it is logged)
            self._log.lookup_failed(lookup, error)
            return None

    def _retry(self, row: RowState | ListRow | ListState) -> None:
        self._hub.mark(row)
        self.kick()
