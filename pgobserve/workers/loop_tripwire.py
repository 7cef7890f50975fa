"""
Detects that an event loop was closed or forgotten without closing the feed.

No task runs then that could end threads and connections.
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
    """Calls a method when it is deleted: a loop that closes, or is collected, drops its timers."""

    def __init__(self, method: Method) -> None:
        self._method = method

    def __call__(self) -> None:
        """Do nothing: the timer never fires."""

    def __del__(self) -> None:
        method = self._method()
        if method is not None:
            method()


def at_close(
    loop: asyncio.AbstractEventLoop, method: Method
) -> Callable[[], asyncio.TimerHandle | None]:
    """
    Call a method, in any thread, when an event loop is closed or collected.

    Returns a weak reference to the timer behind it. Cancelling the timer calls the method, too.
    """
    # An empty context: the timer would keep a socket's alive.
    handle = loop.call_later(NEVER, _Tripwire(method), context=contextvars.Context())
    return weakref.ref(handle)
