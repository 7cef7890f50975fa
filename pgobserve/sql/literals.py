"""
Writes parameters into SQL, for one queryset or for many that differ only in their values.

Planning dominates the cost of a short query. Many users' querysets are often one text with different
user keys. Then the values become rows of a VALUES list, and the server plans the text once.
"""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

#: Types with typed literals. A string literal takes its type from its context, and would always be
#: ``text`` in a VALUES list.
TYPED: Final = (bool, int, float, Decimal, UUID, datetime.date, datetime.time, datetime.timedelta)


class Keys:
    """Marks the place of an array of keys in a compiled query's parameters."""


def inline(text: str, params: Sequence[Any], connection: BaseDatabaseWrapper) -> str:
    """Write all parameters but keys into the SQL, as Django's own cursors would."""
    return _fill(text, ["%s" if isinstance(p, Keys) else literal(p, connection) for p in params])


def for_each(
    text: str,
    params: Sequence[Sequence[Any]],
    keys: Sequence[Sequence[Any]],
    connection: BaseDatabaseWrapper,
) -> str | None:
    """
    Return one query that runs ``text`` with each of several lists of parameters.

    Args:
        text: The shared SQL.
        params: The lists; all have :class:`Keys` in the same places.
        keys: For each list, the arrays for those places.
        connection: Decides how literals are written.

    Returns:
        A query whose first column is the number of the list; None if a value has no typed literal.
    """
    columns: list[Sequence[str]] = []
    filled: list[str] = []
    arrays = iter(zip(*keys, strict=True))
    for values in zip(*params, strict=True):
        are_keys = isinstance(values[0], Keys)
        if are_keys:
            values = next(arrays)  # often one changed key, the same for all
        if all(value == values[0] and type(value) is type(values[0]) for value in values):
            filled.append(literal(values[0], connection))
            continue
        if not are_keys and not all(isinstance(value, TYPED) for value in values):
            return None
        filled.append(f"pgobserve_each.c{len(columns)}")
        columns.append([literal(value, connection) for value in values])
    numbers = map(str, range(len(params)))
    rows = ", ".join(f"({', '.join(row)})" for row in zip(numbers, *columns, strict=True))
    names = ", ".join(["n", *(f"c{number}" for number in range(len(columns)))])
    return (
        f"SELECT pgobserve_each.n, r.* FROM (VALUES {rows}) AS pgobserve_each({names}) "  # noqa: S608
        f"CROSS JOIN LATERAL ({_fill(text, filled)}) r"
    )


def literal(value: Any, connection: BaseDatabaseWrapper) -> str:
    """Return a value as a literal for a format string, with per cent signs doubled."""
    if type(value) is int and value >= 0:
        return str(value)  # much faster for thousands of keys
    connection.ensure_connection()
    return sql.Literal(value).as_string(connection.connection).replace("%", "%%")


def _fill(text: str, values: Sequence[str]) -> str:
    return text.replace("%%", "%%%%") % tuple(values)
