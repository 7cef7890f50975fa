"""From a registration to the triggers wanted and the SQL that makes them. No database is asked."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from psycopg import sql

from pgobserve.triggers import names, outbox_bodies, route_bodies
from pgobserve.triggers.templates import render
from pgobserve.triggers.trigger_values import Comment, TableInfo, Trigger
from pgobserve.wire import (
    MAX_KEYS,
    MAX_PAYLOAD_BYTES,
    PAYLOAD_VERSION,
    QUEUE_FULL,
    WITH_IMAGES,
    Operation,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pgobserve.triggers.registry import Registration
    from pgobserve.wire import Namespace

#: ``tgtype`` of an AFTER statement trigger is the bit of its event alone.
TYPES: Final = {
    Operation.INSERT: 4,
    Operation.DELETE: 8,
    Operation.UPDATE: 16,
    Operation.TRUNCATE: 32,
}
EVENTS: Final = {
    TYPES[Operation.INSERT]: "INSERT",
    TYPES[Operation.UPDATE]: "UPDATE",
    TYPES[Operation.DELETE]: "DELETE",
    TYPES[Operation.TRUNCATE]: "TRUNCATE",
}
NEW_TABLE: Final = "pgobserve_new"
OLD_TABLE: Final = "pgobserve_old"

#: Bytes of one key from which on "read this table again" is said instead.
OVERSIZED: Final = 2000

#: Bytes of all keys of one statement that are named one by one: the queue is everybody's.
MAX_KEYS_BYTES: Final = 1_000_000

#: Digits of the largest transaction id (xid8).
MAX_XID_DIGITS: Final = 20

#: What stands in a payload between the transaction and the keys.
KEYS_FOLLOW: Final = '","k":'

#: The schema whose tables have payloads that name no schema.
USUAL_SCHEMA: Final = "public"

#: Bytes of the longest name of a schema in JSON, quoted: 63 characters that are escaped.
MAX_SCHEMA_BYTES: Final = len('""') + 63 * len(r"\u0001")

#: What ``function.v2`` sets: what runs with its owner's rights must find nothing of anybody else's.
DEFINER_CONFIG: Final = ("search_path=pg_catalog, pg_temp",)

#: By the class of a field, what a session may have set so that row images would have another value.
FORMATS: Final[Mapping[str, str]] = {
    "FloatField": "extra_float_digits=1",
    "DurationField": "IntervalStyle=postgres",
    "BinaryField": "bytea_output=hex",
    "RangeField": "DateStyle=ISO, YMD",
}


def wanted(registration: Registration, table: TableInfo, *, always: bool) -> dict[str, Trigger]:
    """Return the triggers that a table should have, by name; its partitions need the same."""
    namespace = registration.namespace
    common: dict[str, Any] = {
        "enabled": "A" if always else "O",
        "function_schema": namespace.schema,
    }
    triggers = []
    for operation in Operation:
        events: dict[str, Any] = {**common, **_events(operation)}
        function = names.function(table.schema, table.name, operation)
        writes = registration.transport == "outbox"
        images = writes and operation in WITH_IMAGES
        triggers.append(
            Trigger(
                name=namespace.trigger(operation),
                function=function,
                source=body(registration, operation, table),
                security_definer=writes and not images,
                config=_formats(registration) if images else DEFINER_CONFIG if writes else (),
                **events,
            )
        )
        if images:
            owner = {"schema": table.schema, "table": table.name}
            triggers.append(
                Trigger(
                    name=namespace.writer(operation),
                    function=names.function(**owner, operation=operation, writer=True),
                    source=_writer(registration, operation, table),
                    security_definer=True,
                    config=(*DEFINER_CONFIG, *_formats(registration)),
                    **events,
                )
            )
    return {each.name: each for each in triggers}


def _formats(registration: Registration) -> tuple[str, ...]:
    """Return the settings that row images are made with."""
    found: set[str] = set()
    for field in registration.model._meta.local_concrete_fields:
        each: Any = field
        while each is not None:
            found.update(base.__name__ for base in type(each).__mro__)
            each = getattr(each, "base_field", None)  # of an array
    return tuple(setting for name, setting in FORMATS.items() if name in found)


def _events(operation: Operation) -> dict[str, Any]:
    return {
        "type": TYPES[operation],
        "old_table": OLD_TABLE if operation in "UD" else None,
        "new_table": NEW_TABLE if operation in "IU" else None,
    }


def body(registration: Registration, operation: Operation, table: TableInfo) -> str:
    """Return the body of the function of the trigger that fires first."""
    names_schema = _names_schema(table)
    common = _common(registration, operation, names_schema=names_schema)
    if registration.transport == "outbox":
        if operation is Operation.TRUNCATE:
            return _as_body(outbox_bodies.truncate_body(registration, common))
        rows = _rows(registration, operation)
        one_row = _one_row(registration, operation)
        return _as_body(outbox_bodies.images_body(registration, operation, rows, one_row, common))
    if operation is Operation.TRUNCATE:
        return _as_body(render("notify_truncate.v1", **common))
    limits: dict[str, Any] = {
        "one_key_more": MAX_KEYS + 1,
        "most_keys": MAX_KEYS,
        "most_bytes": MAX_KEYS_BYTES,
        "oversized": OVERSIZED,
        "hint": f"Run manage.py pgobserve install {registration.title}",
    }
    before = _head_bytes(registration, operation, names_schema=names_schema)
    if registration.routes:
        rows = _keys(registration, operation)
        return _as_body(
            route_bodies.body(
                operation, registration.routes, rows, head_bytes=before, **limits, **common
            )
        )
    return _as_body(
        render(
            "notify.v1",
            keys=sql.SQL(_keys(registration, operation)),
            room=MAX_PAYLOAD_BYTES - before - len("[]}"),
            **limits,
            **common,
        )
    )


def _writer(registration: Registration, operation: Operation, table: TableInfo) -> str:
    """Return the body of the function of the trigger that writes to the outbox."""
    rows = _rows(registration, operation)
    common = _common(registration, operation, names_schema=_names_schema(table))
    return _as_body(outbox_bodies.body(registration, operation, rows, common))


def _names_schema(table: TableInfo) -> bool:
    """
    Say whether the payloads of a table name its schema.

    Not of a partitioned table: a statement may name a partition, in another schema.
    """
    return table.schema != USUAL_SCHEMA and table.kind == "r"


def _common(
    registration: Registration, operation: Operation, *, names_schema: bool
) -> dict[str, Any]:
    start, end = _head(registration, operation)
    head: sql.Composable = sql.Literal(start + end)
    if names_schema:
        # The trigger reads the name at run time: a schema may be renamed.
        head = sql.SQL(", ").join([sql.Literal(f'{start},"s":'), _SCHEMA, sql.Literal(end)])
    return {
        "mute": registration.namespace.mute_setting,
        "channel": registration.channel,
        "head": head,
        "keys_follow": KEYS_FOLLOW,
        "full": QUEUE_FULL,
    }


_SCHEMA: Final = sql.SQL("pg_catalog.to_json(TG_TABLE_SCHEMA::pg_catalog.text)")


def _head(registration: Registration, operation: Operation) -> tuple[str, str]:
    """Return what a payload begins with, in front of its schema and behind it."""
    label = json.dumps(registration.label)
    return f'{{"v":{PAYLOAD_VERSION},"t":{label},"o":"{operation}"', ',"x":"'


def _head_bytes(registration: Registration, operation: Operation, *, names_schema: bool) -> int:
    """Return the bytes of a payload in front of its keys, at most."""
    schema = len(',"s":') + MAX_SCHEMA_BYTES if names_schema else 0
    head = "".join(_head(registration, operation))
    return len(head) + schema + MAX_XID_DIGITS + len(KEYS_FOLLOW)


def install_statements(
    registration: Registration,
    table: TableInfo,
    *,
    always: bool,
    unused: Iterable[str] = (),
    home: str = "",
) -> Iterator[str]:
    """
    Yield the statements that install a table's triggers, or bring them up to date.

    Args:
        registration: What is wanted.
        table: The table.
        always: Whether to fire under ``session_replication_role = replica`` too.
        unused: Functions that its triggers use now and that nobody will use then.
        home: The schema that it is installed from, for the comments.
    """
    namespace = registration.namespace
    schema = names.schema(namespace)
    triggers = wanted(registration, table, always=always)
    yield serialize(namespace)
    yield make_schema(namespace)
    if registration.transport == "outbox":
        yield from outbox_bodies.storage_statements(namespace)
    for trigger in triggers.values():
        yield _function(trigger)
        if registration.transport == "outbox":
            function = sql.Identifier(trigger.function)
            yield render("revoke_function.v1", schema=schema, function=function)
    comment = _comment(registration, always=always, home=home)
    for trigger in triggers.values():
        yield from _trigger(table.identifier, trigger, comment)
        if table.kind == "p":
            yield from _on_partitions(table, trigger, comment)
    for name in unused:
        yield drop_function(name, namespace)


def uninstall_statements(
    tables: Iterable[TableInfo], functions: Iterable[str], namespace: Namespace
) -> Iterator[str]:
    """
    Yield the statements that remove a namespace's triggers from tables.

    Their functions go with them, and the schema with the last of these.
    """
    yield serialize(namespace)
    for relation in tables:
        for name in namespace.all_triggers:
            yield render("drop_trigger.v1", trigger=sql.Identifier(name), table=relation.identifier)
    for function in functions:
        yield drop_function(function, namespace)
    yield from outbox_bodies.drop_statements(namespace, only_unused=True)
    yield render("drop_schema.v1", schema=names.schema(namespace))


def drop_function(name: str, namespace: Namespace) -> str:
    """Return the statement that drops a trigger function."""
    schema = names.schema(namespace)
    return render("drop_function.v1", schema=schema, function=sql.Identifier(name))


def serialize(namespace: Namespace) -> str:
    """Return the statement that lets one session at a time work on a schema that is there."""
    return render("serialize.v1", schema=names.schema(namespace), comment=names.SCHEMA_COMMENT)


def make_schema(namespace: Namespace) -> str:
    """Return the statement that makes the schema, or refuses one that other roles have a hand in."""
    return render(
        "schema.v1",
        schema=names.schema(namespace),
        strangers=sql.SQL(strangers(namespace, sql.SQL("CURRENT_USER"))),
        comment=names.SCHEMA_COMMENT,
    )


def strangers(namespace: Namespace, role: sql.Composable) -> str:
    """
    Return the query for what in a schema is in the hands of others than superusers and one role.

    Args:
        namespace: Whose schema.
        role: An expression for the role's name.
    """
    return render("strangers.v1", schema=names.schema(namespace), role=role)


def _as_body(text: str) -> str:
    return f"\n{text}\n"


def _function(trigger: Trigger) -> str:
    tag = "$pgobserve$"
    while tag in trigger.source:  # a column of that name
        tag = f"${tag.strip('$')}_$"
    return render(
        "function.v2" if trigger.security_definer else "function.v1",
        schema=sql.SQL(trigger.function_schema),
        function=sql.Identifier(trigger.function),
        config=sql.SQL("".join(f"\n  SET {each.replace('=', ' = ')}" for each in trigger.config)),
        tag=sql.SQL(tag),
        body=sql.SQL(trigger.source),
    )


def _on_partitions(table: TableInfo, trigger: Trigger, comment: Comment) -> Iterator[str]:
    # The partitions are found when this runs: a migration meets others than those of today.
    mark = sql.SQL("\0")
    for statement in _trigger(mark, trigger, comment):
        text = statement.replace("%", "%%").replace("\0", "%s")
        root = table.identifier.as_string(None)
        yield render("each_partition.v1", root=root, statement=text)


def _trigger(table: sql.Composable, trigger: Trigger, comment: Comment) -> Iterator[str]:
    name = sql.Identifier(trigger.name)
    yield render(
        "trigger.v1",
        trigger=name,
        table=table,
        event=sql.SQL(EVENTS[trigger.type]),
        transition_tables=sql.SQL(_referencing(trigger)),
        schema=sql.SQL(trigger.function_schema),
        function=sql.Identifier(trigger.function),
    )
    if comment.always:
        yield render("enable_always.v1", trigger=name, table=table)
    text = replace(comment, fingerprint=trigger.fingerprint()).text()
    yield render("comment.v1", trigger=name, table=table, comment=text)


def _comment(registration: Registration, *, always: bool, home: str) -> Comment:
    return Comment(
        label=registration.label,
        columns=registration.columns,
        always=always,
        transport=registration.transport,
        channel=registration.channel,
        wake=registration.wake,
        routes=registration.routes,
        project=registration.project,
        home=home,
    )


def _referencing(trigger: Trigger) -> str:
    parts = []
    if trigger.old_table:
        parts.append(f"OLD TABLE AS {trigger.old_table}")
    if trigger.new_table:
        parts.append(f"NEW TABLE AS {trigger.new_table}")
    return "\n  REFERENCING " + " ".join(parts) if parts else ""


def _keys(registration: Registration, operation: Operation) -> str:
    """Return the query for the keys that a statement changed, as JSON, and values beside them."""
    key = registration.key
    new = [sql.Identifier("n", column) for column in key]
    old = [sql.Identifier("o", column) for column in key]
    parts: dict[str, sql.Composable]
    if operation is Operation.INSERT:
        name, parts = "insert", {"new_key": _json(new)}
    elif operation is Operation.DELETE:
        name, parts = "delete", {"old_key": _json(old)}
    else:
        name = "update"
        parts = {"either_key": _json(_either(new, old)), **_changed(registration, new, old)}
    if registration.routes:
        parts["values"] = route_bodies.values(operation, registration.routes)
        return render(f"routes_{name}.v1", **parts)
    return render(f"keys_{name}.v1", **parts)


def _rows(registration: Registration, operation: Operation) -> str:
    """Return the query for keys and images of the rows that a statement changed."""
    new = [sql.Identifier("n", column) for column in registration.key]
    old = [sql.Identifier("o", column) for column in registration.key]
    if operation is Operation.INSERT:
        return outbox_bodies.rows(operation, _value(new))
    if operation is Operation.DELETE:
        return outbox_bodies.rows(operation, _value(old))
    return outbox_bodies.rows(
        operation, _value(_either(new, old)), **_changed(registration, new, old)
    )


def _one_row(registration: Registration, operation: Operation) -> str:
    """Return the query for the text of a statement that changed one row."""
    new = [sql.Identifier("n", column) for column in registration.key]
    old = [sql.Identifier("o", column) for column in registration.key]
    if operation is not Operation.UPDATE:
        return outbox_bodies.one_row(
            operation, _json(old if operation is Operation.DELETE else new)
        )
    changed = _changed(registration, new, old)
    return outbox_bodies.one_row(
        operation, _json(new), same_key=changed["same_key"], differs=changed["differs"]
    )


def _either(new: list[sql.Identifier], old: list[sql.Identifier]) -> list[sql.Composed]:
    pairs = zip(new, old, strict=True)
    return [sql.SQL("coalesce({}, {})").format(n, o) for n, o in pairs]


def _changed(
    registration: Registration, new: list[sql.Identifier], old: list[sql.Identifier]
) -> dict[str, sql.Composable]:
    """Return how the two transition tables are joined, and which pairs are changes."""
    pairs = zip(new, old, strict=True)
    same = [sql.SQL("{} OPERATOR(pg_catalog.=) {}").format(o, n) for n, o in pairs]
    return {
        "same_key": sql.SQL(" AND ").join(same),
        "new_is_missing": sql.SQL("{} IS NULL").format(new[0]),
        "old_is_missing": sql.SQL("{} IS NULL").format(old[0]),
        "differs": _differs(registration.told),
    }


def _value(values: list[sql.Identifier] | list[sql.Composed]) -> sql.Composable:
    """Return the key as ``json_agg`` takes it."""
    return values[0] if len(values) == 1 else _json(values)


def _json(values: list[sql.Identifier] | list[sql.Composed]) -> sql.Composed:
    function = "to_json" if len(values) == 1 else "json_build_array"
    return sql.SQL("pg_catalog.{}({})").format(sql.SQL(function), sql.SQL(", ").join(values))


def _differs(columns: tuple[str, ...] | None) -> sql.Composable:
    # "*<>" compares images. "IS DISTINCT FROM" wants an equality operator of every column, which
    # json, xml and point have not: it installs, and then every UPDATE fails.
    if columns is None:
        return sql.SQL("n.* OPERATOR(pg_catalog.*<>) o.*")
    if not columns:
        return sql.SQL("false")
    # Without the cast PostgreSQL would compare the two ROWs column by column.
    new, old = (
        sql.SQL("ROW({})::pg_catalog.record").format(
            sql.SQL(", ").join(sql.Identifier(alias, column) for column in columns)
        )
        for alias in "no"
    )
    return sql.SQL("{} OPERATOR(pg_catalog.*<>) {}").format(new, old)
