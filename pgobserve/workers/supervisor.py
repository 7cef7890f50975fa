"""
Restarts tasks that must never end.

A defect, or other code's cancellation, may end a task of the feed; subscribers would silently fall
behind. So the supervisor logs the end and starts the task again.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from pgobserve.logs import fields
from pgobserve.workers.backoff import backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping
    from typing import Any

    Work = Callable[[], Coroutine[Any, Any, object]]

logger = logging.getLogger(__name__)


class Supervisor:
    """
    Runs tasks, and restarts each that ends.

    Args:
        what: The tasks' owner, for the log.
        on_failure: Called after a task has ended: its work in progress may be lost.
        delays: Makes a task's restart delays, in seconds.
        alias: The database alias, for the log.

    Attributes:
        restarts: The number of restarts.
    """

    def __init__(
        self,
        what: str,
        on_failure: Callable[[], object] = lambda: None,
        delays: Callable[[], Iterator[float]] = backoff,
        *,
        alias: str | None = None,
    ) -> None:
        self._alias = alias
        self.restarts = 0
        self._what = what
        self._on_failure = on_failure
        self._delays = delays
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
                    delay = next(self._failing.setdefault(name, self._delays()))
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
            *(name, self._what, how),
            exc_info=error,
            extra=fields(alias=self._alias),
        )
        try:
            self._on_failure()
        except Exception:
            logger.exception(
                "Reading everything again after the end of the task %s of %s failed.",
                *(name, self._what),
                extra=fields(alias=self._alias),
            )

    async def _again(self, name: str, work: Work, delay: float) -> object:
        if delay:
            await asyncio.sleep(delay)
        logger.critical(
            "The task %s of %s runs again, after %.1f s.",
            *(name, self._what, delay),
            extra=fields(alias=self._alias),
        )
        return await work()


def _start(name: str, work: Work) -> asyncio.Task[object]:
    return asyncio.create_task(work(), name=name)


async def _end(tasks: Mapping[asyncio.Task[object], str]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
