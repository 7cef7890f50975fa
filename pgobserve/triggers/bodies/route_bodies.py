"""
Bodies of triggers whose payloads carry the values of routes beside the keys.

A route is a column that leads from a changed row to the rows that show it, such as a foreign key.
An UPDATE may change it and a DELETE removes it, so the payload carries its old and new values.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from psycopg import sql

from pgobserve.triggers.bodies.column_texts import text_of
from pgobserve.triggers.templates import render
from pgobserve.wire import MAX_PAYLOAD_BYTES, Operation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: By operation the aliases of the transition tables, the new rows first.
ALIASES: Final[Mapping[Operation, str]] = {
    Operation.INSERT: "n",
    Operation.UPDATE: "no",
    Operation.DELETE: "o",
}

#: A payload has room for this many of the longest keys and values.
MIN_VALUES: Final = 3

#: Bytes that the columns' names may take in a payload.
MAX_NAME_BYTES: Final = 4000


def fits_payload(columns: Sequence[str]) -> bool:
    """Return whether the names of columns leave room for their values in a payload."""
    return not columns or sum(map(len, _between(columns))) <= MAX_NAME_BYTES


def values(operation: Operation, columns: Sequence[str], plain: frozenset[str]) -> sql.Composable:
    """Return the select list for the JSON values of changed rows, named ``v1``, ``v2`` …"""
    return sql.SQL(", ").join(
        sql.SQL("pg_catalog.to_json({})::pg_catalog.text AS {}").format(
            text_of(alias, column, plain), sql.SQL(f"v{number}")
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
        rows: The query for keys and values, the latter named as in :func:`values`.
        head_bytes: Bytes of a payload in front of its keys.
        oversized: A key or value of this many bytes marks the whole table as changed.
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
        oversized=min(oversized, room // MIN_VALUES),
        **common,
    )


def _values(operation: Operation, columns: Sequence[str]) -> list[tuple[str, str]]:
    return [(column, alias) for column in columns for alias in ALIASES[operation]]


def _between(columns: Sequence[str]) -> list[str]:
    """Return the text that follows the keys: before, between and after the values."""
    first, *others = map(json.dumps, columns)
    return [f'],"r":{{{first}:[', *(f"],{other}:[" for other in others), "]}}"]


def _alternating(columns: Sequence[str], values: Sequence[str]) -> sql.Composable:
    """Return the arguments of ``concat`` for the text after the keys: literals and values in turn."""
    start, *rest = map(sql.Literal, _between(columns))
    pairs = zip(map(sql.SQL, values), rest, strict=True)
    return sql.SQL(", ").join([start, *(each for pair in pairs for each in pair)])


def _one_row(operation: Operation, columns: Sequence[str]) -> list[str]:
    """Return expressions for the values of one row, without a value's repetition."""
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
