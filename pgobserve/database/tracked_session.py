"""What is known of a connection's session: whether a statement touched it, and may have changed it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Self

from django.db import connections

from pgobserve.database.backend_state import backend_attributes, has_own_cursors, wrapper_of
from pgobserve.database.plain_reads import is_plain_read

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.database.session_settings import SessionSettings


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
        self.modes = modes_of(self.raw)
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


def modes_of(raw: Any) -> tuple[Any, ...]:
    """Return a connection's transaction characteristics and row factory."""
    return raw.isolation_level, raw.read_only, raw.deferrable, raw.row_factory
