"""
The loader's own threads, which replace a thread that a hook holds.

``ThreadPoolExecutor`` joins its threads when the interpreter exits, so a thread that waits for a dead
database would keep the process alive. On asgiref's shared thread a slow view would delay the feed.

A hook may never return. While threads work, the event loop checks them. A thread that stays in one hook
for too long leaves the pool, and a new thread takes its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import queue
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final, TypeVar

from pgobserve.logs import fields
from pgobserve.workers.loop_tripwire import at_close
from pgobserve.workers.occupation import Interrupted
from pgobserve.workers.pool_worker import (
    ThreadHeld,
    Work,
    Worker,
    fail,
    interrupt,
    stack_of,
    succeed,
)

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

#: Seconds without work after which a thread counts as idle.
IDLE = 10.0

#: Seconds for which a hook may hold a thread that other work waits for.
HOLD_TIMEOUT: Final = 1.0

#: Seconds in one hook after which a thread is given up.
ABANDON_TIMEOUT: Final = 30.0

#: Threads beyond the pools' that hooks may hold: those of one class, before its new subscriptions are
#: refused, and all together.
HELD_BY_ONE: Final = 3
HELD: Final = 24

#: Threads beyond the pools' that slow queries may hold.
WAITING: Final = 6

_numbers = itertools.count(1)


class ThreadPool:
    """
    Daemon threads that run functions for one event loop.

    Args:
        on_exit: Called in each thread before it ends.
        on_idle: Called in a thread after ``IDLE`` seconds without work.
        hold: Seconds in one hook after which a thread is replaced.
        timeout: Seconds in one hook after which a thread is given up.
        waits: Whether a thread waits for the database.
        cut: Ends a thread's query.
        held: The held threads, if pools share the limits.
    """

    def __init__(
        self,
        count: int,
        on_exit: Callable[[], object],
        on_idle: Callable[[], object],
        *,
        hold: float = HOLD_TIMEOUT,
        timeout: float = ABANDON_TIMEOUT,
        waits: Callable[[int], bool] = lambda _: False,
        cut: Callable[[int], object] = lambda _: None,
        held: dict[Worker, None] | None = None,
        alias: str = "default",
    ) -> None:
        self._alias = alias
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._on_exit = on_exit
        self._on_idle = on_idle
        self._hold = min(hold, timeout)
        self._timeout = timeout
        self._waits = waits
        self._cut = cut
        loop = asyncio.get_running_loop()
        # Weak: a thread that waits for work must not keep an abandoned event loop alive.
        self._loop = weakref.ref(loop)
        self._timer: asyncio.TimerHandle | None = None
        self._tripwire = at_close(loop, weakref.WeakMethod(self.abandon))
        self.stopped = False
        self._workers: dict[Worker, None] = {}
        self._held: dict[Worker, None] = {} if held is None else held
        for _ in range(count):
            self._spawn()

    async def run(
        self,
        function: Callable[[], Result],
        *,
        owner: type | None = None,
        alone: bool = False,
        wanted: Callable[[], bool] = lambda: True,
    ) -> Result:
        """
        Run a function in a thread of the pool.

        Args:
            owner: The class whose hooks it runs, if only one class's.
            alone: It serves only subscriptions in lanes of their own, and may take until the timeout.
            wanted: Whether the result is still needed, called in the event loop. If not, or if the task
                is cancelled, the function's query is ended.

        Raises:
            RuntimeError: The pool has stopped.
            ThreadHeld: A hook holds the thread, or the owner's hooks hold too many threads.
            Exception: The function's error, see :func:`~pgobserve.workers.occupation.contained`.
        """
        if self.stopped:
            raise RuntimeError("The loader's threads have stopped; use a new loader.")
        if owner is not None and (refusal := self._refusal(owner)):
            raise refusal
        loop = asyncio.get_running_loop()
        work = Work(function, loop.create_future(), alone, owner, wanted)
        self._queue.put(work)
        if self._timer is None:
            self._timer = loop.call_later(self._hold / 2, self._check_all)
        result: Result = await work.future
        return result

    def held_by(self, owner: type) -> int:
        """Return how many threads a class's hooks hold."""
        return sum(worker.owner is owner for worker in [*self._held])

    def _refusal(self, owner: type) -> ThreadHeld | None:
        held = [worker.held for worker in [*self._held] if worker.owner is owner]
        return ThreadHeld(owner, "", (), held[0]) if len(held) >= HELD_BY_ONE else None

    def stop(self) -> None:
        """End the threads once they have done the work that was submitted so far."""
        if not self.stopped:
            self.stopped = True
            for _ in self._workers:
                self._queue.put(None)

    async def close(self, timeout: float = 2.0) -> None:  # noqa: ASYNC109 (see below)
        """End the threads; a thread that does not end in time stays behind, being a daemon."""
        self.stop()
        if self._timer is not None:
            self._timer.cancel()
        # Not asyncio.timeout(): a cancelled task often cleans up here, and Python 3.11 would mistake
        # the timeout's own cancellation for that one.
        waits = [asyncio.ensure_future(worker.ended.wait()) for worker in self._workers]
        if waits:
            _, late = await asyncio.wait(waits, timeout=timeout)
            for each in late:
                each.cancel()
        if (tripwire := self._tripwire()) is not None:
            tripwire.cancel()

    def _spawn(self) -> None:
        worker = Worker()
        self._workers[worker] = None
        name = f"pgobserve-loader-{next(_numbers)}"
        threading.Thread(target=self._work, args=(worker,), name=name, daemon=True).start()

    # In the threads

    def _work(self, worker: Worker) -> None:
        worker.bind()
        try:
            while not worker.leaving and (work := self._next()) is not None:
                self._do(worker, work)
                del work  # an idle thread must not keep rows and subscriptions alive
        except Interrupted:
            # The interrupt arrived after the function had ended.
            logger.debug(
                "A thread of database %r was interrupted between two functions.",
                self._alias,
                extra=fields(alias=self._alias),
            )
        finally:
            with contextlib.suppress(Exception, Interrupted):
                self._on_exit()
            self._call_in_loop(self._ended, worker)

    def _do(self, worker: Worker, work: Work) -> None:
        if work.owner is not None and (refusal := self._refusal(work.owner)):
            # Checked again: the work may have been queued before the threads were held.
            self._call_in_loop(fail, work.future, refusal)
            return
        worker.take(work)
        try:
            result = work.function()
        except BaseException as error:  # noqa: BLE001 (raised where the work is awaited)
            worker.drop()
            self._call_in_loop(fail, work.future, error)
        else:
            worker.drop()
            self._call_in_loop(succeed, work.future, result)

    def _next(self) -> Work | None:
        while True:
            try:
                return self._queue.get(timeout=IDLE)
            except queue.Empty:
                loop = self._loop()
                if loop is None or loop.is_closed():
                    return None
                del loop
                with contextlib.suppress(Exception):
                    self._on_idle()

    def _call_in_loop(self, function: Callable[..., object], *args: object) -> None:
        # Once the loop is gone or closed, no task waits for the answer.
        loop = self._loop()
        if loop is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(function, *args)

    # In the event loop

    def abandon(self) -> None:
        """End the threads because the event loop has ended; may run in any thread."""
        if not self.stopped:
            self.stop()
            for worker in [*self._workers]:
                if worker.work is not None:
                    self._cut(worker.ident)

    def _ended(self, worker: Worker) -> None:
        worker.ended.set()
        if worker.given_up_at is not None:
            logger.error(
                "%s has returned, in database %r, %.0f s after its thread was given up.",
                *(worker.given_up_as, self._alias, time.monotonic() - worker.given_up_at),
                extra=fields(consumer=worker.owner, alias=self._alias),
            )
        self._workers.pop(worker, None)
        self._held.pop(worker, None)
        worker.held.end()

    def _check_all(self) -> None:
        """Check the threads, and again as long as any is busy."""
        now, busy = time.monotonic(), False
        for worker in [*self._workers]:
            if worker.work is not None:
                busy = True
                self._check(worker, now)
        busy = busy or not self._queue.empty()
        loop = self._loop()
        self._timer = None
        if busy and loop is not None:
            self._timer = loop.call_later(self._hold / 4, self._check_all)

    def _check(self, worker: Worker, now: float) -> None:
        since = worker.busy_since(now)
        # Read once: the thread may end its work, and start other work, at any moment.
        owner, work = worker.occupation.owner, worker.work
        if since is None or work is None:
            return
        waits = self._waits(worker.ident)
        if waits and (work.future.cancelled() or not work.wanted()):
            self._cut(worker.ident)
        elif owner is None and waits:
            # The loader's own query: the connection watchdog limits it.
            if now - since >= self._hold and not self._queue.empty():
                self._replace_waiting(worker)
        elif now - since >= self._timeout:
            self._give_up(worker, work, now - since, waits)
        elif now - since >= self._hold and worker not in self._held and owner is not None:
            if not work.alone and work.owner is None:
                fail(work.future, worker.error())  # the loader reads the other subscriptions again
            if len(self._held) < HELD:
                self._replace(worker)

    def _replace_waiting(self, worker: Worker) -> None:
        """Let another thread do the work that waits behind a slow query."""
        waiting = sum(each.owner is None for each in self._held)
        if worker not in self._held and waiting < WAITING:
            self._replace(worker)

    def _replace(self, worker: Worker) -> None:
        worker.owner = worker.occupation.owner
        worker.leaving = True
        self._held[worker] = None
        if not self.stopped:
            self._spawn()

    def _give_up(self, worker: Worker, work: Work, seconds: float, waits: bool) -> None:
        if worker.given_up_at is not None:
            return
        worker.given_up_at, worker.given_up_as = time.monotonic(), str(worker.occupation)
        if worker not in self._held:
            self._replace(worker)
        logger.error(
            "%s has held a thread of database %r for %.0f s. The thread is given up and another one "
            "takes its place; the subscription receives an error. The thread was here:\n%s",
            *(worker.given_up_as, self._alias, seconds, stack_of(worker.ident)),
            extra=fields(consumer=worker.owner, alias=self._alias),
        )
        fail(work.future, worker.error())
        if waits:
            self._cut(worker.ident)
        with worker.lock:
            if worker.work is work:  # else the interrupt would hit other work
                interrupt(worker.ident)
        worker.held.give_up()
