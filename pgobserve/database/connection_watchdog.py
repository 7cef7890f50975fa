"""
The database connections of the loader's threads: broken ones, silent ones, idle ones.

They are Django's own, one for each thread. What ends them is not an error of whoever reads rows:
the rows stay to be read.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextvars import Context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakMethod

from django.db import InterfaceError, OperationalError, connections
from psycopg.pq import TransactionStatus

from pgobserve.database.cancelling import at_exit, cut
from pgobserve.database.session import restore_all, session_of
from pgobserve.database.statement_timeout import limit
from pgobserve.logs import fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.backends.base.base import BaseDatabaseWrapper

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

#: Seconds after which a load that still waits for the server's answer is made again, over a new
#: connection. No answer may ever come: the other end, or a proxy, is gone without a word.
QUERY_TIMEOUT: Final = 60.0


class Unreachable(Exception):
    """The database can't be reached; what was to be read stays to be read."""


@dataclass(frozen=True, slots=True)
class _Work:
    """What a thread is doing."""

    connection: BaseDatabaseWrapper
    since: float


class ConnectionWatchdog:
    """
    Runs functions that need the database, and looks after the connections that they use.

    Args:
        alias: The database alias.
        patience: Seconds that an answer may take. It doubles each time that it was too short, so
            that what takes long by nature gets done in the end.
        timeout: Seconds that the server works on one statement; 0 for as long as it takes.
    """

    def __init__(self, alias: str, patience: float = QUERY_TIMEOUT, timeout: float = 0) -> None:
        self._alias = alias
        self._patience = patience
        self._timeout = timeout
        self._working: dict[int, _Work] = {}
        self._ended = False
        at_exit(WeakMethod(self.end))

    def run(
        self, function: Callable[[], Result], wanted: Callable[[], bool] = lambda: True
    ) -> Result:
        """
        Run a function in the present thread, which is one of the loader's.

        It is run again if the connection, kept from earlier, turns out to have ended, unless its
        result is not wanted any more.

        Raises:
            Unreachable: The database can't be reached.
            Exception: What the function raises.
        """
        connection = connections[self._alias]
        kept = connection.connection is not None
        try:
            return self._once(connection, function)
        except Unreachable:
            if self._ended or not kept or not wanted():
                raise
            # That a connection has ended is told to who uses it next, and that may be long after.
            return self._once(connection, function)

    def _once(self, connection: BaseDatabaseWrapper, function: Callable[[], Result]) -> Result:
        thread = threading.get_ident()
        self._working[thread] = _Work(connection, time.monotonic())
        limit(self._timeout)
        try:
            if connection.connection is not None and connection.vendor == "postgresql":
                session_of(connection)
            # What hooks activate ends with the work.
            return Context().run(function)
        except (OperationalError, InterfaceError) as error:
            # A statement that timed out is an error of that statement; a connection that is gone,
            # or could not be made, is nobody's.
            if is_lost(connection):
                raise Unreachable(str(error).strip()) from error
            raise
        finally:
            # Silence while the session is reset would be the server's as well.
            restore_all()
            del self._working[thread]
            self.tidy(idle=False)

    def tidy(self, *, idle: bool = True) -> None:
        """
        Apply CONN_MAX_AGE to the present thread's connections.

        With 0, Django's default, a connection ends with the request. A feed has no requests: it
        keeps the connection while it is busy, and closes it when it has been idle for a while.
        """
        for connection in connections.all(initialized_only=True):
            if connection.settings_dict["CONN_MAX_AGE"] != 0:
                connection.close_if_unusable_or_obsolete()
            elif idle or (connection.errors_occurred and not connection.is_usable()):
                connection.close()

    async def watch(self) -> None:
        """Cut connections that have been silent for too long, until cancelled."""
        while True:
            await asyncio.sleep(self._patience / 4)
            latest = time.monotonic() - self._patience
            silent = [w for w in self._working.values() if w.since < latest and _waits(w)]
            if silent:
                logger.warning(
                    "Database %r has not answered a query of the loader for %.0f s. The connection "
                    "is cut, and the rows are read again.",
                    *(self._alias, self._patience),
                    extra=fields(alias=self._alias),
                )
                self._patience *= 2
            for work in silent:
                _cut(work)

    def waits(self, thread: int) -> bool:
        """Tell whether a thread waits for an answer of the database."""
        work = self._working.get(thread)
        return work is not None and _waits(work)

    def cut(self, thread: int) -> None:
        """Cut the connection that a thread uses, and have its query cancelled."""
        work = self._working.get(thread)
        if work is not None:
            _cut(work)

    def end(self) -> None:
        """Cut the connections that are in use: their threads wake with an error, and end."""
        self._ended = True
        for work in list(self._working.values()):
            _cut(work)


def is_lost(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether a connection has ended, or could not be made."""
    raw: Any = connection.connection
    return raw is None or bool(raw.closed) or bool(raw.broken)


def reconnect(connection: BaseDatabaseWrapper) -> None:
    """
    Open a connection anew, whatever was left open on it.

    Raises:
        Unreachable: The database can't be reached.
    """
    # Django lets nobody connect within a transaction that has ended with its connection.
    connection.in_atomic_block = connection.closed_in_transaction = False
    try:
        connection.close()
        connection.connect()
    except (OperationalError, InterfaceError) as error:
        raise Unreachable(str(error).strip()) from error


def attempt(function: Callable[[], Result], connection: BaseDatabaseWrapper) -> Result:
    """
    Call a hook; once more, if it was the first to use a connection that has ended.

    Raises:
        Unreachable: The database can't be reached.
        Exception: What the hook raises. It is the hook's: the database is there.
    """
    try:
        return function()
    except (OperationalError, InterfaceError):
        renew(connection)
        return function()


def renew(connection: BaseDatabaseWrapper) -> None:
    """
    Open a connection anew that has ended, so that the hook that has just failed can be called again.

    Must be called while the hook's error is handled, which is raised if the connection is not to blame.

    Raises:
        Unreachable: The database can't be reached.
        django.db.Error: The hook's own error.
    """
    if connection.in_atomic_block or not is_lost(connection):
        raise
    reconnect(connection)


def _waits(work: _Work) -> bool:
    raw: Any = work.connection.connection
    return raw is not None and raw.pgconn.transaction_status == TransactionStatus.ACTIVE


def _cut(work: _Work) -> None:
    raw: Any = work.connection.connection
    if raw is not None:
        cut(raw)
