"""
How a query of a loader is ended that nobody waits for any more.

Cutting the connection wakes the thread, but the server goes on with the query, for minutes it may
be, and holds its locks. So the server is asked to cancel it as well.
"""

from __future__ import annotations

import atexit
import select
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.pq import PollingStatus

from pgobserve.feed.connection import abort

if TYPE_CHECKING:
    from collections.abc import Callable
    from weakref import WeakMethod

#: Seconds that the process waits at its exit until the server has been asked.
PATIENCE: Final = 2.0

_asking: set[threading.Thread] = set()
_at_exit: set[WeakMethod[Callable[[], object]]] = set()


def cut(raw: Any) -> None:
    """Cut a connection, which another thread may use, and have its query cancelled."""
    # Taken before: it needs the address and the secret of the session.
    cancel = None
    with suppress(psycopg.Error):  # libpq knows a way that does not block since version 17
        cancel = raw.pgconn.cancel_conn()
    abort(raw)
    if cancel is not None:
        # It takes a connection of its own, to a server that may be silent.
        thread = threading.Thread(target=_ask, args=(cancel,), name="pgobserve-cancel", daemon=True)
        _asking.add(thread)
        thread.start()


def _ask(cancel: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    with suppress(psycopg.Error, OSError, ValueError):
        cancel.start()
        while (status := cancel.poll()) in (PollingStatus.READING, PollingStatus.WRITING):
            reads = [cancel.socket] if status == PollingStatus.READING else []
            writes = [] if reads else [cancel.socket]
            left = deadline - time.monotonic()
            if left <= 0 or not any(select.select(reads, writes, [], left)):
                break
    with suppress(psycopg.Error):
        cancel.finish()
    _asking.discard(threading.current_thread())


def at_exit(method: WeakMethod[Callable[[], object]]) -> None:
    """Have a method called when the process ends without having ended its event loop."""
    for each in [each for each in _at_exit if each() is None]:
        _at_exit.discard(each)
    _at_exit.add(method)


@atexit.register
def _end() -> None:
    for each in [*_at_exit]:
        method = each()
        if method is not None:
            with suppress(Exception):
                method()
    deadline = time.monotonic() + PATIENCE
    for thread in [*_asking]:
        thread.join(max(0.0, deadline - time.monotonic()))
