"""Names of database objects."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    from pgobserve.wire import Namespace, Operation

#: Bytes of a name that PostgreSQL keeps (NAMEDATALEN - 1).
MAX_BYTES = 63

#: The comment on our schema.
SCHEMA_COMMENT = "pgobserve: the functions of triggers, and the outbox"


def quote(name: str) -> str:
    """Quote a ``db_table`` as Django does; a name in quotes stays as it is."""
    return name if name.startswith('"') and name.endswith('"') else f'"{name}"'


def column(name: str) -> str:
    """Return the catalog's name of a column that Django calls ``name``."""
    if len(name) > 1 and name.startswith('"') and name.endswith('"'):
        name = name[1:-1].replace('""', '"')
    return clip(name, MAX_BYTES)


def function(schema: str, table: str, operation: Operation, *, writer: bool = False) -> str:
    """
    Return the name of the trigger function of a table and operation.

    It begins with the table's name, cut to fit. The hash distinguishes names that were cut, and
    tables of one name in two schemas.
    """
    digest = hashlib.sha256(f"{schema}\0{table}".encode()).hexdigest()[:8]
    tail = f"_{digest}_{operation.lower()}" + ("_write" if writer else "")
    return clip(table, MAX_BYTES - len(tail)) + tail


def clip(name: str, size: int) -> str:
    """Cut a name to at most ``size`` bytes of whole characters."""
    return name.encode()[:size].decode(errors="ignore")


def schema(namespace: Namespace) -> sql.SQL:
    """Return a namespace's schema for templates. It needs no quotes, not even in a literal."""
    return sql.SQL(namespace.schema)


def is_ours(trigger: str, function_schema: str, comment: str | None, namespace: Namespace) -> bool:
    """Return whether this package installed a trigger, in this namespace."""
    return trigger in namespace.all_triggers and (
        function_schema == namespace.schema or (comment or "").startswith("pgobserve:")
    )
