"""
Reads the rows that changed, a batch at a time, and offers what was found to those who watch.

While a batch is read the next one gathers in the hub, so that batches grow with the load. What
reading and rendering mean is the surface's business, given as one function that runs in a thread.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from django.db import DatabaseError, connections

from pgobserve.feed.backoff import backoff
from pgobserve.feed.mailbox import Refusal
from pgobserve.feed.repeats import Repeats
from pgobserve.feed.snapshot import Snapshot
from pgobserve.feed.threads import Threads
from pgobserve.feed.upkeep import Unreachable, Upkeep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pgobserve.feed.hub import Hub, Row
    from pgobserve.feed.mailbox import Outcome, Watch

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

#: Keys read by one query at most.
BATCH: Final = 500

#: The snapshot that has seen nothing.
NEVER: Final = Snapshot(1, 1, frozenset())

#: The answer when reading or serializing failed; the log says why, the client must not know.
FAILED: Final = Refusal(500, ("The row can't be shown: an error occurred on the server.",))


@dataclass(slots=True)
class Job:
    """
    A row to read, and for whom.

    Attributes:
        row: The row.
        watches: Who watched it when the job was made; who came later has a job of his own.
    """

    row: Row
    watches: tuple[Watch, ...]


@dataclass(slots=True)
class Found:
    """
    What a load found of one row.

    Attributes:
        job: What was asked.
        snapshot: In which it was read.
        outcome: For everyone who is not in ``special``.
        special: For those who see something else, or nothing.
        failed: A query failed for somebody; the row is to be read again.
    """

    job: Job
    snapshot: Snapshot
    outcome: Outcome
    special: dict[Watch, Outcome] = field(default_factory=dict)
    failed: bool = False


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


class Loader:
    """
    Takes dirty rows from the hub, loads them in threads and delivers.

    Args:
        alias: The database alias.
        hub: Where the rows gather.
        load: Reads and renders a batch; runs in one of the loader's threads.
        threads: How many; as many loads run at a time.
    """

    def __init__(
        self,
        alias: str,
        hub: Hub,
        load: Callable[[Sequence[Job]], Sequence[Found]],
        threads: int,
    ) -> None:
        self.state = LoaderState()
        self._hub = hub
        self._load = load
        self._work = asyncio.Event()
        self._count = threads
        self._repeats = Repeats(self._repeat)
        self._upkeep = Upkeep(alias)
        self._threads = Threads(threads, connections.close_all, self._upkeep.tidy)

    def kick(self) -> None:
        """Say that the hub may have rows to read."""
        if self._hub.dirty:
            self._work.set()

    async def call(self, function: Callable[[], Result]) -> Result:
        """
        Run a function that needs the database in one of the loader's threads.

        Raises:
            Unreachable: The database can't be reached, or the loader has been stopped.
        """
        if self._threads.stopped:
            raise Unreachable("the feed is being stopped")
        return await self._threads.run(lambda: self._upkeep.run(function))

    def stop(self) -> None:
        """Let the threads end; for a loader whose :meth:`run` may not have had its first turn."""
        self._threads.stop()

    async def run(self) -> None:
        """Serve the hub until cancelled; ends the threads and their connections."""
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._count):
                    group.create_task(self._serve(), name=f"pgobserve-loader-{number}")
                group.create_task(self._upkeep.watch(), name="pgobserve-upkeep")
        finally:
            self._repeats.end()
            await self._threads.close()
            self._upkeep.end()

    async def _serve(self) -> None:
        delays = backoff()
        while True:
            await self._work.wait()
            rows = self._hub.take(BATCH)
            if not rows:
                self._work.clear()
                continue
            jobs = [Job(row, tuple(row.watches)) for row in rows]
            try:
                reached = await self._attempt(jobs)
            except BaseException:
                self._give_back(jobs)
                raise
            if reached:
                delays = backoff()
            else:
                # The database is away. Nothing is lost, for the rows are dirty again.
                await asyncio.sleep(next(delays))
            self.kick()

    async def _attempt(self, jobs: list[Job]) -> bool:
        """Load and deliver; return False if the database could not be reached."""
        try:
            found = await self.call(lambda: self._load(jobs))
        except Unreachable as error:
            self._give_back(jobs)
            self.state.failures += 1
            if self.state.failures == 1:
                logger.warning("Watched rows can't be read: %s. It is tried again.", error)
            return False
        except Exception as error:
            # One row must not spoil the batch it shares: halve it until the row is found.
            if len(jobs) == 1:
                logger.exception("Row %r can't be read; its watchers are told.", jobs[0].row.key)
                failed = isinstance(error, DatabaseError)
                self._deliver([Found(jobs[0], NEVER, FAILED, failed=failed)])
                return True
            half = len(jobs) // 2
            first = await self._attempt(jobs[:half])
            return await self._attempt(jobs[half:]) and first
        self.state.batches += 1
        self.state.rows += len(found)
        self.state.failures = 0
        self._deliver(found)
        return True

    def _deliver(self, found: Sequence[Found]) -> None:
        for item in found:
            row = item.job.row
            self._hub.done(row, item.snapshot)
            told = row in self._repeats
            if item.failed:
                self._repeats.failed(row)
            elif told:
                self._repeats.succeeded(row)
            special, outcome, snapshot = item.special, item.outcome, item.snapshot
            for watch in item.job.watches:
                mine = special.get(watch, outcome) if special else outcome
                # Who waits for the answer to his request gets one.
                if not (told and mine is FAILED and watch.begun is None):
                    watch.offer(mine, snapshot)

    def _repeat(self, row: Row) -> None:
        self._hub.mark(row)
        self.kick()

    def _give_back(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.row.loading:
                self._hub.done(job.row, None)
