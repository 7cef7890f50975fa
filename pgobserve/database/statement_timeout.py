"""
Statement limits for the connections of the loader's threads; the project's own connections keep theirs.

A regular expression may run for ever, and a thread that gives up does not end it. So each new connection
gets a ``statement_timeout``, and the server checks now and then whether the client still exists.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from django.db import DatabaseError
from django.db.backends.signals import connection_created

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

#: A shorter limit set by the role or the project stays.
_LIMIT: Final = (
    "SELECT pg_catalog.set_config('statement_timeout', %s, false)"
    " WHERE %s::pg_catalog.text <> '0' AND pg_catalog.current_setting('statement_timeout')::pg_catalog.interval"
    " NOT BETWEEN '1 ms' AND (%s::pg_catalog.text || ' ms')::pg_catalog.interval"
)

#: A killed process sends no cancel request. A value set by the project stays.
_PRESENCE: Final = (
    " UNION ALL SELECT pg_catalog.set_config('client_connection_check_interval', '1s', false)"
    " WHERE pg_catalog.current_setting('client_connection_check_interval') = '0'"
)

_here: Final = threading.local()


def limit(seconds: float | None) -> None:
    """
    Limit statements on connections that the current thread makes from now on.

    Args:
        seconds: The limit of a statement; 0 for none. None: the thread no longer belongs to a loader.
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
            cursor.execute(_LIMIT + _PRESENCE, [text] * 3)
        except DatabaseError:
            # Not every operating system supports client_connection_check_interval.
            cursor.execute(_LIMIT, [text] * 3)


connection_created.connect(_connected, dispatch_uid="pgobserve.database.statement_timeout")
