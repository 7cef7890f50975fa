"""The outbox's part of the compiler: its storage, and the bodies of triggers that fill it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from psycopg import sql

from pgobserve.triggers import names
from pgobserve.triggers.templates import render
from pgobserve.wire import (
    OUTBOX_ROTATION_LOCK,
    OUTBOX_SEQUENCES_LOCK,
    OUTBOX_WAKE_SLOTS,
    OUTBOX_WAKE_UP,
    Operation,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    schema, first = names.schema(namespace), namespace.outbox_lock
    locks = {"namespace": first, "lock": OUTBOX_SEQUENCES_LOCK}
    yield render("outbox_lose.v1", schema=schema, **locks)
    yield render("outbox_fits.v1", schema=schema)
    yield render("outbox_measure.v1", schema=schema, **locks)
    yield render("outbox_mark.v1", schema=schema)
    yield render("outbox_turn.v1", schema=schema, **locks)
    yield render("outbox_empty.v1", schema=schema)
    yield render("outbox_rotate.v1", schema=schema, namespace=first, rotation=OUTBOX_ROTATION_LOCK)


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


def body(
    registration: Registration, operation: Operation, rows: str, common: dict[str, str]
) -> str:
    """
    Return the body of the trigger function of an operation.

    Args:
        registration: What is wanted.
        operation: The operation.
        rows: The query for keys and images; empty for TRUNCATE.
        common: What every template for triggers is given.
    """
    shared: dict[str, sql.Composable | str | int] = {
        **common,
        "schema": names.schema(registration.namespace),
        "hint": f"Run manage.py pgobserve install {registration.title}",
        "label": registration.label,
        "operation": str(operation),
        "wake": sql.SQL(_wake(registration)),
    }
    if operation is Operation.TRUNCATE:
        return render("outbox_truncate.v1", **shared)
    return render(
        "outbox.v1",
        rows=sql.SQL(rows),
        table=sql.SQL("pgobserve_new" if operation is Operation.INSERT else "pgobserve_old"),
        old=sql.SQL("NULL" if operation is Operation.INSERT else "pg_catalog.json_agg(r.old)"),
        new=sql.SQL("NULL" if operation is Operation.DELETE else "pg_catalog.json_agg(r.new)"),
        size=sql.SQL(_SIZES[operation]),
        some_rows=SOME_ROWS,
        row_bytes=CHUNK_BYTES // CHUNK_ROWS,
        chunk_bytes=CHUNK_BYTES,
        one_in=MEASURED,
        **_for_each_slot("probe", registration, operation),
        **_for_each_slot("insert", registration, operation),
        **shared,
    )


def rows(operation: Operation, key: sql.Composable, **parts: sql.Composable) -> str:
    """Return the query for keys and images of the rows that a statement changed."""
    name = {Operation.INSERT: "insert", Operation.UPDATE: "update", Operation.DELETE: "delete"}
    return render(f"outbox_rows_{name[operation]}.v1", key=key, **parts)


def _for_each_slot(
    name: str, registration: Registration, operation: Operation
) -> dict[str, sql.Composable]:
    return {
        f"{name}_{slot}": sql.SQL(
            render(
                f"outbox_{name}.v1",
                partition=sql.Identifier(registration.namespace.schema, f"outbox_{slot}"),
                slot=slot,
                label=registration.label,
                operation=str(operation),
            )
        )
        for slot in range(SLOTS)
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
        channel=registration.channel,
        payload=OUTBOX_WAKE_UP,
    )
    return wake + "\n"
