"""
Notices that an event loop was closed, or is no more, although nothing of ours was ended before.

Some programs close a loop, or forget it, with our tasks in it. Then nothing runs that could end
threads and connections.
"""

from __future__ import annotations

import contextvars
import weakref
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    Method = weakref.WeakMethod[Callable[[], object]]

#: Seconds that no event loop lives.
NEVER: Final = 1e9


class _Tripwire:
    """Calls a method when the event loop forgets its timers, which it does when it is closed."""

    def __init__(self, method: Method) -> None:
        self._method = method

    def __call__(self) -> None:
        """Do nothing: no loop lives as long."""

    def __del__(self) -> None:
        method = self._method()
        if method is not None:
            method()


def at_close(
    loop: asyncio.AbstractEventLoop, method: Method
) -> Callable[[], asyncio.TimerHandle | None]:
    """
    Call a method when an event loop is closed, or has gone; it may be in any thread.

    Returns:
        What returns the timer by which that is noticed, as long as there is one. The method is
        called as well when the timer is cancelled.
    """
    # A context of its own: that of a socket would be kept as long.
    handle = loop.call_later(NEVER, _Tripwire(method), context=contextvars.Context())
    return weakref.ref(handle)
