"""The loader of a database: the threads that read, and their connections."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from django.db import connections

from pgobserve.database.connection_watchdog import ConnectionWatchdog, Unreachable
from pgobserve.deliver.delivery import Delivery
from pgobserve.load.batches import Batches
from pgobserve.load.lanes import Lane, Lanes
from pgobserve.load.load_log import LoadLog
from pgobserve.workers.retrying import Retries, Supervisor
from pgobserve.workers.thread_pool import ABANDON_TIMEOUT, ThreadPool

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine

    from pgobserve.hub.hub import Hub, RowState
    from pgobserve.hub.list_state import ListRow, ListState
    from pgobserve.read.row_reader import RowReader

Result = TypeVar("Result")

#: Threads of lanes: for subscriptions whose hooks have held a thread.
LANES: Final = 2


class Loader:
    """
    Takes dirty rows from the hub, loads them in threads and delivers the results.

    Args:
        threads: How many threads read, each a batch at a time.
        timeout: Seconds that a hook may hold a thread.
        lost: Called when a task of the loader has ended: its batch may be lost.
        statement_timeout: Seconds after which the server ends a statement; 0 for no limit.
    """

    def __init__(
        self,
        alias: str,
        hub: Hub,
        reader: RowReader,
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
            hub,
            lambda lane: self._batches.load_lane(lane),
            lambda lane: self._delivery.failed(hub.lane(lane)),
            *(self.kick, self._threads.held_by),
            alias=alias,
        )
        self._batches = Batches(
            *(hub, reader, self._in_thread, self._delivery, self._lanes, self._log),
            # One thread is left for rows: a list takes as long as its clients' searches do.
            list_threads=max(1, threads - 1),
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
        self._batches.kick()

    async def call(self, function: Callable[[], Result], *, owner: type | None = None) -> Result:
        """
        Run a function that needs the database in one of the loader's threads.

        Args:
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
        works = {f"pgobserve-loader-{number}": self._batches.serve for number in range(self._count)}
        try:
            supervisor = Supervisor(
                f"the loader of database {self._alias!r}", self._lost, alias=self._alias
            )
            await supervisor.run({**works, "pgobserve-watchdog": self._watchdog.watch})
        finally:
            self._retries.end()
            self.stop()
            await self._batches.aclose()
            await self._lanes.aclose()
            self._watchdog.end()
            for pool in (self._threads, self._lane_threads):
                if pool is not None:
                    await pool.close()

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

    def _retry(self, row: RowState | ListRow | ListState) -> None:
        self._hub.mark(row)
        self.kick()
