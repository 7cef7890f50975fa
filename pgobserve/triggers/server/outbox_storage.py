"""The outbox in a database: verify, create, rotate and drop its tables and functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from psycopg import sql

from pgobserve.triggers import names, outbox_statements, trigger_statements
from pgobserve.triggers.bodies.outbox_bodies import SLOTS
from pgobserve.triggers.server import pinned_search_path, schema_owners
from pgobserve.triggers.templates import render

if TYPE_CHECKING:
    import datetime
    from collections.abc import Iterator, Mapping

    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.wire import Namespace

_COLUMNS: Final = """
SELECT c.relname, pg_catalog.string_agg(
         a.attname || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE c.relnamespace = pg_catalog.to_regnamespace(%s) AND c.relname = ANY(%s)
 GROUP BY c.relname
"""

_FUNCTIONS: Final = """
SELECT p.proname, p.prosrc
  FROM pg_catalog.pg_proc p
 WHERE p.pronamespace = pg_catalog.to_regnamespace(%s) AND p.proname LIKE 'outbox\\_%%'
   AND p.prorettype <> 'pg_catalog.trigger'::pg_catalog.regtype
"""

_FORBIDDEN: Final = """
SELECT DISTINCT pg_catalog.pg_get_userbyid(p.proowner)
  FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_class c ON c.relnamespace = p.pronamespace AND c.relname = 'outbox_0'
 WHERE p.pronamespace = pg_catalog.to_regnamespace(%s) AND p.prosecdef
   AND NOT pg_catalog.has_table_privilege(p.proowner, c.oid, 'INSERT')
"""

_READABLE: Final = """
SELECT pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE')
       AND pg_catalog.bool_and(pg_catalog.has_table_privilege(c.oid, 'SELECT'))
  FROM pg_catalog.pg_class c
 WHERE c.relnamespace = pg_catalog.to_regnamespace(%s)
   AND c.relname = ANY('{outbox_gate,outbox_lost,outbox_state}')
 GROUP BY c.relnamespace
"""

_STATUS: Final = sql.SQL("""
SELECT g.last_value % 3, g.last_value >= 3, l.last_value > 0, s.rotated_at, s.max_bytes,
       (SELECT pg_catalog.sum(pg_catalog.pg_total_relation_size(i.inhrelid))::pg_catalog.int8
          FROM pg_catalog.pg_inherits i WHERE i.inhparent = '{schema}.outbox'::pg_catalog.regclass),
       pg_catalog.clock_timestamp() - s.rotated_at
  FROM {schema}.outbox_gate g, {schema}.outbox_lost l, {schema}.outbox_state s
""")

_ROW: Final = (
    "slot smallint, xid xid8, label text, op text, keys json, old json, new json, "
    "at timestamp with time zone"
)
_SEQUENCE: Final = "last_value bigint, log_cnt bigint, is_called boolean"
_STATE: Final = (
    "only_row boolean, horizon pg_snapshot, rotated_at timestamp with time zone, "
    "empty_slot smallint, quiet_at timestamp with time zone[], quiet pg_snapshot[], "
    "max_bytes bigint"
)

#: The relations of the outbox, and their columns.
SHAPE: Final = {
    "outbox": _ROW,
    **{f"outbox_{slot}": _ROW for slot in range(SLOTS)},
    "outbox_gate": _SEQUENCE,
    "outbox_lost": _SEQUENCE,
    "outbox_state": _STATE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageStatus:
    """
    The status of a database's outbox.

    Attributes:
        slot: The slot that triggers write to now.
        is_full: Whether it reached its limit, so that triggers write nothing.
        has_lost: Whether a trigger ever failed to write a change.
        rotated_at: When triggers began to write to this slot.
        idle: Time since then.
        size: Bytes on disk.
        max_bytes: Its limit.
    """

    slot: int
    is_full: bool
    has_lost: bool
    rotated_at: datetime.datetime
    idle: datetime.timedelta
    size: int
    max_bytes: int


def exists(connection: BaseDatabaseWrapper, namespace: Namespace) -> bool:
    """Return whether the outbox exists."""
    query = "SELECT pg_catalog.to_regclass(%s) IS NOT NULL"
    ((is_there,),) = pinned_search_path.fetch(connection, query, [f"{namespace.schema}.outbox"])
    return bool(is_there)


def problem(connection: BaseDatabaseWrapper, namespace: Namespace) -> str:
    """Return what is wrong with the outbox; empty if nothing is."""
    return (
        damage(connection, namespace)
        or _outdated(connection, namespace)
        or _forbidden(connection, namespace)
    )


def damage(connection: BaseDatabaseWrapper, namespace: Namespace) -> str:
    """Return which table is missing or has other columns; then the outbox must be created again."""
    return _damage_in(_columns(connection, namespace), namespace)


def _damage_in(columns: Mapping[str, str], namespace: Namespace) -> str:
    for name, wanted in SHAPE.items():
        if name not in columns:
            return f"there is no {namespace.schema}.{name}"
        if columns[name] != wanted:
            return f"{namespace.schema}.{name} has other columns than it should"
    return ""


def _columns(connection: BaseDatabaseWrapper, namespace: Namespace) -> dict[str, str]:
    return dict(pinned_search_path.fetch(connection, _COLUMNS, [namespace.schema, list(SHAPE)]))


def _outdated(connection: BaseDatabaseWrapper, namespace: Namespace) -> str:
    sources = dict(pinned_search_path.fetch(connection, _FUNCTIONS, [namespace.schema]))
    for statement in outbox_statements.function_statements(namespace):
        head, body, _ = statement.split("$pgobserve$")
        name = head.partition("(")[0].rpartition(".")[2]
        if sources.get(name) != body:
            return f"the function {namespace.schema}.{name} does not match this version"
    return ""


def _forbidden(connection: BaseDatabaseWrapper, namespace: Namespace) -> str:
    owners = [
        owner for (owner,) in pinned_search_path.fetch(connection, _FORBIDDEN, [namespace.schema])
    ]
    if not owners:
        return ""
    schema = namespace.schema
    return f"the role {owners[0]} owns trigger functions and may not write to {schema}.outbox_0"


def is_readable(connection: BaseDatabaseWrapper, namespace: Namespace) -> bool:
    """Return whether the session's role may read the outbox's status."""
    return any(
        readable
        for (readable,) in pinned_search_path.fetch(connection, _READABLE, [namespace.schema])
    )


def repair_statements(connection: BaseDatabaseWrapper, namespace: Namespace) -> Iterator[str]:
    """Yield the statements that remove a damaged outbox before an installation."""
    columns = _columns(connection, namespace)
    if columns and _damage_in(columns, namespace):
        yield trigger_statements.lock_statement(namespace)
        yield trigger_statements.schema_statement(namespace)
        yield from outbox_statements.drop_statements(namespace, repair=True)


def create(
    connection: BaseDatabaseWrapper,
    namespace: Namespace,
    *,
    max_bytes: int = outbox_statements.MAX_BYTES,
) -> None:
    """Create the outbox if it does not exist."""
    _execute(
        connection,
        trigger_statements.lock_statement(namespace),
        trigger_statements.schema_statement(namespace),
    )
    _execute(connection, *outbox_statements.storage_statements(namespace, max_bytes))


def drop(connection: BaseDatabaseWrapper, namespace: Namespace) -> None:
    """Drop the outbox with all its rows, and the schema if it is empty then."""
    _execute(
        connection,
        trigger_statements.lock_statement(namespace),
        *outbox_statements.drop_statements(namespace),
        render("drop_schema.v1", schema=names.schema(namespace)),
    )


def set_limit(connection: BaseDatabaseWrapper, namespace: Namespace, max_bytes: int) -> None:
    """Set the limit of the outbox in bytes, if it exists and no other role controls it."""
    if exists(connection, namespace) and not (
        damage(connection, namespace) or schema_owners.foreign_objects(connection, namespace)
    ):
        query = sql.SQL("UPDATE {}.outbox_state SET max_bytes = %s WHERE max_bytes <> %s")
        with connection.cursor() as cursor:
            cursor.execute(query.format(names.schema(namespace)), [max_bytes, max_bytes])


def status(connection: BaseDatabaseWrapper, namespace: Namespace) -> StorageStatus:
    """Return the status of an outbox that exists."""
    ((slot, is_full, has_lost, rotated_at, max_bytes, size, idle),) = pinned_search_path.fetch(
        connection, _STATUS.format(schema=names.schema(namespace))
    )
    return StorageStatus(
        slot=slot,
        is_full=is_full,
        has_lost=has_lost,
        rotated_at=rotated_at,
        idle=idle,
        size=size,
        max_bytes=max_bytes,
    )


def rotate(connection: BaseDatabaseWrapper, namespace: Namespace, retention: float) -> list[str]:
    """
    Take all steps of the rotation that are due, and return them; the last is the reason to stop.

    Must not run in a transaction: the step that advances to a slot must not hold the lock of the
    step that emptied it. Rows stay at least ``retention`` seconds after they became visible.
    """
    steps: list[str] = []
    query = sql.SQL("SELECT {}.outbox_rotate(%s)").format(names.schema(namespace))
    while len(steps) < MAX_STEPS:
        with connection.cursor() as cursor:
            cursor.execute(query, [retention])
            (step,) = cursor.fetchone()
        steps.append(step)
        if step not in CONTINUES:
            break
    return steps


#: Steps after which the next may be due at once.
CONTINUES: Final = ("emptied", "advanced", "quiet")

#: A rotation has at most five steps: two slots quiet, one emptied, advanced, one quiet.
MAX_STEPS: Final = 6


def _execute(connection: BaseDatabaseWrapper, *statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
