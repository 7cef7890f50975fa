"""Queries that read the keys, values and images of changed rows from transition tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from pgobserve.triggers.bodies import outbox_bodies, route_bodies
from pgobserve.triggers.bodies.column_texts import text_of
from pgobserve.triggers.templates import render
from pgobserve.wire import Operation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgobserve.triggers.registry import Registration
    from pgobserve.triggers.trigger_values import TableInfo


def keys_query(registration: Registration, operation: Operation, table: TableInfo) -> str:
    """Return the query for the changed keys as JSON, with the values of routes beside them."""
    new, old = _key_texts(registration, table)
    parts: dict[str, sql.Composable]
    if operation is Operation.INSERT:
        name, parts = "insert", {"new_key": _json(new)}
    elif operation is Operation.DELETE:
        name, parts = "delete", {"old_key": _json(old)}
    else:
        name = "update"
        parts = {"either_key": _json(_either(new, old)), **_changed(registration, table)}
    if registration.routes:
        plain = table.plain(registration.model)
        parts["values"] = route_bodies.values(operation, registration.routes, plain)
        return render(f"routes_{name}.v1", **parts)
    return render(f"keys_{name}.v1", **parts)


def images_query(registration: Registration, operation: Operation, table: TableInfo) -> str:
    """Return the query for keys and row images."""
    new, old = _key_texts(registration, table)
    if operation is Operation.UPDATE:
        key = _value(_either(new, old))
        return outbox_bodies.images_query(operation, table, key, **_changed(registration, table))
    key = _value(old if operation is Operation.DELETE else new)
    return outbox_bodies.images_query(operation, table, key)


def one_row_query(registration: Registration, operation: Operation, table: TableInfo) -> str:
    """Return the query for key and images as one text, for a statement that changed one row."""
    new, old = _key_texts(registration, table)
    key = _json(old if operation is Operation.DELETE else new)
    if operation is not Operation.UPDATE:
        return outbox_bodies.one_row_query(operation, table, key)
    changed = _changed(registration, table)
    return outbox_bodies.one_row_query(
        operation, table, key, same_key=changed["same_key"], differs=changed["differs"]
    )


def _key_texts(
    registration: Registration, table: TableInfo
) -> tuple[list[sql.Composable], list[sql.Composable]]:
    """Return the key of the new and of the old transition table, column by column."""
    plain = table.plain(registration.model)
    new, old = ([text_of(alias, name, plain) for name in registration.key] for alias in "no")
    return new, old


def _either(new: list[sql.Composable], old: list[sql.Composable]) -> list[sql.Composed]:
    pairs = zip(new, old, strict=True)
    return [sql.SQL("coalesce({}, {})").format(n, o) for n, o in pairs]


def _changed(registration: Registration, table: TableInfo) -> dict[str, sql.Composable]:
    """Return how the two transition tables are joined, and which pairs count as changed."""
    # Subscriptions know a row by the text of its key, so a key that is written anew is another key.
    pairs = zip(*_key_texts(registration, table), strict=True)
    same = [sql.SQL("{} OPERATOR(pg_catalog.=) {}").format(o, n) for n, o in pairs]
    first = registration.key[0]
    return {
        "same_key": sql.SQL(" AND ").join(same),
        "new_is_missing": sql.SQL("{} IS NULL").format(sql.Identifier("n", first)),
        "old_is_missing": sql.SQL("{} IS NULL").format(sql.Identifier("o", first)),
        "differs": _differs(registration.compared),
    }


def _value(values: Sequence[sql.Composable]) -> sql.Composable:
    """Return the key as an argument of ``json_agg``."""
    return values[0] if len(values) == 1 else _json(values)


def _json(values: Sequence[sql.Composable]) -> sql.Composed:
    function = "to_json" if len(values) == 1 else "json_build_array"
    return sql.SQL("pg_catalog.{}({})").format(sql.SQL(function), sql.SQL(", ").join(values))


def _differs(columns: tuple[str, ...] | None) -> sql.Composable:
    # "*<>" compares the bytes of rows. "IS DISTINCT FROM" needs an equality operator for every
    # column, which json, xml and point lack: the trigger would install, and every UPDATE would fail.
    if columns is None:
        return sql.SQL("n.* OPERATOR(pg_catalog.*<>) o.*")
    if not columns:
        return sql.SQL("false")
    # Without the cast PostgreSQL compares the two ROWs column by column.
    new, old = (
        sql.SQL("ROW({})::pg_catalog.record").format(
            sql.SQL(", ").join(sql.Identifier(alias, column) for column in columns)
        )
        for alias in "no"
    )
    return sql.SQL("{} OPERATOR(pg_catalog.*<>) {}").format(new, old)
