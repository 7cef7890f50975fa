"""
How long the server works on one statement of a loader's thread.

A search for a regular expression may take for ever, and a thread that has gone away does not end it. So
the server is told a time when a connection is made, and to look now and then whether the process is
still there. The project's own connections keep theirs.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from django.db import DatabaseError
from django.db.backends.signals import connection_created

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

#: A shorter time, which the role or the project has set, stays.
_LIMIT: Final = (
    "SELECT pg_catalog.set_config('statement_timeout', %s, false)"
    " WHERE %s::pg_catalog.text <> '0' AND pg_catalog.current_setting('statement_timeout')::pg_catalog.interval"
    " NOT BETWEEN '1 ms' AND (%s::pg_catalog.text || ' ms')::pg_catalog.interval"
)

#: A process that is killed cancels nothing. What the project has set stays.
_PRESENCE: Final = (
    " UNION ALL SELECT pg_catalog.set_config('client_connection_check_interval', '1s', false)"
    " WHERE pg_catalog.current_setting('client_connection_check_interval') = '0'"
)

_here: Final = threading.local()


def limit(seconds: float | None) -> None:
    """
    Prepare connections that the present thread makes from now on.

    Args:
        seconds: What a statement may take; 0 for as long as it takes. None: the thread is no more a
            loader's.
    """
    _here.seconds = seconds


def _connected(*, connection: BaseDatabaseWrapper, **_: Any) -> None:
    """Limit a connection's statements; runs after each reset of a session, too."""
    seconds = getattr(_here, "seconds", None)
    if seconds is None or connection.vendor != "postgresql":
        return
    if connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS"):
        return  # a proxy that pools transactions would give the session to others
    text = str(max(1, int(seconds * 1000))) if seconds else "0"
    with connection.cursor() as cursor:
        try:
            cursor.execute(_LIMIT + _PRESENCE, [text] * 3)
        except DatabaseError:
            # Not every operating system can tell the server that a client has gone.
            cursor.execute(_LIMIT, [text] * 3)


connection_created.connect(_connected, dispatch_uid="pgobserve.database.statement_timeout")
