"""A thread of the loader's pool, and the work that it receives."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pgobserve.workers.held_threads import Held, ThreadHeld
from pgobserve.workers.occupation import Interrupted, Occupation, contained, occupation

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class Work:
    """A function to run. Work with an owner may take long: only its caller waits for it."""

    function: Callable[[], Any]
    future: asyncio.Future[Any]
    alone: bool
    owner: type | None
    wanted: Callable[[], bool]


class Worker:
    """
    A thread of the pool.

    Attributes:
        ended: The thread has ended.
        leaving: The thread takes no more work.
        given_up_at: When the pool stopped waiting for it, in monotonic seconds.
        given_up_as: The hook that held it then.
        owner: The class whose hook held it.
        work: What it runs now.
        lock: Held to interrupt the thread, so that the next work is never interrupted instead.
    """

    __slots__ = (
        *("_seen", "ended", "given_up_as", "given_up_at", "held", "ident", "leaving", "lock"),
        *("occupation", "owner", "work"),
    )

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.leaving = False
        self.given_up_at: float | None = None
        self.given_up_as = ""
        self.owner: type | None = None
        self.work: Work | None = None
        self.lock = threading.Lock()
        self.ident = 0
        self.occupation = Occupation()
        self.held = Held()
        self._seen = (-1, 0.0)

    def bind(self) -> None:
        """Make the current thread this worker's."""
        self.ident = threading.get_ident()
        self.occupation = occupation()

    def take(self, work: Work) -> None:
        """Start with a function."""
        self.occupation.alone = work.alone
        self.occupation.leave()
        self.work = work

    def drop(self) -> None:
        """End the function; from now on the thread is not interrupted."""
        with self.lock:
            self.work = None
        self.occupation.leave()

    def busy_since(self, now: float) -> float | None:
        """Return when the current hook was first seen; None if it was not seen before."""
        steps, since = self._seen
        if steps == self.occupation.steps:
            return since
        self._seen = (self.occupation.steps, now)
        return None

    def error(self) -> ThreadHeld:
        """Return the error for callers that wait for the function."""
        at = self.occupation
        return ThreadHeld(at.owner, at.hook, at.watches, self.held)


def succeed(future: asyncio.Future[Result], result: Result) -> None:
    """Set a future's result, unless it is done."""
    if not future.done():
        future.set_result(result)


def fail(future: asyncio.Future[Any], error: BaseException) -> None:
    """Set a future's error, unless it is done."""
    if future.done():
        return
    if isinstance(error, Interrupted):
        error = RuntimeError("The thread was interrupted.")
    # Contained, so that the awaiting task does not take the error for its own cancellation or exit.
    future.set_exception(contained(error))
