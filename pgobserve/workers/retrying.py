"""
Delays between attempts, retries of reads that failed, and the restart of tasks that must never end.

A time-out, a lock or an ALTER TABLE passes, but no notification follows. The loader therefore reads the
row again, with growing delays, until it succeeds. The subscribers received one error frame.

A defect, or the cancellation by other code, may end a task of the feed; subscribers would silently fall
behind. So the supervisor logs the end and starts the task again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Self

from pgobserve.logs import fields

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
    from typing import Any

    from pgobserve.hub.hub import RowState
    from pgobserve.hub.list_state import ListRow, ListState

    Work = Callable[[], Coroutine[Any, Any, object]]
    Thing = RowState | ListRow | ListState

#: Seconds after which an attempt counts as a success, so that the next delay is short again.
LASTED: Final = 1.0

#: Upper limits of the random delay in seconds: of the first retry, and of later ones.
FIRST_RETRY: Final = 0.5
MAX_RETRY: Final = 60.0

#: The longest delay of a row that waits for a lock, which may end at any moment.
MAX_LOCK_RETRY: Final = 3.0

#: Seconds for which subscribers wait for a locked row without an error.
LOCK_PATIENCE: Final = 10.0

logger = logging.getLogger(__name__)


def backoff(
    first: float = 0.1, cap: float = 5.0, draw: Callable[[], float] = random.random
) -> Iterator[float]:
    """
    Yield the seconds to wait before each attempt, without end: exponential with full jitter.

    Full jitter spreads the processes that reconnect to a restarted server. The cap is low because users
    wait, and a process costs one connection.
    """
    ceiling = first
    while True:
        yield draw() * ceiling
        ceiling = min(cap, ceiling * 2)


class Attempts:
    """Iterates over attempts at work without end: the first at once, the others after a delay."""

    def __init__(self) -> None:
        self._delays = backoff()
        self._started: float | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> None:
        if self._started is not None:
            if time.monotonic() - self._started > LASTED:
                self._delays = backoff()
            await asyncio.sleep(next(self._delays))
        self._started = time.monotonic()


@dataclass(eq=False)
class Supervisor:
    """
    Runs tasks, and restarts each that ends, after delays in seconds.

    Args:
        what: The tasks' owner, for the log.
        on_failure: Called after a task has ended: its work in progress may be lost.
    """

    what: str
    on_failure: Callable[[], object] = lambda: None
    delays: Callable[[], Iterator[float]] = backoff
    alias: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        self.restarts = 0
        self._failing: dict[str, Iterator[float]] = {}

    async def run(self, works: Mapping[str, Work]) -> None:
        """Run tasks by name until cancelled; all have ended on return."""
        tasks = {_start(name, work): name for name, work in works.items()}
        try:
            while True:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    name = tasks.pop(task)
                    self._report(name, task)
                    delay = next(self._failing.setdefault(name, self.delays()))
                    again = partial(self._again, name, works[name], delay)
                    tasks[_start(name, again)] = name
        finally:
            await _end(tasks)

    def _report(self, name: str, task: asyncio.Task[object]) -> None:
        error = None if task.cancelled() else task.exception()
        how = "was cancelled" if task.cancelled() else "failed" if error else "returned"
        self.restarts += 1
        logger.critical(
            "The task %s of %s %s, which must not happen. It starts again, and everything watched "
            "is read again.",
            *(name, self.what, how),
            exc_info=error,
            extra=fields(alias=self.alias),
        )
        try:
            self.on_failure()
        except Exception:
            logger.exception(
                "Reading everything again after the end of the task %s of %s failed.",
                *(name, self.what),
                extra=fields(alias=self.alias),
            )

    async def _again(self, name: str, work: Work, delay: float) -> object:
        if delay:
            await asyncio.sleep(delay)
        logger.critical(
            "The task %s of %s runs again, after %.1f s.",
            *(name, self.what, delay),
            extra=fields(alias=self.alias),
        )
        return await work()


def _start(name: str, work: Work) -> asyncio.Task[object]:
    return asyncio.create_task(work(), name=name)


async def _end(tasks: Mapping[asyncio.Task[object], str]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _delays() -> Iterator[float]:
    return backoff(FIRST_RETRY, MAX_RETRY)


class Retries:
    """
    Schedules the retries of failed rows and lists.

    Args:
        again: Called in the event loop with a row that is due.
        delays: Returns the delays of one row, in seconds.
    """

    def __init__(
        self, again: Callable[[Thing], object], delays: Callable[[], Iterator[float]] = _delays
    ) -> None:
        self._again = again
        self._delays = delays
        # The delays, the next retry, since when the loads fail, and whether subscribers know.
        self._failing: dict[Thing, tuple[Iterator[float], asyncio.TimerHandle, float, bool]] = {}

    def __contains__(self, row: Thing) -> bool:
        """Return whether the last load of a row failed."""
        return row in self._failing

    def reported(self, row: Thing) -> bool:
        """Return whether the last load of a row failed, and its subscribers received an error."""
        return row in self._failing and self._failing[row][3]

    @property
    def failing(self) -> Collection[Thing]:
        """The rows and lists whose last load failed."""
        return self._failing.keys()

    def failed(self, row: Thing, *, locked: bool = False) -> bool:
        """
        Schedule a retry of a row whose load failed.

        Returns:
            Whether its subscribers receive an error: not while they can wait for a lock.
        """
        now = time.monotonic()
        delays, _, since, known = self._failing.get(row, (self._delays(), None, now, False))
        self.succeeded(row)
        delay = min(next(delays), MAX_LOCK_RETRY) if locked else next(delays)
        timer = asyncio.get_running_loop().call_later(delay, self._fire, row)
        report = not locked or now - since >= LOCK_PATIENCE
        self._failing[row] = (delays, timer, since, known or report)
        return report

    def succeeded(self, row: Thing) -> None:
        """Cancel the retry of a row."""
        failing = self._failing.pop(row, None)
        if failing is not None:
            failing[1].cancel()

    def end(self) -> None:
        for row in list(self._failing):
            self.succeeded(row)

    def _fire(self, row: Thing) -> None:
        if row.wanted:
            self._again(row)
        else:
            self.succeeded(row)
