"""Bodies of the triggers that write to the outbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from psycopg import sql

from pgobserve.triggers import names
from pgobserve.triggers.bodies import column_texts
from pgobserve.triggers.templates import render
from pgobserve.wire import OUTBOX_WAKE_SLOTS, OUTBOX_WAKE_UP, QUEUE_FULL, Operation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgobserve.triggers.registry import Registration
    from pgobserve.triggers.trigger_values import TableInfo

#: The tables that the triggers fill in turn.
SLOTS: Final = 3

#: Bytes of row images in one row of the outbox; the last image may exceed it.
CHUNK_BYTES: Final = 1_000_000

#: Small rows in one row of the outbox.
CHUNK_ROWS: Final = 500

#: A statement of at most this many rows is written without a subtransaction.
SMALL_STATEMENT_ROWS: Final = 50

#: Separates the texts that the first trigger leaves to the second. JSON can't contain it.
SEPARATOR: Final = sql.SQL(r"E'\x1f'")

#: Bytes of images that the first trigger may leave in a session setting, which is memory. A larger
#: statement on a table with other roles' types marks the whole table as changed.
MAX_HANDED_OVER_BYTES: Final = 64_000_000

#: Object ids below this belong to PostgreSQL itself.
FIRST_OID: Final = 16384

#: One firing in so many measures the outbox.
MEASURE_ONE_IN: Final = 64

_SIZES: Final = {
    Operation.INSERT: "pg_catalog.pg_column_size(r.new)",
    Operation.DELETE: "pg_catalog.pg_column_size(r.old)",
    Operation.UPDATE: (
        "coalesce(pg_catalog.pg_column_size(r.new), 0) OPERATOR(pg_catalog.+) "
        "coalesce(pg_catalog.pg_column_size(r.old), 0)"
    ),
}

_ONE_ROW: Final = {
    Operation.INSERT: r"""
        pg_catalog.concat('[', {key}, E']\x1f\x1f[', {new}, ']')""",
    Operation.DELETE: r"""
        pg_catalog.concat('[', {key}, E']\x1f[', {old}, E']\x1f')""",
    Operation.UPDATE: r"""
        pg_catalog.concat(
          '[', {key}, E']\x1f[', {old}, E']\x1f[', {new}, ']')""",
}

#: The role that a SECURITY DEFINER function runs as.
_OWNER: Final = "(SELECT d.oid FROM pg_catalog.pg_roles AS d WHERE d.rolname OPERATOR(pg_catalog.=) CURRENT_USER)"
#: The owner of a trigger's function.
_OWNER_OF_TRIGGER: Final = (
    "(SELECT f.proowner FROM pg_catalog.pg_trigger AS d "
    "JOIN pg_catalog.pg_proc AS f ON f.oid OPERATOR(pg_catalog.=) d.tgfoid "
    "WHERE d.tgrelid OPERATOR(pg_catalog.=) TG_RELID AND d.tgname OPERATOR(pg_catalog.=) {})"
)


def truncate_body(registration: Registration, common: Mapping[str, Any]) -> str:
    """Return the body of the trigger function of TRUNCATE, which has no images."""
    return render("outbox_truncate.v1", **_shared(registration, Operation.TRUNCATE, common))


def images_body(
    registration: Registration,
    operation: Operation,
    rows: str,
    one_row: str,
    common: Mapping[str, Any],
) -> str:
    """
    Return the body of the first trigger, which makes images with the rights of the writing role.

    ``rows`` comes from :func:`images_query`, ``one_row`` from :func:`one_row_query`.
    """
    writer = sql.Literal(registration.namespace.writer(operation))
    return render(
        "outbox_images.v1",
        one_row=sql.SQL(one_row),
        separator=SEPARATOR,
        has_strange_types=_has_foreign_types(sql.SQL(_OWNER_OF_TRIGGER).format(writer)),
        most_bytes=MAX_HANDED_OVER_BYTES,
        **_reading(operation, rows),
        **_shared(registration, operation, common),
    )


def writer_body(
    registration: Registration, operation: Operation, rows: str, common: Mapping[str, Any]
) -> str:
    """Return the body of the second trigger, which writes with its owner's rights."""
    images = _images(operation)
    return render(
        "outbox.v1",
        old_in_chunk=sql.SQL("c.c OPERATOR(pg_catalog.->) 1" if "old" in images else "NULL"),
        new_in_chunk=sql.SQL("c.c OPERATOR(pg_catalog.->) 2" if "new" in images else "NULL"),
        has_strange_types=_has_foreign_types(sql.SQL(_OWNER)),
        one_in=MEASURE_ONE_IN,
        **_reading(operation, rows),
        **_for_each_slot("probe", registration, operation),
        **_for_each_slot("insert", registration, operation, **_handed_over(operation)),
        **_shared(registration, operation, common),
    )


def images_query(
    operation: Operation, table: TableInfo, key: sql.Composable, **parts: sql.Composable
) -> str:
    """Return the query for keys and images of the changed rows."""
    images = _expressions(operation, table)
    return render(f"outbox_rows_{operation.name.lower()}.v1", key=key, **images, **parts)


def one_row_query(
    operation: Operation,
    table: TableInfo,
    key: sql.Composable,
    *,
    same_key: sql.Composable | None = None,
    differs: sql.Composable | None = None,
) -> str:
    """
    Return the query that puts key and images of the only changed row into ``images``.

    It returns no row if the statement changed several rows, or changed the key. For UPDATE,
    ``differs`` is the condition that the row counts as changed.
    """
    images = _images(operation)
    tables = [sql.SQL(f"pgobserve_{each} AS {each[0]}") for each in images]
    only = [sql.SQL(f"NOT EXISTS (SELECT FROM pgobserve_{each} OFFSET 1)") for each in images]
    # Few arguments, because PostgreSQL converts and copies each.
    text = sql.SQL(_ONE_ROW[operation]).format(key=key, **_expressions(operation, table))
    if differs is not None:
        text = sql.SQL("CASE WHEN {} THEN {} ELSE '' END").format(differs, text)
    return render(
        "outbox_one_row.v1",
        text=text,
        tables=sql.SQL(" CROSS JOIN ").join(tables),
        one_only=sql.SQL(" AND ").join([*only, *([same_key] if same_key else [])]),
    )


def _shared(
    registration: Registration, operation: Operation, common: Mapping[str, Any]
) -> dict[str, Any]:
    failed = {name: common[name] for name in ("channel", "head", "keys_follow", "full")}
    return {
        **common,
        "schema": names.schema(registration.namespace),
        "setting": registration.namespace.images_setting,
        "marks": registration.namespace.marks_setting,
        "entry": f" {registration.label} ",
        "hint": f"Run manage.py pgobserve install {registration.title}",
        "label": registration.label,
        "operation": str(operation),
        "notify": sql.SQL(render("outbox_failed.v1", **failed)),
        "wake": sql.SQL(_wake(registration)),
    }


def _reading(operation: Operation, rows: str) -> dict[str, Any]:
    """Return the parameters of the two triggers that read transition tables."""
    images = _images(operation)
    size = sql.SQL(_SIZES[operation])
    limits = {"row_bytes": CHUNK_BYTES // CHUNK_ROWS, "chunk_bytes": CHUNK_BYTES}
    chunks = render("outbox_chunks.v1", rows=sql.SQL(rows), size=size, **limits)
    return {
        "rows": sql.SQL(rows),
        "chunks": sql.SQL(chunks),
        "table": sql.SQL("pgobserve_new" if operation is Operation.INSERT else "pgobserve_old"),
        "old": sql.SQL("pg_catalog.json_agg(r.old)" if "old" in images else "NULL"),
        "new": sql.SQL("pg_catalog.json_agg(r.new)" if "new" in images else "NULL"),
        "size": size,
        "some_rows": SMALL_STATEMENT_ROWS,
        **limits,
    }


def _expressions(operation: Operation, table: TableInfo) -> dict[str, sql.Composable]:
    return {each: column_texts.image(table, each[0]) for each in _images(operation)}


def _images(operation: Operation) -> tuple[str, ...]:
    """Return which images a changed row has."""
    return {Operation.INSERT: ("new",), Operation.DELETE: ("old",)}.get(operation, ("old", "new"))


def _has_foreign_types(owner: sql.Composable) -> sql.Composable:
    """Return the condition that a type of the table may run code of roles but ``owner``."""
    return sql.SQL(render("outbox_strange_types.v1", owner=owner, first_oid=sql.Literal(FIRST_OID)))


def _for_each_slot(
    name: str, registration: Registration, operation: Operation, **parts: sql.Composable
) -> dict[str, sql.Composable]:
    return {
        f"{name}_{slot}": sql.SQL(
            render(
                f"outbox_{name}.v1",
                partition=sql.Identifier(registration.namespace.schema, f"outbox_{slot}"),
                slot=slot,
                label=registration.label,
                operation=str(operation),
                **parts,
            )
        )
        for slot in range(SLOTS)
    }


def _handed_over(operation: Operation) -> dict[str, sql.Composable]:
    """Return expressions for the images in the text that the first trigger left."""
    part = sql.SQL("pg_catalog.split_part(images, {}, {})::pg_catalog.json")
    return {
        "separator": SEPARATOR,
        **{
            name: part.format(SEPARATOR, number) if name in _images(operation) else sql.SQL("NULL")
            for number, name in enumerate(("old", "new"), 2)
        },
    }


def _wake(registration: Registration) -> str:
    if registration.wake == "poll":
        return ""
    wake = render(
        "outbox_wake.v1",
        namespace=registration.namespace.outbox_lock,
        slots=OUTBOX_WAKE_SLOTS,
        full=QUEUE_FULL,
        channel=registration.channel,
        payload=OUTBOX_WAKE_UP,
    )
    return wake + "\n"
