"""A connection's session and its backend: the settings applied, and whether a statement may have changed it."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, Self

from django.db import connections, transaction
from django.db.backends.postgresql.base import DatabaseWrapper
from django.utils.connection import ConnectionProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from django.db.backends.base.base import BaseDatabaseWrapper

#: Attributes of Django's own wrapper; tenant backends keep their schema in others.
_OF_DJANGO: Final = frozenset(vars(DatabaseWrapper({}))) | frozenset(dir(DatabaseWrapper))
_PLAIN: Final = (type(None), bool, int, float, str, tuple)

#: Methods that make cursors; a backend may set a tenant or a role in its override of one.
_CURSORS: Final = ("cursor", "_cursor", "create_cursor", "make_cursor", "make_debug_cursor")

#: Words that may precede a parenthesis: SQL's own, and functions without side effects.
_WORDS: Final = frozenset(
    """
    abs age all and any array array_agg array_length as ascii avg between bigint bit_and bit_or
    bool_and bool_or btrim by cardinality case cast ceil ceiling char char_length chr
    clock_timestamp coalesce concat concat_ws count current_setting date date_part date_trunc
    decimal dense_rank distinct double else end except exists exp extract filter first_value
    floor from gen_random_uuid greatest group having in initcap integer intersect interval is
    join json_agg json_build_object jsonb_agg jsonb_build_array jsonb_build_object
    jsonb_extract_path_text jsonb_object_agg lag last_value lateral lead least left length like
    limit ln log lower lpad ltrim make_date max md5 min mod not now ntile nullif numeric offset
    on or order over partition plainto_tsquery position power precision rank regexp_replace
    repeat replace reverse right round row row_number rpad rtrim select setweight sign similar
    similarity smallint some split_part sqrt starts_with statement_timestamp stddev_pop
    stddev_samp string_agg strpos substring sum text then time timestamp to_char to_tsquery
    to_tsvector transaction_timestamp translate trim trunc ts_rank union unnest upper using
    values var_pop var_samp varchar websearch_to_tsquery when where within word_similarity
    """.split()  # noqa: SIM905 (a word on each line would be a page)
)

_LITERAL: Final = re.compile(r"'(?:[^']|'')*'")
_CALL: Final = re.compile(r"""(\.?)\s*(\w+|"(?:[^"]|"")*")\s*\(""")
_OTHER: Final = re.compile(r"""[\\;$]|--|/\*|\binto\b""", re.IGNORECASE)


def wrapper_of(connection: Any) -> BaseDatabaseWrapper:
    """Return the wrapper itself, also for the proxy ``django.db.connection``."""
    result: BaseDatabaseWrapper = (
        connections[connection.alias] if type(connection) is ConnectionProxy else connection
    )
    return result


@lru_cache(maxsize=16)
def has_own_cursors(backend: type) -> bool:
    """Return whether a wrapper class overrides how cursors are made."""
    return any(getattr(backend, each) is not getattr(DatabaseWrapper, each) for each in _CURSORS)


def backend_attributes(connection: BaseDatabaseWrapper) -> dict[str, Any]:
    """Return the attributes with plain values that a backend adds to Django's."""
    return {
        name: value
        for name, value in custom_attributes(connection).items()
        if isinstance(value, _PLAIN)
    }


def custom_attributes(connection: BaseDatabaseWrapper) -> dict[str, Any]:
    """Return all attributes that Django's own wrapper does not have."""
    return {k: v for k, v in vars(wrapper_of(connection)).items() if k not in _OF_DJANGO}


@lru_cache(maxsize=2048)
def is_plain_read(text: str) -> bool:
    """
    Return whether a statement is a SELECT that calls only functions known to have no side effects.

    Any other function may set something, as ``set_config()`` does. In doubt the answer is False.
    """
    if text.lstrip(" (")[:7].upper() != "SELECT " or _OTHER.search(text):
        return False
    return all(
        not qualified and name.lower() in _WORDS
        for qualified, name in _CALL.findall(_LITERAL.sub("''", text))
    )


class Session:
    """
    Tracks what happened in a session; as a context manager it marks the loader's own statements.

    Attributes:
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


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Names and values for ``set_config``."""

    items: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> SessionSettings:
        """Put roles last: a role may lack the right to make other settings."""
        names = sorted(settings, key=lambda name: (name in ("role", "session_authorization"), name))
        return cls(tuple((name, str(settings[name])) for name in names))

    def apply(self, connection: BaseDatabaseWrapper, *, local: bool) -> None:
        """Apply the settings to the current transaction (``local``) or to the session."""
        wrapper: Any = connection
        for name, value in self.items:
            if name == "search_path" and hasattr(wrapper, "set_schema"):
                # A tenant backend sets the path itself, with each cursor.
                wrapper.set_schema(value.split(",")[0].strip(' "'))
        if self.items:
            calls = ", ".join(["pg_catalog.set_config(%s, %s, %s)"] * len(self.items))
            params = [part for item in self.items for part in (*item, local)]
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT {calls}", params)


@contextmanager
def locally(connection: BaseDatabaseWrapper, settings: SessionSettings) -> Iterator[None]:
    """Apply settings for one transaction, on a connection that is not the loader's."""
    before = custom_attributes(connection)
    try:
        with transaction.atomic(using=connection.alias):
            settings.apply(connection, local=True)
            yield
    finally:
        own = vars(wrapper_of(connection))
        own.update(before)
        if "search_path_set_schemas" in before:
            # The backend remembers a path that the rollback or commit has undone.
            own["search_path_set_schemas"] = None
