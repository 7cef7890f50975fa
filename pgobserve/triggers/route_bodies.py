"""
The routes' part of the compiler: bodies of triggers that tell values beside keys.

What leads from a changed row to the rows that show it, a foreign key for instance, may be another
afterwards, or be gone with the row. So the payload carries old and new values of such columns.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from psycopg import sql

from pgobserve.triggers.templates import render
from pgobserve.wire import MAX_PAYLOAD_BYTES, Operation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: The aliases whose rows have values, those after the statement first.
ALIASES: Final[Mapping[Operation, str]] = {
    Operation.INSERT: "n",
    Operation.UPDATE: "no",
    Operation.DELETE: "o",
}

#: A payload holds this many of the longest keys and values at least.
AT_LEAST: Final = 3

#: Bytes that the columns' names may take in a payload.
MOST_NAMES: Final = 4000


def fit(columns: Sequence[str]) -> bool:
    """Say whether the names of columns leave room for values in a payload."""
    return not columns or sum(map(len, _between(columns))) <= MOST_NAMES


def values(operation: Operation, columns: Sequence[str]) -> sql.Composable:
    """Return the select list for the values of the rows that a statement changed, as JSON."""
    return sql.SQL(", ").join(
        sql.SQL("pg_catalog.to_json({})::pg_catalog.text AS {}").format(
            sql.Identifier(alias, column), sql.SQL(f"v{number}")
        )
        for number, (column, alias) in enumerate(_values(operation, columns), 1)
    )


def body(
    operation: Operation,
    columns: Sequence[str],
    rows: str,
    *,
    head_bytes: int,
    oversized: int,
    **common: sql.Composable | str | int,
) -> str:
    """
    Return the body of the trigger function of an operation.

    Args:
        operation: The operation.
        columns: The columns whose values are told.
        rows: The query for keys and values, the latter as :func:`values` names them.
        head_bytes: Bytes of a payload in front of its keys.
        oversized: Bytes of one key or value from which on none is told.
        **common: What every template for triggers is given.
    """
    names = [f"s.v{number}" for number, _ in enumerate(_values(operation, columns), 1)]
    most_body = MAX_PAYLOAD_BYTES - head_bytes
    room = most_body - len("[") - sum(map(len, _between(columns)))
    return render(
        "notify_routes.v1",
        rows=sql.SQL(rows),
        values=sql.SQL(", ".join(names)),
        lengths=sql.SQL(", ".join(f"pg_catalog.octet_length({name})" for name in names)),
        one_row=_alternating(columns, _one_row(operation, columns)),
        piece=_alternating(columns, _pieces(columns)),
        sides=len(ALIASES[operation]),
        columns=len(columns),
        most_body=most_body,
        room=room,
        oversized=min(oversized, room // AT_LEAST),
        **common,
    )


def _values(operation: Operation, columns: Sequence[str]) -> list[tuple[str, str]]:
    return [(column, alias) for column in columns for alias in ALIASES[operation]]


def _between(columns: Sequence[str]) -> list[str]:
    """Return what stands in a payload behind the keys: before, between and behind the values."""
    first, *others = map(json.dumps, columns)
    return [f'],"r":{{{first}:[', *(f"],{other}:[" for other in others), "]}}"]


def _alternating(columns: Sequence[str], values: Sequence[str]) -> sql.Composable:
    """Return the arguments that make the text behind the keys: of literals, and of the values."""
    start, *rest = map(sql.Literal, _between(columns))
    pairs = zip(map(sql.SQL, values), rest, strict=True)
    return sql.SQL(", ").join([start, *(each for pair in pairs for each in pair)])


def _one_row(operation: Operation, columns: Sequence[str]) -> list[str]:
    """Return expressions for the values of one row: one value twice is told once."""
    if len(ALIASES[operation]) == 1:
        return [f"routes[1][{number}]" for number, _ in enumerate(columns, 1)]
    return [
        f"pg_catalog.concat_ws(',', routes[1][{new}], CASE WHEN routes[1][{new}] "
        f"OPERATOR(pg_catalog.=) routes[1][{new + 1}] THEN NULL ELSE routes[1][{new + 1}] END)"
        for new in range(1, 2 * len(columns), 2)
    ]


def _pieces(columns: Sequence[str]) -> list[str]:
    return [
        f"pg_catalog.string_agg(p.v, ',') FILTER (WHERE p.i OPERATOR(pg_catalog.=) {number})"
        for number, _ in enumerate(columns, 1)
    ]
