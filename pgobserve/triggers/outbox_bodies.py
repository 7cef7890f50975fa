"""The outbox's part of the compiler: its storage, and the bodies of triggers that fill it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from psycopg import sql

from pgobserve.triggers import names
from pgobserve.triggers.templates import render
from pgobserve.wire import (
    OUTBOX_WAKE_SLOTS,
    OUTBOX_WAKE_UP,
    QUEUE_FULL,
    Operation,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pgobserve.triggers.registry import Registration
    from pgobserve.wire import Namespace

#: The tables that are filled in turn.
SLOTS: Final = 3

#: The functions of the storage.
FUNCTIONS: Final = (
    "outbox_lose",
    "outbox_fits",
    "outbox_measure",
    "outbox_mark",
    "outbox_turn",
    "outbox_empty",
    "outbox_rotate",
)

#: Bytes of row images in one row of the outbox, give or take the last image.
CHUNK_BYTES: Final = 1_000_000

#: Rows in it, if they are small.
CHUNK_ROWS: Final = 500

#: Rows of a statement up to which it is written without a subtransaction.
SOME_ROWS: Final = 50

#: Bytes that the outbox may take on disk unless a project says otherwise.
MAX_BYTES: Final = 4 * 1024**3

#: Between the texts that one trigger leaves to the next. JSON has no such character.
SEPARATOR: Final = sql.SQL(r"E'\x1f'")

#: Bytes of images of one statement that are left in a setting of the session, which is memory. A
#: larger statement on a table with types of other roles is a change of the whole table.
MOST_HANDED_OVER: Final = 64_000_000

#: The object ids of what is not PostgreSQL's own begin here.
FIRST_OID: Final = 16384

#: One in so many firings looks how large the outbox is.
MEASURED: Final = 64


def storage_statements(namespace: Namespace, max_bytes: int = MAX_BYTES) -> Iterator[str]:
    """Yield the statements that make the storage if there is none, and its functions as they are now."""
    schema = names.schema(namespace)
    yield render("outbox_storage.v1", schema=schema, max_bytes=max_bytes)
    yield render("outbox_cursors.v1", schema=schema)
    yield from function_statements(namespace)
    yield render("outbox_privileges.v1", schema=schema)


def function_statements(namespace: Namespace) -> Iterator[str]:
    """Yield the statements that make the functions."""
    for name in FUNCTIONS:
        yield render(f"{name}.v1", schema=names.schema(namespace))


def drop_statements(
    namespace: Namespace, *, only_unused: bool = False, repair: bool = False
) -> Iterator[str]:
    """
    Yield the statement that removes the storage with all that is in it.

    Args:
        namespace: Whose.
        only_unused: Unless there is a trigger function of ours.
        repair: Keep what the named readers have read until now, so that they learn of the gap.
    """
    functions = sql.SQL("ARRAY[{}]").format(sql.SQL(", ").join(map(sql.Literal, FUNCTIONS)))
    yield render(
        "outbox_drop.v1",
        schema=names.schema(namespace),
        only_unused=only_unused,
        cursors_too=not repair,
        functions=functions,
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
    Return the body of the trigger function that makes images with the writer's rights.

    Args:
        registration: What is wanted.
        operation: The operation.
        rows: The query for keys and images.
        one_row: The query for the text of a statement that changed one row.
        common: What every template for triggers is given.
    """
    writer = sql.Literal(registration.namespace.writer(operation))
    return render(
        "outbox_images.v1",
        one_row=sql.SQL(one_row),
        separator=SEPARATOR,
        has_strange_types=_has_strange_types(sql.SQL(_OWNER_OF_TRIGGER).format(writer)),
        most_bytes=MOST_HANDED_OVER,
        **_reading(operation, rows),
        **_shared(registration, operation, common),
    )


def body(
    registration: Registration, operation: Operation, rows: str, common: Mapping[str, Any]
) -> str:
    """
    Return the body of the trigger function that writes to the outbox, with its owner's rights.

    Args:
        registration: What is wanted.
        operation: The operation.
        rows: The query for keys and images.
        common: What every template for triggers is given.
    """
    has = _images(operation)
    return render(
        "outbox.v1",
        old_in_chunk=sql.SQL("c.c OPERATOR(pg_catalog.->) 1" if "old" in has else "NULL"),
        new_in_chunk=sql.SQL("c.c OPERATOR(pg_catalog.->) 2" if "new" in has else "NULL"),
        has_strange_types=_has_strange_types(sql.SQL(_OWNER)),
        one_in=MEASURED,
        **_reading(operation, rows),
        **_for_each_slot("probe", registration, operation),
        **_for_each_slot("insert", registration, operation, **_handed(operation)),
        **_shared(registration, operation, common),
    )


def _shared(
    registration: Registration, operation: Operation, common: Mapping[str, Any]
) -> dict[str, Any]:
    failed = {name: common[name] for name in ("channel", "head", "keys_follow", "full")}
    return {
        "mute": common["mute"],
        "schema": names.schema(registration.namespace),
        "setting": registration.namespace.images_setting,
        "hint": f"Run manage.py pgobserve install {registration.title}",
        "label": registration.label,
        "operation": str(operation),
        "notify": sql.SQL(render("outbox_failed.v1", **failed)),
        "wake": sql.SQL(_wake(registration)),
    }


def _reading(operation: Operation, rows: str) -> dict[str, Any]:
    """Return what the two triggers that read the transition tables have in common."""
    has = _images(operation)
    size = sql.SQL(_SIZES[operation])
    limits = {"row_bytes": CHUNK_BYTES // CHUNK_ROWS, "chunk_bytes": CHUNK_BYTES}
    chunks = render("outbox_chunks.v1", rows=sql.SQL(rows), size=size, **limits)
    return {
        "rows": sql.SQL(rows),
        "chunks": sql.SQL(chunks),
        "table": sql.SQL("pgobserve_new" if operation is Operation.INSERT else "pgobserve_old"),
        "old": sql.SQL("pg_catalog.json_agg(r.old)" if "old" in has else "NULL"),
        "new": sql.SQL("pg_catalog.json_agg(r.new)" if "new" in has else "NULL"),
        "size": size,
        "some_rows": SOME_ROWS,
        **limits,
    }


def _images(operation: Operation) -> tuple[str, ...]:
    """Return which images a row that an operation changed has."""
    return {Operation.INSERT: ("new",), Operation.DELETE: ("old",)}.get(operation, ("old", "new"))


def _has_strange_types(owner: sql.Composable) -> sql.Composable:
    """Return the condition that code may run of roles that are neither superusers nor a role."""
    return sql.SQL(render("outbox_strange_types.v1", owner=owner, first_oid=sql.Literal(FIRST_OID)))


#: The role that a definer's function runs as, and that which the function of a trigger would run as.
_OWNER: Final = "(SELECT d.oid FROM pg_catalog.pg_roles AS d WHERE d.rolname OPERATOR(pg_catalog.=) CURRENT_USER)"
_OWNER_OF_TRIGGER: Final = (
    "(SELECT f.proowner FROM pg_catalog.pg_trigger AS d "
    "JOIN pg_catalog.pg_proc AS f ON f.oid OPERATOR(pg_catalog.=) d.tgfoid "
    "WHERE d.tgrelid OPERATOR(pg_catalog.=) TG_RELID AND d.tgname OPERATOR(pg_catalog.=) {})"
)


def rows(operation: Operation, key: sql.Composable, **parts: sql.Composable) -> str:
    """Return the query for keys and images of the rows that a statement changed."""
    name = {Operation.INSERT: "insert", Operation.UPDATE: "update", Operation.DELETE: "delete"}
    return render(f"outbox_rows_{name[operation]}.v1", key=key, **parts)


def one_row(
    operation: Operation,
    key: sql.Composable,
    *,
    same_key: sql.Composable | None = None,
    differs: sql.Composable | None = None,
) -> str:
    """
    Return the query that puts key and images of a statement's only row into ``images``.

    It finds no row if the statement changed more, or changed the key.

    Args:
        operation: The operation.
        key: The row's key as JSON.
        same_key: For UPDATE, the condition that both rows have the same key.
        differs: For UPDATE, the condition that the row is told to have changed.
    """
    has = _images(operation)
    tables = [sql.SQL(f"pgobserve_{each} AS {each[0]}") for each in has]
    only = [sql.SQL(f"NOT EXISTS (SELECT FROM pgobserve_{each} OFFSET 1)") for each in has]
    # Few arguments: each is converted and copied.
    text = sql.SQL(_ONE_ROW[operation]).format(key)
    if differs is not None:
        text = sql.SQL("CASE WHEN {} THEN {} ELSE '' END").format(differs, text)
    return render(
        "outbox_one_row.v1",
        text=text,
        tables=sql.SQL(" CROSS JOIN ").join(tables),
        one_only=sql.SQL(" AND ").join([*only, *([same_key] if same_key else [])]),
    )


_ONE_ROW: Final = {
    Operation.INSERT: r"""
        pg_catalog.concat('[', {}, E']\x1f\x1f[', pg_catalog.row_to_json(n.*), ']')""",
    Operation.DELETE: r"""
        pg_catalog.concat('[', {}, E']\x1f[', pg_catalog.row_to_json(o.*), E']\x1f')""",
    Operation.UPDATE: r"""
        pg_catalog.concat(
          '[', {}, E']\x1f[', pg_catalog.row_to_json(o.*), E']\x1f[', pg_catalog.row_to_json(n.*), ']')""",
}


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


def _handed(operation: Operation) -> dict[str, sql.Composable]:
    """Return expressions for the images in the text that the first trigger has left."""
    part = sql.SQL("pg_catalog.split_part(images, {}, {})::pg_catalog.json")
    return {
        "separator": SEPARATOR,
        **{
            name: part.format(SEPARATOR, number) if name in _images(operation) else sql.SQL("NULL")
            for number, name in enumerate(("old", "new"), 2)
        },
    }


_SIZES: Final = {
    Operation.INSERT: "pg_catalog.pg_column_size(r.new)",
    Operation.DELETE: "pg_catalog.pg_column_size(r.old)",
    Operation.UPDATE: (
        "coalesce(pg_catalog.pg_column_size(r.new), 0) OPERATOR(pg_catalog.+) "
        "coalesce(pg_catalog.pg_column_size(r.old), 0)"
    ),
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
