"""
The database sessions of the loader's threads, reset after each piece of work.

A hook may set a role, a setting or a ``search_path``, create temporary tables, take advisory locks, or
leave a transaction open. The next work on that connection belongs to another subscriber.
"""

from __future__ import annotations

import logging
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from django.db import InterfaceError, connections, transaction
from django.db.backends.signals import connection_created
from psycopg.pq import ExecStatus, TransactionStatus

from pgobserve.database.tracked_session import Session, modes_of, wrapper_of
from pgobserve.logs import fields

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.database.tracked_session import SessionSettings

logger = logging.getLogger(__name__)

#: DISCARD ALL without DEALLOCATE, because psycopg tracks prepared statements. As cheap as SELECT 1.
_RESET: Final = (
    b"SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *;"
    b" SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES"
)


def session_of(connection: BaseDatabaseWrapper) -> Session:
    """Return the tracked session of a connection, connecting if necessary."""
    wrapper: Any = connection
    connection.ensure_connection()
    session: Session | None = getattr(wrapper, "_pgobserve_session", None)
    if session is None or session.raw is not connection.connection:
        session = wrapper._pgobserve_session = Session(connection, session)
        if getattr(wrapper, "pool", None):
            # Other code of the process used this connection before.
            session.touched = True
            restore(connection)
        else:
            session.apply(connection)
    return session


def tracked_session(connection: BaseDatabaseWrapper) -> Session | None:
    """Return the session if the current connection is tracked already."""
    session: Session | None = getattr(connection, "_pgobserve_session", None)
    return session if session is not None and session.raw is connection.connection else None


def _reapply(*, connection: BaseDatabaseWrapper, **_: Any) -> None:
    """Apply the settings again when a hook replaces a lost connection."""
    session: Session | None = getattr(connection, "_pgobserve_session", None)
    if session is not None and session.settings is not None and not tracked_session(connection):
        session_of(connection)


connection_created.connect(_reapply, dispatch_uid="pgobserve.database.session")


def restore(connection: BaseDatabaseWrapper) -> None:
    """Reset a session if a statement ran that is not the loader's own; close it if that is impossible."""
    wrapper: Any = connection
    if connection.connection is None or connection.vendor != "postgresql":
        return
    session = tracked_session(connection)
    if session is None:
        # Made by other code: its past is unknown.
        before: Session | None = getattr(wrapper, "_pgobserve_session", None)
        session = wrapper._pgobserve_session = Session(connection, before)
        session.mark_changed()
    session.detect_changes(connection)
    if session.snapshot and session.raw.pgconn.transaction_status == TransactionStatus.INERROR:
        return  # a failed transaction takes no statement; the reset follows its end
    if not session.touched and not _in_transaction(connection, session):
        return
    try:
        session.restore_attributes(connection)
        _reset(connection, session)
    except Exception:
        logger.debug(
            "Resetting a session of database %r failed; its connection is closed.",
            connection.alias,
            exc_info=True,
            extra=fields(alias=connection.alias),
        )
        discard(connection)


def restore_all() -> None:
    """Restore all sessions of the current thread."""
    for connection in connections.all(initialized_only=True):
        restore(connection)


def isolate(connection: BaseDatabaseWrapper) -> None:
    """Undo between two hooks what the first may have changed; applied settings stay."""
    wrapper: Any = connection
    session: Session | None = getattr(wrapper, "_pgobserve_session", None)
    # Runs after each hook of each row. Helper calls would double its cost, so it is written out.
    if session is None or session.held or session.raw is not wrapper.connection:
        return
    if session.changed or (session._attributes and session.detect_changes(connection)):
        restore(connection)


def isolate_all() -> None:
    for connection in connections.all(initialized_only=True):
        isolate(connection)


def discard(connection: BaseDatabaseWrapper) -> None:
    """Close a connection in whatever state it is; the next statement opens a new connection."""
    wrapper: Any = connection
    raw, wrapper.connection = wrapper.connection, None
    wrapper.in_atomic_block = wrapper.closed_in_transaction = wrapper.needs_rollback = False
    wrapper.savepoint_ids, wrapper.atomic_blocks, wrapper.run_on_commit = [], [], []
    if raw is not None:
        raw.close()
        if (pool := getattr(wrapper, "pool", None)) is not None:
            pool.putconn(raw)


def _in_transaction(connection: BaseDatabaseWrapper, session: Session) -> bool:
    if session.snapshot:
        return False
    status = session.raw.pgconn.transaction_status
    return (
        status != TransactionStatus.IDLE
        or connection.in_atomic_block
        or connection.autocommit != connection.settings_dict["AUTOCOMMIT"]
    )


def _reset(connection: BaseDatabaseWrapper, session: Session) -> None:
    wrapper: Any = connection
    if _in_transaction(connection, session):
        raise InterfaceError("A hook left a transaction open.")
    if session.modes != modes_of(session.raw):
        raise InterfaceError("A hook changed the transaction characteristics.")
    with session:
        # One round trip, without psycopg's bookkeeping.
        result = session.raw.pgconn.exec_(_RESET + _set_time_zone(connection))
        if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            raise InterfaceError(result.error_message.decode(errors="replace"))
        # As after connecting: time zone, role, and what the project's signal handlers set.
        wrapper._configure_connection(session.raw)
        connection_created.send(sender=type(wrapper_of(connection)), connection=connection)
    session.touched = session.changed = False
    session.apply(connection)


def _set_time_zone(connection: BaseDatabaseWrapper) -> bytes:
    """Return the statement for which Django would need a second round trip."""
    name = str(connection.timezone_name or "")
    return f"; SET TimeZone = '{name}'".encode() if re.fullmatch(r"[\w/+-]+", name) else b""


def may_have_changed() -> bool:
    """Return whether a session of the current thread may have changed since it was restored."""
    for connection in connections.all(initialized_only=True):
        if connection.connection is not None and connection.vendor == "postgresql":
            session = tracked_session(connection)
            if session is None or session.detect_changes(connection):
                return True
    return False


@contextmanager
def held() -> Iterator[None]:
    """
    Keep the current thread's sessions as hooks changed them, and restore them at the end.

    Raises ``InterfaceError`` if a connection ended: later statements may have run unprepared.
    """
    prepared: dict[BaseDatabaseWrapper, Any] = {}
    try:
        for connection in connections.all(initialized_only=True):
            if (session := tracked_session(connection)) is not None:
                session.held = True
                prepared[connection] = session.raw
                if session.differs(connection):
                    # A tenant backend changes the session with its next cursor.
                    connection.cursor().close()
        yield
        for connection, raw in prepared.items():
            _check_same(connection, raw)
    finally:
        for connection in connections.all(initialized_only=True):
            if (session := tracked_session(connection)) is not None:
                session.held = False
        restore_all()


@contextmanager
def applied(connection: BaseDatabaseWrapper, settings: SessionSettings) -> Iterator[None]:
    """
    Apply settings for the block, and restore the session after it.

    Behind a transaction-pooling proxy the block is one transaction, and the settings are local to it.
    """
    if connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS"):
        with in_snapshot(connection):
            raw = connection.connection
            settings.apply(connection, local=True)
            yield
            _check_same(connection, raw)
        return
    session = session_of(connection)
    try:
        session.settings = settings
        session.apply(connection)
        yield
    finally:
        # A hook may have reconnected.
        latest: Session = getattr(connection, "_pgobserve_session", session)
        latest.settings = session.settings = None
        latest.touched = True
        restore(connection)


@contextmanager
def savepoint(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Run a block of :func:`in_snapshot` whose error does not end the transaction."""
    atomic, session = transaction.atomic(using=connection.alias), session_of(connection)
    with session:
        atomic.__enter__()
    try:
        yield
    except BaseException:
        with session:
            atomic.__exit__(*sys.exc_info())
        raise
    with session:
        atomic.__exit__(None, None, None)


@contextmanager
def in_snapshot(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Run the block in one transaction of the loader's, with one snapshot."""
    session = session_of(connection)
    if session.snapshot:
        yield
        return
    atomic = transaction.atomic(using=connection.alias)
    session.snapshot = True
    try:
        with session:
            atomic.__enter__()
            with connection.wrap_database_errors:
                # Not through a Django cursor, for which a backend or a wrapper may query first.
                session.raw.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        try:
            yield
        except BaseException:
            with session:
                atomic.__exit__(*sys.exc_info())
            raise
        session.touched = session.touched or bool(connection.run_on_commit)
        with session:
            atomic.__exit__(None, None, None)
    finally:
        session.snapshot = False


def _check_same(connection: BaseDatabaseWrapper, raw: Any) -> None:
    if connection.connection is not raw or raw.closed:
        raise InterfaceError("A hook closed the connection whose session was prepared for it.")


class QueryRecorder:
    """Counts the queries of the current thread, on all aliases."""

    def __init__(self) -> None:
        self.queries = 0
        self._counts = True

        def count(execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
            self.queries += self._counts
            return execute(sql, params, many, context)

        count.of_pgobserve = True  # type: ignore[attr-defined]
        self._count = count

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the queries of the block."""
        # Not execute_wrapper(): it removes the last wrapper at the end, also if a hook has added it.
        lists = [connections[alias].execute_wrappers for alias in connections]
        for wrappers in lists:
            wrappers.insert(0, self._count)
        try:
            yield
        finally:
            for wrappers in lists:
                if self._count in wrappers:
                    wrappers.remove(self._count)

    @contextmanager
    def ignoring(self) -> Iterator[None]:
        """Exempt the queries of the block: the queryset does not depend on them."""
        self._counts = False
        try:
            yield
        finally:
            self._counts = True
