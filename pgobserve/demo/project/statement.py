"""Runs a visitor's statements as the demo's unprivileged role, on a new connection."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import TransactionStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The most rows of a result that the page shows.
MOST_ROWS = 50

#: The longest time for a visitor's statement.
TIMEOUT = "5s"


@dataclass(frozen=True, slots=True)
class Result:
    """
    The result of a statement.

    Attributes:
        status: PostgreSQL's command tag, ``UPDATE 1``.
        columns: Names of the columns, if it returned rows.
        rows: The first rows, as text.
        more: Whether there were more.
    """

    status: str
    columns: list[str] = field(default_factory=list)
    rows: list[list[str | None]] = field(default_factory=list)
    more: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    The results of all statements.

    Attributes:
        milliseconds: The time until PostgreSQL's last result.
        error: PostgreSQL's error, if any.
        note: A note for the visitor, if any.
    """

    results: list[Result]
    milliseconds: float
    error: str | None = None
    note: str | None = None


def execute(text: str, database: Mapping[str, Any]) -> Outcome:
    """
    Run one or more statements.

    Args:
        text: The SQL. Several statements are one transaction, unless they contain BEGIN or COMMIT.
        database: Connection parameters, as psycopg keywords.
    """
    options = f"-c statement_timeout={TIMEOUT}"
    try:
        connection = psycopg.connect(
            **database, autocommit=True, options=options, connect_timeout=5, application_name="page"
        )
    except psycopg.Error as error:
        return Outcome([], 0.0, error=str(error).strip())
    with connection:
        started = time.perf_counter()
        results, objection = _run(connection, text)
        elapsed = (time.perf_counter() - started) * 1000
        unfinished = connection.info.transaction_status != TransactionStatus.IDLE
        connection.rollback()
    note = "The transaction was left open, so it was rolled back." if unfinished else None
    return Outcome(results, round(elapsed, 1), objection, note)


def _run(connection: psycopg.Connection[Any], text: str) -> tuple[list[Result], str | None]:
    try:
        cursor = connection.execute(text.encode())
        results = [_result(cursor)]
        while cursor.nextset():
            results.append(_result(cursor))
    except psycopg.Error as error:
        return [], str(error).strip()
    else:
        return results, None


def _result(cursor: psycopg.Cursor[Any]) -> Result:
    status = cursor.statusmessage or ""
    if cursor.description is None:
        return Result(status)
    rows = [[_text(value) for value in row] for row in cursor.fetchmany(MOST_ROWS)]
    columns = [column.name for column in cursor.description]
    return Result(status, columns, rows, cursor.rowcount > MOST_ROWS)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
