"""
Values written into SQL: those of one queryset, or of many that differ in nothing else.

Planning is what a short query costs. Many users' querysets are mostly one text with another user's
key in it; then their values become the rows of a list, and the text is planned once for all.
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

#: Types whose literals say their type by themselves. A string's does not: what it is follows from
#: where it stands, and in a list it would always be ``text``.
TYPED: Final = (bool, int, float, Decimal, UUID, datetime.date, datetime.time, datetime.timedelta)


class Keys:
    """Stands in a compiled query's parameters for an array of keys."""


def inline(text: str, params: Sequence[Any], connection: BaseDatabaseWrapper) -> str:
    """Write all parameters but the keys into the SQL, as Django's own cursors would."""
    return _fill(text, ["%s" if isinstance(p, Keys) else literal(p, connection) for p in params])


def for_each(
    text: str,
    params: Sequence[Sequence[Any]],
    keys: Sequence[Sequence[Any]],
    connection: BaseDatabaseWrapper,
) -> str | None:
    """
    Return one query that runs ``text`` for each of many lists of parameters.

    Args:
        text: The SQL that all of them share.
        params: The parameters of each; :class:`Keys` in the same places.
        keys: For each what stands in those places.
        connection: Literals are written as this connection writes them.

    Returns:
        A query whose first column is the number of the list; None if it can't be said so.
    """
    columns: list[Sequence[str]] = []
    filled: list[str] = []
    arrays = iter(zip(*keys, strict=True))
    for values in zip(*params, strict=True):
        are_keys = isinstance(values[0], Keys)
        if are_keys:
            values = next(arrays)  # mostly one key that changed, looked for in many lists
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
    """Return a value as SQL that is still to be formatted: with each per cent sign doubled."""
    if type(value) is int and value >= 0:
        return str(value)  # as below, in no time: there may be thousands
    connection.ensure_connection()
    return sql.Literal(value).as_string(connection.connection).replace("%", "%%")


def _fill(text: str, values: Sequence[str]) -> str:
    return text.replace("%%", "%%%%") % tuple(values)
