"""
The loader's own threads.

Not ``ThreadPoolExecutor``: its threads are joined when the interpreter exits, and a thread that
waits for a database that is down would keep the process from exiting. Not asgiref's shared thread
either: a slow view there must not hold the feed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")

#: Seconds without work after which a thread counts as idle.
IDLE = 10.0

_numbers = itertools.count(1)


class Threads:
    """
    A few daemon threads that run functions for one event loop.

    Args:
        count: How many.
        farewell: Called in each thread before it ends, to close its database connections.
        idle: Called in a thread that has had nothing to do for ``IDLE`` seconds.

    Attributes:
        stopped: No more functions are taken.
    """

    def __init__(
        self, count: int, farewell: Callable[[], object], idle: Callable[[], object]
    ) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._farewell = farewell
        self._idle = idle
        self._loop = asyncio.get_running_loop()
        self.stopped = False
        self._ended = [asyncio.Event() for _ in range(count)]
        for ended in self._ended:
            name = f"pgobserve-loader-{next(_numbers)}"
            threading.Thread(target=self._work, args=(ended,), name=name, daemon=True).start()

    async def run(self, function: Callable[[], Result]) -> Result:
        """
        Run a function in one of the threads.

        Returns:
            What it returns.

        Raises:
            RuntimeError: The threads were stopped.
            Exception: What it raises.
        """
        if self.stopped:
            raise RuntimeError("The loader's threads were stopped: ask a new loader.")
        future: asyncio.Future[Result] = self._loop.create_future()

        def job() -> None:
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 (it is raised where it is awaited)
                self._tell(_fail, future, error)
            else:
                self._tell(_succeed, future, result)

        self._jobs.put(job)
        return await future

    def stop(self) -> None:
        """Let the threads end when they have done what was asked so far."""
        if not self.stopped:
            self.stopped = True
            for _ in self._ended:
                self._jobs.put(None)

    async def close(self, patience: float = 2.0) -> None:
        """End the threads; one that is stuck in the database is left behind, being a daemon."""
        self.stop()
        # Not asyncio.timeout(): it is mostly a cancelled task that cleans up here, and there Python
        # 3.11's would take its own cancellation for that one.
        waits = [asyncio.ensure_future(ended.wait()) for ended in self._ended]
        _, late = await asyncio.wait(waits, timeout=patience)
        for each in late:
            each.cancel()

    def _work(self, ended: asyncio.Event) -> None:
        try:
            while (job := self._next()) is not None:
                job()
                job = None  # it knows what was read, and for whom
        finally:
            with contextlib.suppress(Exception):
                self._farewell()
            self._tell(ended.set)

    def _next(self) -> Callable[[], None] | None:
        while True:
            try:
                return self._jobs.get(timeout=IDLE)
            except queue.Empty:
                with contextlib.suppress(Exception):
                    self._idle()

    def _tell(self, function: Callable[..., object], *args: object) -> None:
        # The loop may be gone by now; then nobody waits for the answer.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *args)


def _succeed(future: asyncio.Future[Result], result: Result) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Result], error: BaseException) -> None:
    if future.done():
        return
    if isinstance(error, StopIteration):
        # No future takes one, and whoever waits would wait for ever.
        stray = RuntimeError("the function raised StopIteration")
        stray.__cause__ = error
        error = stray
    future.set_exception(error)
