"""The body of each trigger function of a table, and the payload around the changed keys."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from psycopg import sql

from pgobserve.triggers.bodies import changed_rows, outbox_bodies, route_bodies
from pgobserve.triggers.bodies.column_texts import (
    column_settings,
    image_settings,
    is_plain,
    pins,
)
from pgobserve.triggers.templates import render
from pgobserve.wire import MAX_KEYS, MAX_PAYLOAD_BYTES, PAYLOAD_VERSION, QUEUE_FULL, Operation

if TYPE_CHECKING:
    from pgobserve.triggers.registry import Registration
    from pgobserve.triggers.trigger_values import TableInfo

#: A statement with a key of this many bytes marks the whole table as changed.
OVERSIZED: Final = 2000

#: Bytes of keys that one statement names. All sessions of a server share the NOTIFY queue, so a
#: larger statement marks the whole table as changed.
MAX_KEYS_BYTES: Final = 1_000_000

#: Digits of the largest transaction id (xid8).
MAX_XID_DIGITS: Final = 20

#: Between the transaction and the keys of a payload.
KEYS_FOLLOW: Final = '","k":'

#: Payloads name the schema of a table in any other schema.
USUAL_SCHEMA: Final = "public"

#: Bytes of the longest schema name as quoted JSON: 63 characters, all escaped.
MAX_SCHEMA_BYTES: Final = len('""') + 63 * len(r"\u0001")

_SCHEMA: Final = sql.SQL("pg_catalog.to_json(TG_TABLE_SCHEMA::pg_catalog.text)")


def first_body(registration: Registration, operation: Operation, table: TableInfo) -> str:
    """Return the body of the first trigger: it sends the keys, or makes images for the outbox."""
    common = _common(registration, operation, table)
    if registration.transport == "notify":
        head_bytes = _head_bytes(registration, operation, names_schema=_names_schema(table))
        return _as_body(_notify(registration, operation, table, head_bytes, common))
    if operation is Operation.TRUNCATE:
        return _as_body(outbox_bodies.truncate_body(registration, common))
    rows = changed_rows.images_query(registration, operation, table)
    one_row = changed_rows.one_row_query(registration, operation, table)
    body = outbox_bodies.images_body(registration, operation, rows, one_row, common)
    return _as_body(body, names_columns=not is_plain(table))


def writer_body(registration: Registration, operation: Operation, table: TableInfo) -> str:
    """Return the body of the second trigger, which writes the images to the outbox."""
    rows = changed_rows.images_query(registration, operation, table)
    common = _common(registration, operation, table)
    body = outbox_bodies.writer_body(registration, operation, rows, common)
    return _as_body(body, names_columns=not is_plain(table))


def _notify(
    registration: Registration,
    operation: Operation,
    table: TableInfo,
    head_bytes: int,
    common: dict[str, Any],
) -> str:
    if operation is Operation.TRUNCATE:
        return render("notify_truncate.v1", **common)
    keys = changed_rows.keys_query(registration, operation, table)
    limits: dict[str, Any] = {
        "one_key_more": MAX_KEYS + 1,
        "most_keys": MAX_KEYS,
        "most_bytes": MAX_KEYS_BYTES,
        "oversized": OVERSIZED,
        "hint": f"Run manage.py pgobserve install {registration.title}",
    }
    if registration.routes:
        return route_bodies.body(
            operation, registration.routes, keys, head_bytes=head_bytes, **limits, **common
        )
    room = MAX_PAYLOAD_BYTES - head_bytes - len("[]}")
    return render("notify.v1", keys=sql.SQL(keys), room=room, **limits, **common)


def _names_schema(table: TableInfo) -> bool:
    """
    Return whether payloads name the schema of a table.

    Those of a partitioned table do not: a statement may address a partition in another schema.
    """
    return table.schema != USUAL_SCHEMA and table.kind == "r"


def _common(registration: Registration, operation: Operation, table: TableInfo) -> dict[str, Any]:
    """Return the parameters that all templates of bodies have."""
    parts = payload_parts(registration, operation, names_schema=_names_schema(table))
    obeyed = pins(_settings(registration, table))
    return {"mute": registration.namespace.mute_setting, **parts, **obeyed}


def payload_parts(
    registration: Registration, operation: Operation, *, names_schema: bool = False
) -> dict[str, Any]:
    """Return the parameters of a template that notifies of a whole table."""
    start, end = _head(registration, operation)
    head: sql.Composable = sql.Literal(start + end)
    if names_schema:
        # The trigger reads the name at run time, because a schema may be renamed.
        head = sql.SQL(", ").join([sql.Literal(f'{start},"s":'), _SCHEMA, sql.Literal(end)])
    return {
        "channel": registration.channel,
        "head": head,
        "keys_follow": KEYS_FOLLOW,
        "full": QUEUE_FULL,
    }


def _settings(registration: Registration, table: TableInfo) -> set[str]:
    """Return the settings that the texts in a payload or a record obey."""
    obeyed = column_settings(table, (*registration.key, *registration.routes))
    return obeyed | image_settings(table) if registration.transport == "outbox" else obeyed


def _head(registration: Registration, operation: Operation) -> tuple[str, str]:
    """Return the start of a payload: what precedes its schema, and what follows it."""
    label = json.dumps(registration.label)
    return f'{{"v":{PAYLOAD_VERSION},"t":{label},"o":"{operation}"', ',"x":"'


def _head_bytes(registration: Registration, operation: Operation, *, names_schema: bool) -> int:
    """Return the largest size of a payload in front of its keys."""
    schema = len(',"s":') + MAX_SCHEMA_BYTES if names_schema else 0
    head = "".join(_head(registration, operation))
    return len(head) + schema + MAX_XID_DIGITS + len(KEYS_FOLLOW)


def _as_body(text: str, *, names_columns: bool = False) -> str:
    # Columns may have the names of the body's variables.
    return f"{'#variable_conflict use_column' if names_columns else ''}\n{text}\n"
