"""
Reads what changed, a batch at a time, and offers what was found to those who watch.

While a batch is read the next one gathers in the hub, so that batches grow with the load. What
reading and rendering mean is the surface's business, given as functions that run in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from django.db import DatabaseError, connections

from pgobserve.database.connection_watchdog import ConnectionWatchdog, Unreachable
from pgobserve.hub.list_state import ListRow
from pgobserve.hub.load_requests import (
    FAILED,
    NEVER,
    ListLoadRequest,
    ListLoadResult,
    LoadRequest,
    LoadResult,
)
from pgobserve.hub.outcome import UNREAD
from pgobserve.load.delivery import Delivery
from pgobserve.load.lanes import Lane, Lanes
from pgobserve.load.list_batch import MAX_LISTS_PER_QUERY, SMALL_LIST
from pgobserve.load.retries import Retries
from pgobserve.logs import fields
from pgobserve.sql.model_tables import title_of
from pgobserve.workers.backoff import backoff
from pgobserve.workers.held_threads import ThreadHeld
from pgobserve.workers.supervisor import Supervisor
from pgobserve.workers.thread_pool import ABANDON_TIMEOUT, ThreadPool

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable, Sequence

    from pgobserve.hub.hub import Hub, ReverseLookup, RowState
    from pgobserve.hub.list_state import ListState
    from pgobserve.hub.list_subscription import Subscription
    from pgobserve.load.row_reader import Reader

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

#: Keys read by one query at most.
MAX_KEYS_PER_QUERY: Final = 500

#: Threads for lanes: subscriptions whose hooks have held a thread.
LANES: Final = 2


@dataclass(slots=True)
class LoaderState:
    """
    Counters of the loader.

    Attributes:
        batches: Loads that ended well.
        rows: Rows read by them.
        failures: Loads that failed; they are repeated.
    """

    batches: int = 0
    rows: int = 0
    failures: int = 0


class _NoReader:
    def load(self, jobs: Sequence[LoadRequest]) -> Sequence[LoadResult]:
        raise NotImplementedError

    def load_lists(self, jobs: Sequence[ListLoadRequest]) -> Sequence[ListLoadResult | None]:
        raise NotImplementedError

    def resolve(self, lookup: ReverseLookup) -> Sequence[Hashable] | None:
        raise NotImplementedError

    def owner(self, watch: Subscription) -> type:
        raise NotImplementedError

    def label(self, watch: Subscription) -> str:
        raise NotImplementedError


class Loader:
    """
    Takes dirty rows from the hub, loads them in threads and delivers.

    Args:
        alias: The database alias.
        hub: Where the rows gather.
        sources: Reads and renders; runs in the loader's threads. None where nothing is watched
            and only :meth:`call` is wanted.
        threads: How many; as many loads run at a time.
        timeout: Seconds that a hook may hold a thread.
        lost: Called when one of the loader's tasks has ended: what it was busy with may be lost.
        statement_timeout: Seconds that the server works on one statement; 0 for as long as it takes.
    """

    def __init__(
        self,
        alias: str,
        hub: Hub,
        sources: Reader | None,
        threads: int,
        *,
        timeout: float = ABANDON_TIMEOUT,
        statement_timeout: float = 0,
        lost: Callable[[], object] = lambda: None,
    ) -> None:
        self.state = LoaderState()
        self._alias = alias
        self._failing_since = 0.0
        self._hub = hub
        self._sources: Reader = sources or _NoReader()
        self._work = asyncio.Event()
        self._count = threads
        self._reading_lists = 0
        self._repeats = Retries(self._repeat)
        self._delivery = Delivery(hub, self._repeats)
        self._upkeep = ConnectionWatchdog(alias, timeout=statement_timeout)
        self._timeout = timeout
        self._lost = lost
        self._held: dict[Any, None] = {}
        self._threads = self._make_threads(threads)
        # Made when there is a lane, which mostly there is not.
        self._lane_threads: ThreadPool | None = None
        self._lanes = Lanes(
            *(hub, self._lane_turn, self._lane_failed, self.kick, self._threads.held_by),
            alias=alias,
        )
        hub.clear_lanes()  # those of a loader before this one

    def _make_threads(self, count: int) -> ThreadPool:
        upkeep = self._upkeep
        return ThreadPool(
            *(count, connections.close_all, upkeep.tidy),
            timeout=self._timeout,
            waits=upkeep.waits,
            cut=upkeep.cut,
            held=self._held,
            alias=self._alias,
        )

    @property
    def failing(self) -> Collection[RowState | ListRow | ListState]:
        """What is to be read again after a while, because its query failed."""
        return self._repeats.failing

    def kick(self) -> None:
        """Say that the hub may have rows to read."""
        if self._hub.dirty:
            self._work.set()
            self._lanes.kick()

    async def call(self, function: Callable[[], Result], *, owner: type | None = None) -> Result:
        """
        Run a function that needs the database in one of the loader's threads.

        Args:
            function: What to run.
            owner: The class whose hooks it runs, if it runs any.

        Raises:
            Unreachable: The database can't be reached, or the loader has been stopped.
            ThreadHeld: A hook holds the thread for too long, or the owner's hooks hold too many.
        """
        if self._threads.stopped:
            raise Unreachable("the feed is being stopped")
        return await self._threads.run(lambda: self._upkeep.run(function), owner=owner)

    async def _load(
        self, function: Callable[[], Result], lane: Lane | None, wanted: Callable[[], bool]
    ) -> Result:
        """Run a load; that of a lane in a thread that others do not wait for."""
        if self._threads.stopped:
            raise Unreachable("the feed is being stopped")
        if lane is not None and self._lane_threads is None:
            self._lane_threads = self._make_threads(LANES)
        pool = self._threads if lane is None else self._lane_threads
        assert pool is not None  # noqa: S101 (made above)
        alone = lane is not None and not lane.shared
        work = partial(self._upkeep.run, function, wanted)
        return await pool.run(work, alone=alone, wanted=wanted)

    def stop(self) -> None:
        """Let the threads end; for a loader whose :meth:`run` may not have had its first turn."""
        self._threads.stop()
        if self._lane_threads is not None:
            self._lane_threads.stop()

    def abandon(self) -> None:
        """End the threads of a closed event loop, whatever they do; may be called in any thread."""
        for pool in (self._threads, self._lane_threads):
            if pool is not None:
                pool.abandon()

    async def run(self) -> None:
        """Serve the hub until cancelled; ends the threads and their connections."""
        works = {f"pgobserve-loader-{number}": self._serve for number in range(self._count)}
        try:
            supervisor = Supervisor(
                f"the loader of database {self._alias!r}", self._lost, alias=self._alias
            )
            await supervisor.run({**works, "pgobserve-upkeep": self._upkeep.watch})
        finally:
            self._repeats.end()
            self.stop()
            await self._lanes.aclose()
            self._upkeep.end()
            for pool in (self._threads, self._lane_threads):
                if pool is not None:
                    await pool.close()

    async def _serve(self) -> None:
        delays = backoff()
        lists_first = False
        while True:
            await self._work.wait()
            reached = await self._turn(lists_first)
            lists_first = not lists_first
            if reached is None:
                self._work.clear()
            elif reached:
                delays = backoff()
            else:
                # The database is away. Nothing is lost, for the rows are dirty again.
                await asyncio.sleep(next(delays))
            if reached is not None:
                self.kick()

    async def _lane_turn(self, lane: Lane) -> bool:
        """Do some work of a lane; return whether there was any."""
        if rows := self._hub.take(MAX_KEYS_PER_QUERY, lane):
            reached = await self._read([LoadRequest(row, row.audience) for row in rows], lane)
        elif rosters := self._hub.take_wholes(
            MAX_KEYS_PER_QUERY, few=SMALL_LIST, limit=MAX_LISTS_PER_QUERY, lane=lane
        ):
            reached = await self._read_wholes(rosters, lane)
        else:
            return False
        if not reached:
            await asyncio.sleep(next(backoff(1.0)))
        return True

    def _lane_failed(self, lane: Lane) -> None:
        self._delivery.failed(self._hub.lane(lane))

    async def _turn(self, lists_first: bool) -> bool | None:
        """Do some work; return whether the database was reached, None if there was nothing."""
        if lookups := self._hub.take_lookups():
            return await self._resolve(lookups)
        if lists_first and (rosters := self._take_wholes()):
            return await self._read_wholes(rosters)
        if rows := self._hub.take(MAX_KEYS_PER_QUERY):
            return await self._read([LoadRequest(row, row.audience) for row in rows])
        if rosters := self._take_wholes():
            return await self._read_wholes(rosters)
        return None

    def _take_wholes(self) -> list[ListState]:
        # A thread is left for rows: lists take as long as their clients' searches do.
        if self._reading_lists >= max(1, self._count - 1):
            return []
        return self._hub.take_wholes(MAX_KEYS_PER_QUERY, few=SMALL_LIST, limit=MAX_LISTS_PER_QUERY)

    async def _resolve(self, lookups: list[ReverseLookup]) -> bool:
        """Lead changes back to the rows that they concern."""
        waiting = list(lookups)
        try:
            while waiting:
                keys = await self._keys_of(waiting[0])
                self._hub.resolved(waiting.pop(0), keys)
        except Unreachable as error:
            self._unreachable(error)
            return False
        finally:
            for lookup in waiting:
                self._hub.give_back(lookup)
        return True

    async def _keys_of(self, lookup: ReverseLookup) -> Sequence[Hashable] | None:
        """Return the keys of the rows that changes concern; None: any may be one."""
        try:
            return await self.call(lambda: self._sources.resolve(lookup))
        except Unreachable:
            raise
        except Exception:
            logger.exception(
                "Resolving changes of %s to rows of %s failed in database %r; all rows of it that "
                "have subscribers are read.",
                title_of(lookup.path.table),
                model := title_of(lookup.subject.tables[0]),
                self._alias,
                extra=fields(model=model, alias=self._alias),
            )
            return None

    async def _read(self, jobs: list[LoadRequest], lane: Lane | None = None) -> bool:
        try:
            return await self._attempt(jobs, lane)
        except BaseException:
            self._give_back(jobs)
            raise

    async def _attempt(self, jobs: list[LoadRequest], lane: Lane | None) -> bool:
        """Load and deliver; return False if the database could not be reached."""
        wanted = partial(_are_watched, jobs)
        try:
            found = await self._load(lambda: self._sources.load(jobs), lane, wanted)
        except Unreachable as error:
            self._give_back(jobs)
            return self._missed(error, wanted)
        except Exception as error:  # noqa: BLE001 (it is logged)
            if isinstance(error, ThreadHeld) and error.watches:
                self._give_back(jobs)
                self._isolate(error, (watch for job in jobs for watch in job.watches), lane)
                return True
            # One row must not spoil the batch it shares: halve it until the row is found.
            if len(jobs) == 1:
                self._log_unread(jobs[0], error)
                failed = isinstance(error, DatabaseError | ThreadHeld)
                await self._delivery.rows([LoadResult(jobs[0], NEVER, UNREAD, failed=failed)])
                return True
            half = len(jobs) // 2
            first = await self._attempt(jobs[:half], lane)
            return await self._attempt(jobs[half:], lane) and first
        self.state.batches += 1
        self.state.rows += len(found)
        self._reached(len(found))
        await self._delivery.rows(found)
        return True

    def _isolate(
        self, error: ThreadHeld, watches: Iterable[Subscription], lane: Lane | None
    ) -> None:
        """Have others go on without those whose hook holds the thread."""
        if lane is not None and not lane.shared:
            raise error
        culprits, owner = set(error.watches), error.owner
        self._lanes.isolate(
            error,
            []
            if lane is not None
            else [w for w in watches if w not in culprits and self._sources.owner(w) is owner],
        )

    def _unreachable(self, error: Unreachable) -> None:
        self.state.failures += 1
        if self.state.failures == 1:
            self._failing_since = time.monotonic()
            logger.warning(
                "Reading from database %r failed: %s. Its %d subscriptions keep their last state. "
                "The loader retries.",
                *(self._alias, error, len(self._hub)),
                extra=fields(alias=self._alias),
            )

    def _reached(self, count: int) -> None:
        """Note that a load has come back from the database, with a number of rows."""
        if self.state.failures:
            logger.warning(
                "Database %r answers again after %.1f s and %d attempts; %d rows were read, and %d "
                "rows and lists are waiting.",
                *(self._alias, time.monotonic() - self._failing_since, self.state.failures),
                *(count, self._hub.dirty),
                extra=fields(alias=self._alias),
            )
        self.state.failures = 0

    def _log_unread(self, job: LoadRequest, error: Exception) -> None:
        consumer, model = self._names(job.watches)
        logger.error(
            "Reading %s %s for %s failed in database %r; its %d subscribers receive an error.",
            *(model, job.key, consumer, self._alias, len(job.watches)),
            exc_info=error,
            extra=fields(consumer=consumer, model=model, key=job.key, alias=self._alias),
        )

    def _log_unread_list(self, job: ListLoadRequest, error: Exception) -> None:
        consumer, model = self._names((*job.watches, *job.newcomers))
        logger.error(
            "Reading the list of %s (%s) failed in database %r; %d subscribers keep their last "
            "state, and %d new ones receive an error. The loader retries while the list has "
            "subscribers.",
            *(consumer, model, self._alias, len(job.watches), len(job.newcomers)),
            exc_info=error,
            extra=fields(consumer=consumer, model=model, alias=self._alias),
        )

    def _names(self, watches: Sequence[Subscription]) -> tuple[str, str]:
        """Return whose rows are read, for the log: of which consumer, and of which model."""
        owners = dict.fromkeys(self._sources.owner(watch).__qualname__ for watch in watches)
        return ", ".join(owners), self._sources.label(watches[0]) if watches else "?"

    def _missed(self, error: Unreachable, wanted: Callable[[], bool]) -> bool:
        """Note that a load came to nothing; return whether the database may be there all the same."""
        if not wanted():
            return True  # its query was ended because of that
        self._unreachable(error)
        return False

    async def _read_wholes(self, rosters: Sequence[ListState], lane: Lane | None = None) -> bool:
        """Read lists and deliver them; return False if the database could not be reached."""
        self._reading_lists += lane is None
        waiting = {
            roster: ListLoadRequest(roster, roster.audience, tuple(roster.newcomers))
            for roster in rosters
        }
        wanted = partial(_are_followed, tuple(waiting.values()))
        try:
            found = await self._load_wholes(list(waiting.values()), lane, wanted)
            for roster, whole in zip(rosters, found, strict=True):
                if whole is None:
                    roster.alone = True
                    continue
                del waiting[roster]
                await self._delivery.whole(whole)
        except Unreachable as error:
            return self._missed(error, wanted)
        except ThreadHeld as error:
            jobs = waiting.values()
            self._isolate(
                error, (watch for j in jobs for watch in (*j.watches, *j.newcomers)), lane
            )
        finally:
            self._reading_lists -= lane is None
            for roster in waiting:
                roster.done_whole(None)
                self._hub.done_list(roster)
        return True

    async def _load_wholes(
        self, jobs: Sequence[ListLoadRequest], lane: Lane | None, wanted: Callable[[], bool]
    ) -> Sequence[ListLoadResult | None]:
        try:
            found = await self._load(lambda: self._sources.load_lists(jobs), lane, wanted)
        except Unreachable:
            raise
        except Exception as error:
            if isinstance(error, ThreadHeld) and error.watches:
                raise
            if len(jobs) > 1:
                logger.debug(
                    "Reading %d lists of database %r together failed; each is read alone.",
                    *(len(jobs), self._alias),
                    exc_info=True,
                    extra=fields(alias=self._alias),
                )
                return [None] * len(jobs)
            self._log_unread_list(jobs[0], error)
            return [ListLoadResult(jobs[0], NEVER, (), refusal=FAILED, failed=True)]
        count = sum(len(whole.rows) for whole in found if whole is not None)
        self._reached(count)
        self.state.batches += 1
        self.state.rows += count
        return found

    def _repeat(self, row: RowState | ListRow | ListState) -> None:
        self._hub.mark(row)
        self.kick()

    def _give_back(self, jobs: Sequence[LoadRequest]) -> None:
        for job in jobs:
            row = job.row
            if isinstance(row, ListRow):
                if row.roster.loading:
                    self._delivery.done(row, failed=True)
            elif row.loading:
                self._hub.done(row, None)


def _are_watched(jobs: Sequence[LoadRequest]) -> bool:
    return any(watch.active for job in jobs for watch in job.watches)


def _are_followed(jobs: Sequence[ListLoadRequest]) -> bool:
    return any(watch.active for job in jobs for watch in (*job.watches, *job.newcomers))
