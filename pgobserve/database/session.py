"""
The database sessions of the loader's threads: after each piece of work a session is as it was.

A hook may set a role, a setting, or a ``search_path``, make temporary tables, take advisory locks, or
leave a transaction open. Whatever runs next on the connection belongs to somebody else.
"""

from __future__ import annotations

import logging
import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, Self

from django.db import InterfaceError, connections, transaction
from django.db.backends.postgresql.base import DatabaseWrapper
from django.db.backends.signals import connection_created
from django.utils.connection import ConnectionProxy
from psycopg.pq import ExecStatus, TransactionStatus

from pgobserve.database.plain_reads import is_plain_read
from pgobserve.logs import fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from django.db.backends.base.base import BaseDatabaseWrapper

logger = logging.getLogger(__name__)

#: What a connection of Django's own has; a backend for tenants keeps the schema in other attributes.
_OF_DJANGO: Final = frozenset(vars(DatabaseWrapper({}))) | frozenset(dir(DatabaseWrapper))
_PLAIN: Final = (type(None), bool, int, float, str, tuple)

#: By which Django makes a cursor; a backend may set a tenant or a role in one of its own.
_CURSORS: Final = ("cursor", "_cursor", "create_cursor", "make_cursor", "make_debug_cursor")

#: As DISCARD ALL, but prepared statements stay: psycopg knows of them. Costs as much as SELECT 1.
_RESET: Final = (
    b"SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *;"
    b" SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES"
)


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """
    Settings of a session, as ``set_config`` takes them.

    Attributes:
        items: Names and values.
    """

    items: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> SessionSettings:
        """Return settings in an order in which they can be made: a role may not set all others."""
        names = sorted(settings, key=lambda name: (name in ("role", "session_authorization"), name))
        return cls(tuple((name, str(settings[name])) for name in names))

    def apply(self, connection: BaseDatabaseWrapper, *, local: bool) -> None:
        """Make the settings, for the present transaction or until they are reset."""
        wrapper: Any = connection
        for name, value in self.items:
            if name == "search_path" and hasattr(wrapper, "set_schema"):
                # Such a backend sets the path by itself, with each cursor.
                wrapper.set_schema(value.split(",")[0].strip(' "'))
        if self.items:
            calls = ", ".join(["pg_catalog.set_config(%s, %s, %s)"] * len(self.items))
            params = [part for item in self.items for part in (*item, local)]
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT {calls}", params)


class Session:
    """
    What is known of a connection; as a context manager it surrounds the loader's own statements.

    Args:
        connection: Connected just now, or taken from a pool.
        before: What was known of the connection before that.

    Attributes:
        raw: The psycopg connection.
        modes: What psycopg has for it.
        touched: Statements ran that are not the loader's own.
        changed: Among them was one that may have changed the session.
        held: Hooks have changed it on purpose, for what runs now.
        settings: What was applied to it; None for nothing.
        snapshot: It is in a transaction of the loader's.
    """

    __slots__ = (
        "_accepted",
        "_attributes",
        "_own",
        "_plain",
        "_wrappers",
        "changed",
        "held",
        "modes",
        "raw",
        "settings",
        "snapshot",
        "touched",
    )

    def __init__(self, connection: BaseDatabaseWrapper, before: Session | None) -> None:
        self.raw: Any = connection.connection
        self.modes = _modes(self.raw)
        self.touched = self.changed = self.held = self.snapshot = False
        # What holds for the work at hand holds on a connection that is made meanwhile.
        self.settings: SessionSettings | None = None if before is None else before.settings
        self._own = self._plain = 0
        self._attributes: dict[str, Any] = (
            _attributes(connections.create_connection(connection.alias))
            if before is None
            else before._attributes
        )
        self._accepted = self._attributes
        kept: list[Any] = connection.execute_wrappers if before is None else before._wrappers[:-1]
        self._wrappers: list[Any] = [*kept, self._judge]
        wait = type(self.raw).wait.__get__(self.raw)

        def watched(*args: Any, **kwargs: Any) -> Any:
            if not self._own:
                self.touched = True
                self.changed = self.changed or not self._plain
            return wait(*args, **kwargs)

        # All that a psycopg connection executes waits here, whichever cursor is used.
        self.raw.wait = watched
        connection.execute_wrappers[:] = self._wrappers

    def __enter__(self) -> Self:
        self._own += 1
        return self

    def __exit__(self, *error: object) -> None:
        self._own -= 1

    def _judge(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        if self._own:
            return execute(sql, params, many, context)
        plain = isinstance(sql, str) and is_plain_read(sql)
        self._plain += plain
        try:
            return execute(sql, params, many, context)
        finally:
            self._plain -= plain

    def may_have_changed(self) -> None:
        """Say that a statement of the loader's own had something in it that may set anything."""
        self.touched = self.changed = True

    def shared(self, connection: BaseDatabaseWrapper) -> bool:
        """Tell whether code of the project's has a hand in each statement: a backend, wrappers."""
        backend: Any = type(_wrapper(connection))
        return len(connection.execute_wrappers) > 1 or has_own_cursors(backend)

    def execute(
        self,
        connection: BaseDatabaseWrapper,
        run: Callable[[str, Any], object],
        text: str,
        params: Any = None,
    ) -> None:
        """
        Execute a statement of the loader's own, as one of the project's is executed.

        A backend of the project's may set a tenant in each cursor that it makes, and its execute
        wrappers may before each statement.

        Args:
            connection: The connection.
            run: Executes a text with parameters.
            text: The statement.
            params: Its parameters.
        """

        if not self.shared(connection):
            with self:
                run(text, params)
            return

        def own(sql: str, params: Any, many: bool, context: Any) -> None:
            with self:
                run(sql, params)

        backend: Any = type(_wrapper(connection))
        if has_own_cursors(backend):
            # Not one of the loader's: what it does to the session is to be undone.
            connection.cursor().close()
        executor: Any = own
        for wrapper in reversed(connection.execute_wrappers):
            if wrapper != self._judge:
                executor = partial(wrapper, executor)
        executor(text, params, False, {"connection": connection, "cursor": None})

    def notice(self, connection: BaseDatabaseWrapper) -> bool:
        """Tell whether the session may have been changed, its attributes in Python included."""
        if self._attributes and self._now(connection) != self._accepted:
            self.touched = self.changed = True
        if len(connection.execute_wrappers) != len(self._wrappers) and self._has_new(connection):
            self.touched = self.changed = True
        return self.changed

    def _has_new(self, connection: BaseDatabaseWrapper) -> bool:
        """Tell whether a hook has left an execute wrapper, which may set anything before a statement."""
        added = (each for each in connection.execute_wrappers if each not in self._wrappers)
        return any(not getattr(each, "of_pgobserve", False) for each in added)

    def differs(self, connection: BaseDatabaseWrapper) -> bool:
        """Tell whether an attribute is another one than a new connection has."""
        return self._now(connection) != self._attributes

    def apply(self, connection: BaseDatabaseWrapper) -> None:
        """Make the settings, if there are any."""
        if self.settings is not None:
            with self:
                self.settings.apply(connection, local=False)
            self.touched, self._accepted = True, self._now(connection)

    def _now(self, connection: BaseDatabaseWrapper) -> dict[str, Any]:
        own = vars(_wrapper(connection))
        return {name: own.get(name) for name in self._attributes}

    def restore_attributes(self, connection: BaseDatabaseWrapper) -> None:
        """Undo what was changed in Python alone."""
        wrapper: Any = connection
        if self.differs(connection) and hasattr(wrapper, "set_schema_to_public"):
            wrapper.set_schema_to_public()
        own = vars(_wrapper(connection))
        for name in _attributes(connection).keys() - self._attributes.keys():
            del own[name]  # what a backend remembers to have set
        own.update(self._attributes)
        self._accepted = self._attributes
        connection.execute_wrappers[:] = self._wrappers


def _wrapper(connection: Any) -> BaseDatabaseWrapper:
    """Return a connection itself, also of ``django.db.connection``, which only stands for one."""
    found: BaseDatabaseWrapper = (
        connections[connection.alias] if type(connection) is ConnectionProxy else connection
    )
    return found


@lru_cache(maxsize=16)
def has_own_cursors(backend: type) -> bool:
    """Tell whether a class of connections makes cursors in a way of its own."""
    return any(getattr(backend, each) is not getattr(DatabaseWrapper, each) for each in _CURSORS)


def _attributes(connection: BaseDatabaseWrapper) -> dict[str, Any]:
    """Return the attributes of a new connection that a backend has added, and that hold plain values."""
    return {
        name: value
        for name, value in vars(_wrapper(connection)).items()
        if name not in _OF_DJANGO and isinstance(value, _PLAIN)
    }


def session_of(connection: BaseDatabaseWrapper) -> Session:
    """
    Return what is known of a connection, which is made if there is none.

    Raises:
        django.db.Error: It can't be made.
    """
    wrapper: Any = connection
    connection.ensure_connection()
    known: Session | None = getattr(wrapper, "_pgobserve_session", None)
    if known is None or known.raw is not connection.connection:
        known = wrapper._pgobserve_session = Session(connection, known)
        if getattr(wrapper, "pool", None):
            # It was somebody else's before.
            known.touched = True
            restore(connection)
        else:
            known.apply(connection)
    return known


def _made(*, connection: BaseDatabaseWrapper, **_: Any) -> None:
    """Make the settings on a connection that a hook has made in place of one that has ended."""
    known: Session | None = getattr(connection, "_pgobserve_session", None)
    if known is not None and known.raw is not connection.connection and known.settings is not None:
        session_of(connection)


connection_created.connect(_made, dispatch_uid="pgobserve.database.session")


def restore(connection: BaseDatabaseWrapper) -> None:
    """
    Make a session what it was when it was new, if anything but the loader's own statements ran.

    What can't be undone ends with the connection.
    """
    wrapper: Any = connection
    raw: Any = connection.connection
    if raw is None or connection.vendor != "postgresql":
        return
    session: Session | None = getattr(wrapper, "_pgobserve_session", None)
    if session is None or session.raw is not raw:
        # It was made meanwhile, and is not known from the beginning.
        session = wrapper._pgobserve_session = Session(connection, session)
        session.touched = session.changed = True
    session.notice(connection)
    if session.snapshot and session.raw.pgconn.transaction_status == TransactionStatus.INERROR:
        return  # until the transaction has ended
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
    """Restore all sessions of the present thread."""
    for connection in connections.all(initialized_only=True):
        restore(connection)


def changed() -> bool:
    """Tell whether a session of the present thread may have been changed since it was restored."""
    return any(
        _of(each) is None or bool(_of(each).notice(each))  # type: ignore[union-attr]
        for each in connections.all(initialized_only=True)
        if each.connection is not None and each.vendor == "postgresql"
    )


def _of(connection: BaseDatabaseWrapper) -> Session | None:
    """Return what is known of a connection, if it is known."""
    session: Session | None = getattr(connection, "_pgobserve_session", None)
    return session if session is not None and session.raw is connection.connection else None


@contextmanager
def held() -> Iterator[None]:
    """
    Let the present thread's sessions stay as hooks have changed them; restores them at the end.

    Raises:
        InterfaceError: A connection has ended meanwhile. What ran since may have run in a session that
            no hook had prepared.
    """
    prepared: dict[BaseDatabaseWrapper, Any] = {}
    try:
        for connection in connections.all(initialized_only=True):
            if (session := _of(connection)) is not None:
                session.held = True
                prepared[connection] = session.raw
                if session.differs(connection):
                    # Such a backend changes the session with its next cursor.
                    connection.cursor().close()
        yield
        for connection, raw in prepared.items():
            _must_be(connection, raw)
    finally:
        for connection in connections.all(initialized_only=True):
            if (session := _of(connection)) is not None:
                session.held = False
        restore_all()


def _must_be(connection: BaseDatabaseWrapper, raw: Any) -> None:
    if connection.connection is not raw or raw.closed:
        raise InterfaceError("A hook closed the connection whose session was prepared for it.")


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
        raise InterfaceError("A hook set how transactions begin.")
    with session:
        # One round trip, and none of psycopg's bookkeeping.
        result = session.raw.pgconn.exec_(_RESET + _zone(connection))
        if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            raise InterfaceError(result.error_message.decode(errors="replace"))
        # As when it was made: time zone and role, and what the project sets with the signal.
        wrapper._configure_connection(session.raw)
        connection_created.send(sender=type(_wrapper(connection)), connection=connection)
    session.touched = session.changed = False
    session.apply(connection)


def _modes(raw: Any) -> tuple[Any, ...]:
    return raw.isolation_level, raw.read_only, raw.deferrable, raw.row_factory


def _zone(connection: BaseDatabaseWrapper) -> bytes:
    """Return the statement that Django would make in a round trip of its own."""
    name = str(connection.timezone_name or "")
    return f"; SET TimeZone = '{name}'".encode() if re.fullmatch(r"[\w/+-]+", name) else b""


def discard(connection: BaseDatabaseWrapper) -> None:
    """Close a connection in whatever state it is; the next statement makes a new one."""
    wrapper: Any = connection
    raw, wrapper.connection = wrapper.connection, None
    wrapper.in_atomic_block = wrapper.closed_in_transaction = wrapper.needs_rollback = False
    wrapper.savepoint_ids, wrapper.atomic_blocks, wrapper.run_on_commit = [], [], []
    if raw is not None:
        raw.close()
        if (pool := getattr(wrapper, "pool", None)) is not None:
            pool.putconn(raw)


def isolate(connection: BaseDatabaseWrapper) -> None:
    """Undo between two hooks what the first may have changed; what was applied stays applied."""
    wrapper: Any = connection
    session: Session | None = getattr(wrapper, "_pgobserve_session", None)
    # After each hook for each row: calls would take as long as all the rest of it.
    if session is None or session.held or session.raw is not wrapper.connection:
        return
    if session.changed or (session._attributes and session.notice(connection)):
        restore(connection)


def isolate_all() -> None:
    """Do so with all connections of the present thread."""
    for connection in connections.all(initialized_only=True):
        isolate(connection)


@contextmanager
def applied(connection: BaseDatabaseWrapper, settings: SessionSettings) -> Iterator[None]:
    """
    Have settings hold for what runs within, and the session be as it was afterwards.

    Behind a proxy that pools transactions, it is one transaction, and the settings are local to it.
    """
    if connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS"):
        with in_snapshot(connection):
            raw = connection.connection
            settings.apply(connection, local=True)
            yield
            _must_be(connection, raw)
        return
    session = session_of(connection)
    try:
        session.settings = settings
        session.apply(connection)
        yield
    finally:
        # A hook may have made another connection.
        latest: Session = getattr(connection, "_pgobserve_session", session)
        latest.settings = session.settings = None
        latest.touched = True
        restore(connection)


@contextmanager
def in_snapshot(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Have all that runs within be one transaction of the loader's, with one snapshot."""
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
                # Not by a cursor of Django's, for which a backend or a wrapper may query first.
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


@contextmanager
def locally(connection: BaseDatabaseWrapper, settings: SessionSettings) -> Iterator[None]:
    """Have settings hold for a transaction, on a connection that is not the loader's."""
    own = vars(_wrapper(connection))
    before = {name: own[name] for name in own.keys() - _OF_DJANGO}
    try:
        with transaction.atomic(using=connection.alias):
            settings.apply(connection, local=True)
            yield
    finally:
        own.update(before)
        if "search_path_set_schemas" in before:
            # Such a backend remembers the path that it set, which was another one meanwhile.
            own["search_path_set_schemas"] = None
