"""
Watches the database connections of the loader's threads, one of Django's for each thread.

A connection that breaks is not an error of the rows: they are read again over a new connection.
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

from django.db import DatabaseError, DataError, InterfaceError, OperationalError, connections
from psycopg import errors
from psycopg.pq import TransactionStatus

from pgobserve.database.session import restore_all, session_of
from pgobserve.database.statement_limits import at_exit, cut, limit, release
from pgobserve.logs import fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

#: Seconds without an answer after which a load is repeated over a new connection: a server or a proxy
#: may disappear without closing it.
QUERY_TIMEOUT: Final = 60.0

#: Errors that end by themselves: a statement waited too long for a lock.
_LOCKED: Final = (errors.LockNotAvailable, errors.DeadlockDetected)


class Unreachable(Exception):
    """The database can't be reached; the caller repeats the work later."""


@dataclass(frozen=True, slots=True)
class _Work:
    """Work of one thread, and since when it runs."""

    connection: BaseDatabaseWrapper
    since: float

    def waits(self) -> bool:
        raw: Any = self.connection.connection
        return raw is not None and raw.pgconn.transaction_status == TransactionStatus.ACTIVE

    def cut(self) -> None:
        if self.connection.connection is not None:
            cut(self.connection.connection)


class ConnectionWatchdog:
    """
    Runs functions that need the database, and cuts connections that fall silent.

    Args:
        silence: Seconds that an answer may take; doubles with each cut, so that slow queries succeed.
        timeout: Seconds after which the server ends a statement; 0 for no limit.
    """

    def __init__(self, alias: str, silence: float = QUERY_TIMEOUT, timeout: float = 0) -> None:
        self._alias = alias
        self._silence = silence
        self._timeout = timeout
        self._working: dict[int, _Work] = {}
        self._ended = False
        at_exit(WeakMethod(self.end))

    def run(
        self, function: Callable[[], Result], wanted: Callable[[], bool] = lambda: True
    ) -> Result:
        """
        Run a function in this thread; again if a kept connection was lost and it is still ``wanted``.

        Raises :class:`Unreachable` if the database can't be reached, or what the function raises.
        """
        connection = connections[self._alias]
        kept = connection.connection is not None
        try:
            return self._once(connection, function)
        except Unreachable:
            if self._ended or not kept or not wanted():
                raise
            # The first statement after a long pause discovers a lost connection.
            return self._once(connection, function)

    def _once(self, connection: BaseDatabaseWrapper, function: Callable[[], Result]) -> Result:
        thread = threading.get_ident()
        self._working[thread] = _Work(connection, time.monotonic())
        limit(self._timeout)
        try:
            if connection.connection is not None and connection.vendor == "postgresql":
                session_of(connection)
            # A context of its own: languages and time zones that hooks activate end with the work.
            return Context().run(function)
        except (OperationalError, InterfaceError) as error:
            # A statement that timed out failed by itself; a lost connection is no failure of the work.
            if is_lost(connection):
                raise Unreachable(str(error).strip()) from error
            raise
        finally:
            # Before the entry goes, because the server may fall silent during the reset, too.
            restore_all()
            del self._working[thread]
            self.tidy(idle=False)

    def tidy(self, *, idle: bool = True) -> None:
        """Apply CONN_MAX_AGE to the thread's connections; at 0 a connection ends once the feed is ``idle``."""
        for connection in connections.all(initialized_only=True):
            if connection.settings_dict["CONN_MAX_AGE"] != 0:
                connection.close_if_unusable_or_obsolete()
            elif idle or (connection.errors_occurred and not connection.is_usable()):
                release(connection)
                connection.close()

    async def watch(self) -> None:
        """Cut silent connections, until cancelled."""
        while True:
            await asyncio.sleep(self._silence / 4)
            latest = time.monotonic() - self._silence
            silent = [w for w in self._working.values() if w.since < latest and w.waits()]
            if silent:
                logger.warning(
                    "Database %r has not answered a query of the loader for %.0f s. The connection "
                    "is cut, and the rows will be read again.",
                    *(self._alias, self._silence),
                    extra=fields(alias=self._alias),
                )
                self._silence *= 2
            for work in silent:
                work.cut()

    def waits(self, thread: int) -> bool:
        """Return whether a thread waits for the database's answer."""
        work = self._working.get(thread)
        return work is not None and work.waits()

    def cut(self, thread: int) -> None:
        """Cut a thread's connection, and cancel its query."""
        work = self._working.get(thread)
        if work is not None:
            work.cut()

    def end(self) -> None:
        """Cut all connections in use: their threads wake with an error, and end."""
        self._ended = True
        for work in list(self._working.values()):
            work.cut()


def is_lost(connection: BaseDatabaseWrapper) -> bool:
    """Return whether a connection is closed, broken, or was never made."""
    raw: Any = connection.connection
    return raw is None or bool(raw.closed) or bool(raw.broken)


def is_of_a_row(error: BaseException) -> bool:
    """
    Return whether a row may have caused an error, so that the query succeeds without it.

    Python can't hold the value, a converter or a related manager raises, or the server can't compute a
    column. Other errors of the server, such as a missing column or a time-out, concern every row.
    """
    if isinstance(error, DatabaseError | InterfaceError):
        # In a transaction, later statements fail because of the first.
        return any(isinstance(each, DataError) for each in _chain(error))
    return isinstance(error, Exception)


def is_locked(error: BaseException) -> bool:
    """Return whether a statement was ended because it waited for a lock."""
    return any(isinstance(each, _LOCKED) for each in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def reconnect(connection: BaseDatabaseWrapper) -> None:
    """Close a connection in whatever state it is, and connect again, or raise :class:`Unreachable`."""
    # Django refuses to connect while it believes itself in a transaction; that ended with the connection.
    connection.in_atomic_block = connection.closed_in_transaction = False
    try:
        connection.close()
        connection.connect()
    except (OperationalError, InterfaceError) as error:
        raise Unreachable(str(error).strip()) from error


def attempt(function: Callable[[], Result], connection: BaseDatabaseWrapper) -> Result:
    """Call a hook; if it meets a lost connection, reconnect (see :func:`reconnect`) and call it again."""
    try:
        return function()
    except (OperationalError, InterfaceError):
        renew(connection)
        return function()


def renew(connection: BaseDatabaseWrapper) -> None:
    """
    Replace a lost connection, so that the failed hook can be called again; see :func:`reconnect`.

    Call it while handling the hook's error, which it re-raises if the connection is not lost.
    """
    if connection.in_atomic_block or not is_lost(connection):
        raise
    reconnect(connection)
