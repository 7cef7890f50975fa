"""Threads held by a hook: the error for their callers, and how they are interrupted."""

from __future__ import annotations

import asyncio
import ctypes
import sys
import traceback
from typing import Any

from pgobserve.workers.occupation import Interrupted


class Held:
    """
    A thread that a hook may hold.

    Attributes:
        ended: The thread has ended, and its connections are closed.
        settled: The thread has ended, or was given up.
        given_up: The pool no longer waits for the thread.
    """

    __slots__ = ("ended", "given_up", "settled")

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.settled = asyncio.Event()
        self.given_up = False

    def end(self) -> None:
        """Record that the thread has ended."""
        self.ended.set()
        self.settled.set()

    def give_up(self) -> None:
        """Record that the pool no longer waits for the thread."""
        self.given_up = True
        self.settled.set()


class ThreadHeld(Exception):
    """
    A hook holds a thread for too long.

    Attributes:
        owner: The hook's class; None if the thread runs no known hook.
        hook: Its name.
        watches: The subscriptions for which it runs.
        held: The thread.
    """

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
