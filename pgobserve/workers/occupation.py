"""
What a loader thread is busy with, so that a hook that holds the thread can be named.

A load calls many hooks of many consumers. Before each call it notes whose hook comes next. The event
loop looks at these notes while the thread runs.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")


class Interrupted(BaseException):
    """
    Raised inside a thread whose function has taken too long.

    Whatever contains the errors of hooks must let it through.
    """


class HookFailed(Exception):
    """A hook raised what is not an :class:`Exception`; the cause says what."""


class Occupation:
    """
    What one thread is busy with.

    Attributes:
        owner: The class whose hook runs, a consumer's for example; None between hooks.
        hook: The hook's name.
        watches: The subscriptions for which it runs; opaque here.
        steps: Hooks that were begun. A number that does not change tells that one hook goes on.
        alone: The load serves suspects only: it may wait as long as a hook may take.
    """

    __slots__ = ("alone", "hook", "owner", "steps", "watches")

    def __init__(self) -> None:
        self.owner: type | None = None
        self.hook = ""
        self.watches: tuple[Any, ...] = ()
        self.steps = 0
        self.alone = False

    def enter(self, owner: type, hook: str, watches: tuple[Any, ...] = ()) -> None:
        """Note that a hook is called next."""
        self.owner, self.hook, self.watches = owner, hook, watches
        self.steps += 1

    def leave(self) -> None:
        """Note that the thread runs no hook."""
        self.owner, self.hook, self.watches = None, "", ()
        self.steps += 1

    def __str__(self) -> str:
        """Name the hook."""
        return "no hook" if self.owner is None else f"{self.owner.__qualname__}.{self.hook}"


class _Local(threading.local):
    def __init__(self) -> None:
        self.occupation = Occupation()


_local: Final = _Local()


def occupation() -> Occupation:
    """Return what the present thread is busy with."""
    return _local.occupation


def as_hook(owner: type, hook: str, function: Callable[[], Result]) -> Result:
    """Call a function that is a hook of a class, and note that."""
    at = occupation()
    at.enter(owner, hook)
    try:
        return function()
    finally:
        at.leave()


def contained(error: BaseException) -> Exception:
    """
    Return what a hook raised as an :class:`Exception`.

    ``CancelledError``, ``SystemExit`` and the like mean something to the task or process that they
    reach. A hook that raises one in a loader thread can mean neither the feed nor the process.

    Raises:
        Interrupted: The thread itself is to stop.
    """
    if isinstance(error, Interrupted):
        raise error
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    failed = HookFailed(f"A hook raised {type(error).__name__}.")
    failed.__cause__ = error
    return failed
