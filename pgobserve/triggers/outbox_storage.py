"""The outbox's tables in a database: whether they are as they must be, made, rotated, removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from psycopg import sql

from pgobserve.triggers import compiler, names, outbox_bodies
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

_STRANGERS: Final = """
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

_FACTS: Final = sql.SQL("""
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

#: What there must be, and its columns.
SHAPE: Final = {
    "outbox": _ROW,
    **{f"outbox_{slot}": _ROW for slot in range(outbox_bodies.SLOTS)},
    "outbox_gate": _SEQUENCE,
    "outbox_lost": _SEQUENCE,
    "outbox_state": _STATE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageStatus:
    """
    How the outbox of a database stands.

    Attributes:
        slot: The slot that is written now.
        is_full: Whether it has grown to its limit, so that nothing is written to it.
        has_lost: Whether it ever was, or something could not be written for another reason.
        rotated_at: When it went on to another slot.
        idle: How long ago that is.
        size: Bytes that it takes on disk.
        max_bytes: Bytes that it may take.
    """

    slot: int
    is_full: bool
    has_lost: bool
    rotated_at: datetime.datetime
    idle: datetime.timedelta
    size: int
    max_bytes: int


def exists(connection: BaseDatabaseWrapper, namespace: Namespace) -> bool:
    """Say whether there is an outbox."""
    query = "SELECT pg_catalog.to_regclass(%s) IS NOT NULL"
    ((found,),) = pinned_search_path.fetch(connection, query, [f"{namespace.schema}.outbox"])
    return bool(found)


def problem(connection: BaseDatabaseWrapper, namespace: Namespace) -> str:
    """Say what is not as it must be; nothing if all is well."""
    return (
        broken(connection, namespace)
        or _outdated(connection, namespace)
        or _forbidden(connection, namespace)
    )


def broken(connection: BaseDatabaseWrapper, namespace: Namespace) -> str:
    """Say which table is missing or has another shape, so that the outbox must be made anew."""
    return _misshapen(_columns(connection, namespace), namespace)


def _misshapen(columns: Mapping[str, str], namespace: Namespace) -> str:
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
    for statement in outbox_bodies.function_statements(namespace):
        head, body, _ = statement.split("$pgobserve$")
        name = head.partition("(")[0].rpartition(".")[2]
        if sources.get(name) != body:
            return f"the function {namespace.schema}.{name} is not the one that this version wants"
    return ""


def _forbidden(connection: BaseDatabaseWrapper, namespace: Namespace) -> str:
    owners = [
        owner for (owner,) in pinned_search_path.fetch(connection, _STRANGERS, [namespace.schema])
    ]
    if not owners:
        return ""
    schema = namespace.schema
    return f"the role {owners[0]}, who owns triggers, may not write to {schema}.outbox_0"


def is_readable(connection: BaseDatabaseWrapper, namespace: Namespace) -> bool:
    """Say whether the role may see how the outbox stands."""
    return any(
        readable
        for (readable,) in pinned_search_path.fetch(connection, _READABLE, [namespace.schema])
    )


def repair_statements(connection: BaseDatabaseWrapper, namespace: Namespace) -> Iterator[str]:
    """Yield what is to be run before an installation: what is left of a damaged outbox is removed."""
    columns = _columns(connection, namespace)
    if columns and _misshapen(columns, namespace):
        yield compiler.serialize(namespace)
        yield compiler.make_schema(namespace)
        yield from outbox_bodies.drop_statements(namespace, repair=True)


def create(
    connection: BaseDatabaseWrapper,
    namespace: Namespace,
    *,
    max_bytes: int = outbox_bodies.MAX_BYTES,
) -> None:
    """Make the outbox, if there is none."""
    _execute(connection, compiler.serialize(namespace), compiler.make_schema(namespace))
    _execute(connection, *outbox_bodies.storage_statements(namespace, max_bytes))


def drop(connection: BaseDatabaseWrapper, namespace: Namespace) -> None:
    """Remove the outbox with all that is in it, and our schema if nothing else is in it."""
    _execute(
        connection,
        compiler.serialize(namespace),
        *outbox_bodies.drop_statements(namespace),
        render("drop_schema.v1", schema=names.schema(namespace)),
    )


def limit(connection: BaseDatabaseWrapper, namespace: Namespace, max_bytes: int) -> None:
    """Set the bytes that the outbox may take, if there is one."""
    if exists(connection, namespace) and not (
        broken(connection, namespace) or schema_owners.strangers(connection, namespace)
    ):
        query = sql.SQL("UPDATE {}.outbox_state SET max_bytes = %s WHERE max_bytes <> %s")
        with connection.cursor() as cursor:
            cursor.execute(query.format(names.schema(namespace)), [max_bytes, max_bytes])


def facts(connection: BaseDatabaseWrapper, namespace: Namespace) -> StorageStatus:
    """Return how the outbox stands; there must be one."""
    ((slot, is_full, has_lost, rotated_at, max_bytes, size, idle),) = pinned_search_path.fetch(
        connection, _FACTS.format(schema=names.schema(namespace))
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
    Take all steps of the rotation that are due now; must not run in a transaction.

    Args:
        connection: The database.
        namespace: Whose outbox.
        retention: Seconds that rows are kept at least, from when they could be seen.

    Returns:
        What was done, step by step; the last one says why there is nothing more to do.
    """
    steps: list[str] = []
    query = sql.SQL("SELECT {}.outbox_rotate(%s)").format(names.schema(namespace))
    while len(steps) < MAX_STEPS:
        with connection.cursor() as cursor:
            cursor.execute(query, [retention])
            (step,) = cursor.fetchone()
        steps.append(step)
        if step not in GOES_ON:
            break
    return steps


#: Steps after which another one may be due at once.
GOES_ON: Final = ("emptied", "advanced", "quiet")

#: A rotation is five steps at most: two slots quiet, one emptied, advanced, one quiet.
MAX_STEPS: Final = 6


def _execute(connection: BaseDatabaseWrapper, *statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
