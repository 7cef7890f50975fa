"""The SQL statements that create and drop the outbox: its tables, and the functions on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from psycopg import sql

from pgobserve.triggers import names
from pgobserve.triggers.templates import render

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgobserve.wire import Namespace

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

#: Default limit of the outbox, in bytes on disk.
MAX_BYTES: Final = 4 * 1024**3


def storage_statements(namespace: Namespace, max_bytes: int = MAX_BYTES) -> Iterator[str]:
    """Yield the statements that create missing tables, and create or replace the functions."""
    schema = names.schema(namespace)
    yield render("outbox_storage.v1", schema=schema, max_bytes=max_bytes)
    yield render("outbox_cursors.v1", schema=schema)
    yield from function_statements(namespace)
    yield render("outbox_privileges.v1", schema=schema)


def function_statements(namespace: Namespace) -> Iterator[str]:
    """Yield the statements that create the functions."""
    for name in FUNCTIONS:
        yield render(f"{name}.v1", schema=names.schema(namespace))


def drop_statements(
    namespace: Namespace, *, only_unused: bool = False, repair: bool = False
) -> Iterator[str]:
    """
    Yield the statement that drops the outbox and all its rows.

    Args:
        only_unused: Keep the outbox while the namespace has a trigger function.
        repair: Keep the positions of named readers, so that these detect the gap.
    """
    functions = sql.SQL("ARRAY[{}]").format(sql.SQL(", ").join(map(sql.Literal, FUNCTIONS)))
    yield render(
        "outbox_drop.v1",
        schema=names.schema(namespace),
        only_unused=only_unused,
        cursors_too=not repair,
        functions=functions,
    )
