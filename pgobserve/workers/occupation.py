"""
Which hook a loader thread runs, so that the log can name a hook that holds the thread.

A load records each hook before the call, and the event loop reads the record while the thread runs.
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

    Code that contains the errors of hooks must let it through.
    """


class HookFailed(Exception):
    """A hook raised other than an :class:`Exception`; see the cause."""


class Occupation:
    """
    What one thread runs.

    Attributes:
        owner: The class whose hook runs; None between hooks.
        hook: The hook's name.
        watches: The subscriptions for which it runs; opaque here.
        steps: Counts starts and ends of hooks; unchanged while one hook runs.
        alone: The load serves only subscriptions in lanes of their own, so it may take long.
    """

    __slots__ = ("alone", "hook", "owner", "steps", "watches")

    def __init__(self) -> None:
        self.owner: type | None = None
        self.hook = ""
        self.watches: tuple[Any, ...] = ()
        self.steps = 0
        self.alone = False

    def enter(self, owner: type, hook: str, watches: tuple[Any, ...] = ()) -> None:
        """Record the hook that is called next."""
        self.owner, self.hook, self.watches = owner, hook, watches
        self.steps += 1

    def leave(self) -> None:
        """Record that no hook runs."""
        self.owner, self.hook, self.watches = None, "", ()
        self.steps += 1

    def __str__(self) -> str:
        """Return the hook's qualified name."""
        return "no hook" if self.owner is None else f"{self.owner.__qualname__}.{self.hook}"


class _Local(threading.local):
    def __init__(self) -> None:
        self.occupation = Occupation()


_local: Final = _Local()


def occupation() -> Occupation:
    """Return what the current thread runs."""
    return _local.occupation


def as_hook(owner: type, hook: str, function: Callable[[], Result]) -> Result:
    """Call a hook of a class, and record it."""
    at = occupation()
    at.enter(owner, hook)
    try:
        return function()
    finally:
        at.leave()


def contained(error: BaseException) -> Exception:
    """
    Return a hook's error as an :class:`Exception`.

    ``CancelledError`` or ``SystemExit`` would end the awaiting task or the process. A hook in a loader
    thread must not do either.

    Raises:
        Interrupted: The thread itself must stop.
    """
    if isinstance(error, Interrupted):
        raise error
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    failed = HookFailed(f"A hook raised {type(error).__name__}.")
    failed.__cause__ = error
    return failed
