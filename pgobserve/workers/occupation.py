"""
Which hook a loader thread runs, so that the log can name a hook that holds the thread.

A load records each hook before the call, and the event loop reads the record while the thread runs.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")


class Interrupted(BaseException):
    """Raised in a thread whose function takes too long; code that contains errors must let it through."""


class HookFailed(Exception):
    """A hook raised other than an :class:`Exception`; see the cause."""


@dataclass(slots=True, eq=False)
class Occupation:
    """
    What one thread runs.

    Attributes:
        owner: The class whose hook runs; None between hooks.
        watches: The subscriptions for which it runs; opaque here.
        steps: Counts starts and ends of hooks; unchanged while one hook runs.
        alone: The load serves only subscriptions in lanes of their own, so it may take long.
    """

    owner: type | None = None
    hook: str = ""
    watches: tuple[Any, ...] = ()
    steps: int = 0
    alone: bool = False

    def enter(self, owner: type, hook: str, watches: tuple[Any, ...] = ()) -> None:
        self.owner, self.hook, self.watches = owner, hook, watches
        self.steps += 1

    def leave(self) -> None:
        self.owner, self.hook, self.watches = None, "", ()
        self.steps += 1

    def __str__(self) -> str:
        return "no hook" if self.owner is None else f"{self.owner.__qualname__}.{self.hook}"


class _Local(threading.local):
    def __init__(self) -> None:
        self.occupation = Occupation()


_local: Final = _Local()


def occupation() -> Occupation:
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
    Return a hook's error as an :class:`Exception`; raise :class:`Interrupted`.

    ``CancelledError`` or ``SystemExit`` would end the awaiting task or the process. A hook in a loader
    thread must not do either.
    """
    if isinstance(error, Interrupted):
        raise error
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    failed = HookFailed(f"A hook raised {type(error).__name__}.")
    failed.__cause__ = error
    return failed
