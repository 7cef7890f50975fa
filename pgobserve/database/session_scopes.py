"""Stretches of work for which a session is prepared: settings, changes of hooks, one snapshot."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.db import InterfaceError, connections, transaction

from pgobserve.database.session import restore, restore_all, session_of, tracked_session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.database.session_settings import SessionSettings
    from pgobserve.database.tracked_session import Session


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

    Raises:
        InterfaceError: A connection ended: later statements may have run in an unprepared session.
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
