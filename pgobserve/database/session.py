"""
The database sessions of the loader's threads, reset after each piece of work.

A hook may set a role, a setting or a ``search_path``, create temporary tables, take advisory locks, or
leave a transaction open. The next work on that connection belongs to another subscriber.
"""

from __future__ import annotations

import logging
import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

from django.db import InterfaceError, connections
from django.db.backends.signals import connection_created
from psycopg.pq import ExecStatus, TransactionStatus

from pgobserve.database.backend_state import backend_attributes, has_own_cursors, wrapper_of
from pgobserve.database.plain_reads import is_plain_read
from pgobserve.logs import fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.database.session_settings import SessionSettings

logger = logging.getLogger(__name__)

#: DISCARD ALL without DEALLOCATE, because psycopg tracks prepared statements. As cheap as SELECT 1.
_RESET: Final = (
    b"SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *;"
    b" SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES"
)


class Session:
    """
    Tracks what happened in a connection's session; as a context manager it marks the loader's own statements.

    Args:
        connection: Just connected, or taken from a pool.
        before: The session of the same wrapper's previous connection.

    Attributes:
        raw: The psycopg connection.
        modes: Its initial transaction characteristics and row factory.
        touched: A statement ran that is not the loader's own.
        changed: A statement ran that may have changed the session.
        held: Hooks prepared the session; their changes stay until the hold ends.
        settings: The settings applied to it.
        snapshot: The loader's own transaction is open.
    """

    __slots__ = (
        *("_accepted", "_attributes", "_own", "_plain", "_wrappers", "changed", "held", "modes"),
        *("raw", "settings", "snapshot", "touched"),
    )

    def __init__(self, connection: BaseDatabaseWrapper, before: Session | None) -> None:
        self.raw: Any = connection.connection
        self.modes = _modes(self.raw)
        self.touched = self.changed = self.held = self.snapshot = False
        # A hook may reconnect: the settings of the current work also hold on the new connection.
        self.settings: SessionSettings | None = None if before is None else before.settings
        self._own = self._plain = 0
        self._attributes: dict[str, Any] = (
            backend_attributes(connections.create_connection(connection.alias))
            if before is None
            else before._attributes
        )
        self._accepted = self._attributes
        kept: list[Any] = connection.execute_wrappers if before is None else before._wrappers[:-1]
        self._wrappers: list[Any] = [*kept, self._classify]
        wait = type(self.raw).wait.__get__(self.raw)

        def watched(*args: Any, **kwargs: Any) -> Any:
            if not self._own:
                self.touched = True
                self.changed = self.changed or not self._plain
            return wait(*args, **kwargs)

        # Every statement of a psycopg connection passes wait(), whichever cursor a hook uses.
        self.raw.wait = watched
        connection.execute_wrappers[:] = self._wrappers

    def __enter__(self) -> Self:
        self._own += 1
        return self

    def __exit__(self, *error: object) -> None:
        self._own -= 1

    def _classify(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        """Mark plain reads of hooks, which can't change the session."""
        if self._own:
            return execute(sql, params, many, context)
        plain = isinstance(sql, str) and is_plain_read(sql)
        self._plain += plain
        try:
            return execute(sql, params, many, context)
        finally:
            self._plain -= plain

    def mark_changed(self) -> None:
        """Record that a statement of the loader's own may have set anything."""
        self.touched = self.changed = True

    def has_project_code(self, connection: BaseDatabaseWrapper) -> bool:
        """Return whether the project's code runs with each statement: a backend's, or an execute wrapper."""
        backend: Any = type(wrapper_of(connection))
        return len(connection.execute_wrappers) > 1 or has_own_cursors(backend)

    def execute(
        self,
        connection: BaseDatabaseWrapper,
        run: Callable[[str, Any], object],
        text: str,
        params: Any = None,
    ) -> None:
        """
        Execute a statement of the loader's own through the project's execute wrappers and cursors.

        Either may set a tenant before each statement. ``run`` executes a text with parameters.
        """
        if not self.has_project_code(connection):
            with self:
                run(text, params)
            return

        def own(sql: str, params: Any, many: bool, context: Any) -> None:
            with self:
                run(sql, params)

        backend: Any = type(wrapper_of(connection))
        if has_own_cursors(backend):
            # Outside `with self`: what the backend does to the session must be undone.
            connection.cursor().close()
        executor: Any = own
        for wrapper in reversed(connection.execute_wrappers):
            if wrapper != self._classify:
                executor = partial(wrapper, executor)
        executor(text, params, False, {"connection": connection, "cursor": None})

    def detect_changes(self, connection: BaseDatabaseWrapper) -> bool:
        """Return whether the session may have changed, its backend's attributes included."""
        if self._attributes and self._current(connection) != self._accepted:
            self.mark_changed()
        if len(connection.execute_wrappers) != len(self._wrappers) and self._has_new(connection):
            self.mark_changed()
        return self.changed

    def _has_new(self, connection: BaseDatabaseWrapper) -> bool:
        """Return whether a hook left an execute wrapper, which may set anything before a statement."""
        added = (each for each in connection.execute_wrappers if each not in self._wrappers)
        return any(not getattr(each, "of_pgobserve", False) for each in added)

    def differs(self, connection: BaseDatabaseWrapper) -> bool:
        """Return whether an attribute differs from a new connection's."""
        return self._current(connection) != self._attributes

    def apply(self, connection: BaseDatabaseWrapper) -> None:
        """Apply the settings, if any."""
        if self.settings is not None:
            with self:
                self.settings.apply(connection, local=False)
            self.touched, self._accepted = True, self._current(connection)

    def _current(self, connection: BaseDatabaseWrapper) -> dict[str, Any]:
        own = vars(wrapper_of(connection))
        return {name: own.get(name) for name in self._attributes}

    def restore_attributes(self, connection: BaseDatabaseWrapper) -> None:
        """Undo changes that exist in Python only."""
        wrapper: Any = connection
        if self.differs(connection) and hasattr(wrapper, "set_schema_to_public"):
            wrapper.set_schema_to_public()
        own = vars(wrapper_of(connection))
        for name in backend_attributes(connection).keys() - self._attributes.keys():
            del own[name]  # a backend's memory of what it has set
        own.update(self._attributes)
        self._accepted = self._attributes
        connection.execute_wrappers[:] = self._wrappers


def session_of(connection: BaseDatabaseWrapper) -> Session:
    """
    Return the tracked session of a connection, connecting if necessary.

    Raises:
        django.db.Error: Connecting failed.
    """
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
    """
    Reset a session if a statement ran that is not the loader's own.

    A connection that can't be reset is closed.
    """
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
    """Do so with all connections of the current thread."""
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
    if session.modes != _modes(session.raw):
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


def _modes(raw: Any) -> tuple[Any, ...]:
    return raw.isolation_level, raw.read_only, raw.deferrable, raw.row_factory


def _set_time_zone(connection: BaseDatabaseWrapper) -> bytes:
    """Return the statement for which Django would need a second round trip."""
    name = str(connection.timezone_name or "")
    return f"; SET TimeZone = '{name}'".encode() if re.fullmatch(r"[\w/+-]+", name) else b""
