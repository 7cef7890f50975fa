"""
The loader's own threads.

Not ``ThreadPoolExecutor``: its threads are joined when the interpreter exits, and a thread that
waits for a database that is down would keep the process from exiting. Not asgiref's shared thread
either: a slow view there must not hold the feed.

A hook may never return. The event loop looks at the threads while they work. A thread that stays in
one hook for too long leaves the pool, and another one takes its place.
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
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pgobserve.logs import fields
from pgobserve.workers.held_threads import (
    Held,
    ThreadHeld,
    interrupt,
    stack_of,
)
from pgobserve.workers.loop_tripwire import at_close
from pgobserve.workers.occupation import (
    Interrupted,
    Occupation,
    contained,
    occupation,
)

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

#: Seconds without work after which a thread counts as idle.
IDLE = 10.0

#: Seconds for which a hook may hold a thread that others wait for.
HOLD_TIMEOUT: Final = 1.0

#: Seconds after which a thread that is still in one hook is given up.
ABANDON_TIMEOUT: Final = 30.0

#: Threads that hooks may hold besides those of the pools: of one class, before it gets no more for new
#: subscriptions, and of all.
HELD_BY_ONE: Final = 3
HELD: Final = 24

_numbers = itertools.count(1)


class Threads:
    """
    A few daemon threads that run functions for one event loop.

    Args:
        count: How many.
        farewell: Called in each thread before it ends, to close its database connections.
        idle: Called in a thread that has had nothing to do for ``IDLE`` seconds.
        patience: Seconds that one hook may take until its thread is replaced.
        timeout: Seconds that one hook may take until its thread is given up.
        waits: Tells of a thread whether it waits for the database, which has limits of its own.
        cut: Ends what a thread waits for in the database.
        held: The threads that hooks hold, if others share the bounds.
        alias: The database alias, for the log.

    Attributes:
        stopped: No more functions are taken.
    """

    def __init__(
        self,
        count: int,
        farewell: Callable[[], object],
        idle: Callable[[], object],
        *,
        patience: float = HOLD_TIMEOUT,
        timeout: float = ABANDON_TIMEOUT,
        waits: Callable[[int], bool] = lambda _: False,
        cut: Callable[[int], object] = lambda _: None,
        held: dict[_Worker, None] | None = None,
        alias: str = "default",
    ) -> None:
        self._alias = alias
        self._jobs: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._farewell = farewell
        self._idle = idle
        self._patience = min(patience, timeout)
        self._timeout = timeout
        self._waits = waits
        self._cut = cut
        loop = asyncio.get_running_loop()
        # A thread that waits for work must not keep an event loop that nobody else knows any more.
        self._loop = weakref.ref(loop)
        self._timer: asyncio.TimerHandle | None = None
        self._tripwire = at_close(loop, weakref.WeakMethod(self.abandon))
        self.stopped = False
        self._workers: dict[_Worker, None] = {}
        self._held: dict[_Worker, None] = {} if held is None else held
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
        Run a function in one of the threads.

        Args:
            function: What to run.
            owner: The class whose hooks it runs, if it is only one class.
            alone: It serves suspects only, and may take until the timeout.
            wanted: Tells whether its result is still of use; called in the event loop. If not, what
                it waits for in the database is ended. So it is if the present task is cancelled.

        Returns:
            What it returns.

        Raises:
            RuntimeError: The threads were stopped.
            ThreadHeld: A hook holds the thread. Or the hooks of the owner hold so many threads that
                it gets no more.
            Exception: What it raises; other than an ``Exception`` becomes the cause of one.
        """
        if self.stopped:
            raise RuntimeError("The loader's threads were stopped: ask a new loader.")
        if owner is not None and self._are_held(owner):
            raise self._refusal(owner)
        loop = asyncio.get_running_loop()
        job = _Work(function, loop.create_future(), alone, owner, wanted)
        self._jobs.put(job)
        if self._timer is None:
            self._timer = loop.call_later(self._patience / 2, self._look)
        result: Result = await job.future
        return result

    def held_by(self, owner: type) -> int:
        """Return how many threads a class's hooks hold beyond the patience."""
        return sum(worker.owner is owner for worker in [*self._held])

    def _are_held(self, owner: type) -> bool:
        return bool(self._held) and self.held_by(owner) >= HELD_BY_ONE

    def _refusal(self, owner: type) -> ThreadHeld:
        helds = [worker.held for worker in [*self._held] if worker.owner is owner]
        return ThreadHeld(owner, "", (), helds[0] if helds else Held())

    def stop(self) -> None:
        """Let the threads end when they have done what was asked so far."""
        if not self.stopped:
            self.stopped = True
            for _ in self._workers:
                self._jobs.put(None)

    async def close(self, patience: float = 2.0) -> None:
        """End the threads; one that is stuck is left behind, being a daemon."""
        self.stop()
        if self._timer is not None:
            self._timer.cancel()
        # Not asyncio.timeout(): it is mostly a cancelled task that cleans up here, and there Python
        # 3.11's would take its own cancellation for that one.
        waits = [asyncio.ensure_future(worker.ended.wait()) for worker in self._workers]
        if waits:
            _, late = await asyncio.wait(waits, timeout=patience)
            for each in late:
                each.cancel()
        if (tripwire := self._tripwire()) is not None:
            tripwire.cancel()

    def _spawn(self) -> None:
        worker = _Worker()
        self._workers[worker] = None
        name = f"pgobserve-loader-{next(_numbers)}"
        threading.Thread(target=self._work, args=(worker,), name=name, daemon=True).start()

    # In the threads

    def _work(self, worker: _Worker) -> None:
        worker.begin()
        try:
            while not worker.leaves and (job := self._next()) is not None:
                self._do(worker, job)
                del job  # it knows what was read, and for whom
        except Interrupted:
            logger.debug(
                "A thread of database %r was interrupted between two functions.",
                self._alias,
                extra=fields(alias=self._alias),
            )
        finally:
            with contextlib.suppress(Exception, Interrupted):
                self._farewell()
            self._tell(self._ended, worker)

    def _do(self, worker: _Worker, job: _Work) -> None:
        if job.owner is not None and self._are_held(job.owner):
            # It may have been put here before they were.
            self._tell(_fail, job.future, self._refusal(job.owner))
            return
        worker.occupation.alone = job.alone
        worker.take(job)
        try:
            result = job.function()
        except BaseException as error:  # noqa: BLE001 (it is raised where it is awaited)
            worker.drop()
            self._tell(_fail, job.future, error)
        else:
            worker.drop()
            self._tell(_succeed, job.future, result)

    def _next(self) -> _Work | None:
        while True:
            try:
                return self._jobs.get(timeout=IDLE)
            except queue.Empty:
                loop = self._loop()
                if loop is None or loop.is_closed():
                    return None
                del loop
                with contextlib.suppress(Exception):
                    self._idle()

    def _tell(self, function: Callable[..., object], *args: object) -> None:
        # The loop may be gone by now; then nobody waits for the answer.
        loop = self._loop()
        if loop is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(function, *args)

    # In the event loop

    def abandon(self) -> None:
        """End the threads because the event loop has ended; it may happen in any thread."""
        if not self.stopped:
            self.stop()
            for worker in [*self._workers]:
                if worker.job is not None:
                    self._cut(worker.ident)

    def _ended(self, worker: _Worker) -> None:
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

    def _look(self) -> None:
        """Look at what the threads do, as long as they do anything."""
        now, busy = time.monotonic(), False
        for worker in [*self._workers]:
            if worker.job is not None:
                busy = True
                self._look_at(worker, now)
        busy = busy or not self._jobs.empty()
        loop = self._loop()
        self._timer = None
        if busy and loop is not None:
            self._timer = loop.call_later(self._patience / 4, self._look)

    def _look_at(self, worker: _Worker, now: float) -> None:
        since = worker.since(now)
        owner, job = worker.occupation.owner, worker.job
        if since is None or job is None:
            return
        waits = self._waits(worker.ident)
        if waits and (job.future.cancelled() or not job.wanted()):
            self._cut(worker.ident)
            return
        if owner is None and waits:
            return
        if now - since >= self._timeout:
            self._give_up(worker, job, now - since, waits)
        elif now - since >= self._patience and worker not in self._held and owner is not None:
            self._replace(worker, job)

    def _replace(self, worker: _Worker, job: _Work) -> None:
        """Let others go on: a hook holds this thread."""
        if not job.alone and job.owner is None:
            _fail(job.future, worker.trouble())
        if len(self._held) < HELD:
            self._let_go(worker)

    def _let_go(self, worker: _Worker) -> None:
        worker.owner = worker.occupation.owner
        worker.leaves = True
        self._held[worker] = None
        if not self.stopped:
            self._spawn()

    def _give_up(self, worker: _Worker, job: _Work, seconds: float, waits: bool) -> None:
        if worker.given_up_at is not None:
            return
        worker.given_up_at, worker.given_up_as = time.monotonic(), str(worker.occupation)
        if worker not in self._held:
            self._let_go(worker)
        logger.error(
            "%s has held a thread of database %r for %.0f s. The thread is given up and another one "
            "takes its place; the subscription receives an error. The thread was here:\n%s",
            *(worker.given_up_as, self._alias, seconds, stack_of(worker.ident)),
            extra=fields(consumer=worker.owner, alias=self._alias),
        )
        _fail(job.future, worker.trouble())
        if waits:
            self._cut(worker.ident)
        with worker.lock:
            if worker.job is job:
                interrupt(worker.ident)
        worker.held.give_up()


class _Work:
    """A function to run; if it has an owner, its caller waits for it alone, as long as it may take."""

    __slots__ = ("alone", "function", "future", "owner", "wanted")

    def __init__(
        self,
        function: Callable[[], Any],
        future: asyncio.Future[Any],
        alone: bool,
        owner: type | None,
        wanted: Callable[[], bool],
    ) -> None:
        self.function = function
        self.future = future
        self.alone = alone
        self.owner = owner
        self.wanted = wanted


class _Worker:
    """
    One thread.

    Attributes:
        ended: It has ended.
        leaves: It takes no more functions.
        given_up_at: When it was given up, in monotonic seconds; nothing waits for it any more.
        given_up_as: Which hook held it then.
        owner: The class whose hook held it.
        job: What it does.
    """

    __slots__ = (
        "_seen",
        "ended",
        "given_up_as",
        "given_up_at",
        "held",
        "ident",
        "job",
        "leaves",
        "lock",
        "occupation",
        "owner",
    )

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.leaves = False
        self.given_up_at: float | None = None
        self.given_up_as = ""
        self.owner: type | None = None
        self.job: _Work | None = None
        self.lock = threading.Lock()
        self.ident = 0
        self.occupation = Occupation()
        self.held = Held()
        self._seen = (-1, 0.0)

    def begin(self) -> None:
        """Note which thread it is; called in it."""
        self.ident = threading.get_ident()
        self.occupation = occupation()

    def take(self, job: _Work) -> None:
        """Begin with a function."""
        self.occupation.leave()
        self.job = job

    def drop(self) -> None:
        """Note that the function has ended; from now on the thread is not interrupted."""
        with self.lock:
            self.job = None
        self.occupation.leave()

    def since(self, now: float) -> float | None:
        """Return since when it is known to do what it does now; None if it has just begun."""
        steps, since = self._seen
        if steps == self.occupation.steps:
            return since
        self._seen = (self.occupation.steps, now)
        return None

    def trouble(self) -> ThreadHeld:
        """Return the error for those who wait for the function."""
        at = self.occupation
        return ThreadHeld(at.owner, at.hook, at.watches, self.held)


def _succeed(future: asyncio.Future[Result], result: Result) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Result], error: BaseException) -> None:
    if future.done():
        return
    if isinstance(error, Interrupted):
        error = RuntimeError("The thread was interrupted.")
    # A task that awaits the future must not take the error for its own cancellation or exit.
    future.set_exception(contained(error))
