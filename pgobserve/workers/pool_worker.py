"""A thread of the loader's pool, the work that it receives, and how a hook that holds it is interrupted."""

from __future__ import annotations

import asyncio
import ctypes
import sys
import threading
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from pgobserve.workers.occupation import Interrupted, Occupation, contained, occupation

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class Held:
    """
    A thread that a hook may hold.

    Attributes:
        ended: The thread has ended, and its connections are closed.
        settled: The thread has ended, or the pool no longer waits for it.
    """

    ended: asyncio.Event = field(default_factory=asyncio.Event)
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    given_up: bool = False

    def end(self) -> None:
        self.ended.set()
        self.settled.set()

    def give_up(self) -> None:
        self.given_up = True
        self.settled.set()


class ThreadHeld(Exception):
    """A hook holds a thread for too long; ``owner`` is None if the thread runs no known hook."""

    def __init__(self, owner: type | None, hook: str, watches: tuple[Any, ...], held: Held) -> None:
        name = "A function" if owner is None else f"{owner.__qualname__}.{hook}"
        super().__init__(f"{name} holds a thread for too long.")
        self.owner = owner
        self.hook = hook
        self.watches = watches
        self.held = held


def stack_of(ident: int) -> str:
    """Return a thread's stack, formatted as in a traceback."""
    frame = sys._current_frames().get(ident)
    return "".join(traceback.format_stack(frame)) if frame is not None else "(it has ended)"


def interrupt(ident: int) -> None:
    """
    Raise :class:`Interrupted` in a thread as soon as it runs Python code.

    That ends an endless loop, but not a wait inside the operating system.
    """
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(Interrupted))


@dataclass(slots=True, eq=False)
class Work:
    """A function to run. Work with an owner may take long: only its caller waits for it."""

    function: Callable[[], Any]
    future: asyncio.Future[Any]
    alone: bool
    owner: type | None
    wanted: Callable[[], bool]


@dataclass(slots=True, eq=False)
class Worker:
    """
    A thread of the pool.

    Attributes:
        leaving: The thread takes no more work.
        given_up_at: When the pool stopped waiting for it, in monotonic seconds.
        given_up_as: The hook that held it then.
        lock: Held to interrupt the thread, so that the next work is never interrupted instead.
    """

    ended: asyncio.Event = field(default_factory=asyncio.Event)
    leaving: bool = False
    given_up_at: float | None = None
    given_up_as: str = ""
    owner: type | None = None
    work: Work | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    ident: int = 0
    occupation: Occupation = field(default_factory=Occupation)
    held: Held = field(default_factory=Held)
    _seen: tuple[int, float] = (-1, 0.0)

    def bind(self) -> None:
        self.ident = threading.get_ident()
        self.occupation = occupation()

    def take(self, work: Work) -> None:
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
        at = self.occupation
        return ThreadHeld(at.owner, at.hook, at.watches, self.held)


def succeed(future: asyncio.Future[Result], result: Result) -> None:
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
