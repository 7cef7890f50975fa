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
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.pq import PollingStatus

from pgobserve.database.async_connection import abort

if TYPE_CHECKING:
    from collections.abc import Callable
    from weakref import WeakMethod

#: Seconds that the process waits at its exit until the server has been asked.
CANCEL_TIMEOUT: Final = 2.0

_asking: set[threading.Thread] = set()
_at_exit: set[WeakMethod[Callable[[], object]]] = set()


def cut(raw: Any) -> None:
    """Cut a connection, which another thread may use, and have its query cancelled."""
    # Taken before: it needs the address and the secret of the session.
    ask = _way_to_ask(raw.pgconn)
    abort(raw)
    if ask is not None:
        # It takes a connection of its own, to a server that may be silent.
        thread = threading.Thread(target=_asked, args=(ask,), name="pgobserve-cancel", daemon=True)
        _asking.add(thread)
        thread.start()


def _way_to_ask(pgconn: Any) -> Callable[[], object] | None:
    with suppress(psycopg.Error):
        try:
            return partial(_poll, pgconn.cancel_conn())
        except psycopg.NotSupportedError:
            # Before version 17 of libpq. It has no end where the server is silent, so the daemon thread
            # may wait for long.
            return pgconn.get_cancel().cancel  # type: ignore[no-any-return]
    return None


def _asked(ask: Callable[[], object]) -> None:
    with suppress(psycopg.Error, OSError, ValueError):
        ask()
    _asking.discard(threading.current_thread())


def _poll(cancel: Any) -> None:
    deadline = time.monotonic() + CANCEL_TIMEOUT
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
    deadline = time.monotonic() + CANCEL_TIMEOUT
    for thread in [*_asking]:
        thread.join(max(0.0, deadline - time.monotonic()))
