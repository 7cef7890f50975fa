"""
Ending a loader's query whose result is not needed any more.

Cutting the connection wakes the thread, but the server may run the query for minutes and keep its
locks. So the server receives a cancel request as well.
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

#: Seconds for which the process delays its exit until cancel requests are sent.
CANCEL_TIMEOUT: Final = 2.0

_cancelling: set[threading.Thread] = set()
_at_exit: set[WeakMethod[Callable[[], object]]] = set()


def cut(raw: Any) -> None:
    """Cut a connection that another thread may be using, and cancel its query on the server."""
    # First, because it needs the session's address and secret.
    cancel = _canceller(raw.pgconn)
    abort(raw)
    if cancel is not None:
        # The request opens a connection, and the server may be silent.
        thread = threading.Thread(target=_run, args=(cancel,), name="pgobserve-cancel", daemon=True)
        _cancelling.add(thread)
        thread.start()


def _canceller(pgconn: Any) -> Callable[[], object] | None:
    with suppress(psycopg.Error):
        try:
            return partial(_poll, pgconn.cancel_conn())
        except psycopg.NotSupportedError:
            # libpq before 17 has no timeout here; on a silent server the daemon thread may wait long.
            return pgconn.get_cancel().cancel  # type: ignore[no-any-return]
    return None


def _run(cancel: Callable[[], object]) -> None:
    with suppress(psycopg.Error, OSError, ValueError):
        cancel()
    _cancelling.discard(threading.current_thread())


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
    """Call a method when the process exits without having closed its event loop."""
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
    for thread in [*_cancelling]:
        thread.join(max(0.0, deadline - time.monotonic()))
