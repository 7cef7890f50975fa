"""
Ends statements of the loader: the server by a limit, and this process by a cancel request.

A regular expression may run for ever, and a thread that gives up does not end it. So each new connection
gets a ``statement_timeout`` and a ``lock_timeout``, and the server checks now and then whether the client still exists. Cutting a
connection wakes its thread, but the server may run the query for minutes and keep its locks; so the server
receives a cancel request as well. Connections of the project keep their own limits.
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
from django.db import DatabaseError
from django.db.backends.signals import connection_created
from psycopg.pq import PollingStatus

from pgobserve.database.async_connection import abort

if TYPE_CHECKING:
    from collections.abc import Callable
    from weakref import WeakMethod

    from django.db.backends.base.base import BaseDatabaseWrapper

#: A shorter limit set by the role or the project stays.
_LIMIT: Final = (
    "SELECT pg_catalog.set_config('statement_timeout', %s, false)"
    " WHERE %s::pg_catalog.text <> '0' AND pg_catalog.current_setting('statement_timeout')::pg_catalog.interval"
    " NOT BETWEEN '1 ms' AND (%s::pg_catalog.text || ' ms')::pg_catalog.interval"
)

#: Milliseconds that a statement waits for a lock; then its rows are read again later, so that a locked
#: table does not hold a thread. A shorter limit stays.
LOCK_TIMEOUT: Final = 1000
_LOCKS: Final = (
    f" UNION ALL SELECT pg_catalog.set_config('lock_timeout', '{LOCK_TIMEOUT}', false)"
    " WHERE pg_catalog.current_setting('lock_timeout')::pg_catalog.interval"
    f" NOT BETWEEN '1 ms' AND '{LOCK_TIMEOUT} ms'"
)

#: A killed process sends no cancel request. A value set by the project stays.
_PRESENCE: Final = (
    " UNION ALL SELECT pg_catalog.set_config('client_connection_check_interval', '1s', false)"
    " WHERE pg_catalog.current_setting('client_connection_check_interval') = '0'"
)

_here: Final = threading.local()

#: Seconds for which the process delays its exit until cancel requests are sent.
CANCEL_TIMEOUT: Final = 2.0


def limit(seconds: float | None) -> None:
    """
    Limit statements on connections that the current thread makes from now on, in seconds; 0 is no limit.

    With None the thread no longer belongs to a loader.
    """
    _here.seconds = seconds


def _connected(*, connection: BaseDatabaseWrapper, **_: Any) -> None:
    """Limit a connection's statements; also runs after each reset of a session."""
    seconds = getattr(_here, "seconds", None)
    if seconds is None or connection.vendor != "postgresql":
        return
    if connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS"):
        return  # a transaction-pooling proxy would pass the setting on to other clients
    text = str(max(1, int(seconds * 1000))) if seconds else "0"
    with connection.cursor() as cursor:
        try:
            cursor.execute(_LIMIT + _LOCKS + _PRESENCE, [text] * 3)
        except DatabaseError:
            # Not every operating system supports client_connection_check_interval.
            cursor.execute(_LIMIT + _LOCKS, [text] * 3)


def release(connection: BaseDatabaseWrapper) -> None:
    """Lift the limits of a connection that returns to a pool, where the project takes it."""
    raw: Any = connection.connection
    if getattr(connection, "pool", None) is not None and raw is not None and not raw.closed:
        with suppress(psycopg.Error):
            raw.execute(
                "RESET statement_timeout; RESET lock_timeout; RESET client_connection_check_interval"
            )


connection_created.connect(_connected, dispatch_uid="pgobserve.database.statement_limits")


_cancelling: set[threading.Thread] = set()
_at_exit: set[WeakMethod[Callable[[], object]]] = set()


def cut(raw: Any) -> None:
    """Cut a connection that another thread may be using, and cancel its query on the server."""
    # First, because it needs the session's address and secret.
    cancel = _canceller(raw.pgconn)
    abort(raw)
    if cancel is not None:
        # The request opens a connection, and the server may be silent.
        thread = threading.Thread(
            target=_send_cancel, args=(cancel,), name="pgobserve-cancel", daemon=True
        )
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


def _send_cancel(cancel: Callable[[], object]) -> None:
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
