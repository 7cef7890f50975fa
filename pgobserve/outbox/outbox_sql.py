"""Queries on a namespace's outbox, from their texts."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    from typing import LiteralString

    from pgobserve.wire import Namespace


@cache
def qualified(text: LiteralString, namespace: Namespace) -> sql.Composed:
    """
    Return a query with a namespace's schema in it.

    Args:
        text: The query; ``{schema}`` stands for the schema.
        namespace: Whose.
    """
    return sql.SQL(text).format(schema=sql.Identifier(namespace.schema))
