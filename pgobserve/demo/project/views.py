"""The page, and its box for SQL, which runs statements as the demo's unprivileged role."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
from django.http import HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import path
from django.views.decorators.http import require_GET, require_POST
from psycopg.pq import TransactionStatus

from pgobserve.demo.project import config
from pgobserve.demo.project.fleet import EXAMPLES, STATES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.http import HttpRequest

#: The most rows of a result that the page shows.
MOST_ROWS = 50

#: The longest time for a visitor's statement.
TIMEOUT = "5s"


@dataclass(frozen=True, slots=True)
class Result:
    """The command tag of a statement, ``UPDATE 1``, and its first rows as text, if it has any."""

    status: str
    columns: list[str] = field(default_factory=list)
    rows: list[list[str | None]] = field(default_factory=list)
    more: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """The results of all statements, and the time until the last; an error or a note, if any."""

    results: list[Result]
    milliseconds: float
    error: str | None = None
    note: str | None = None


def execute(text: str, database: Mapping[str, Any]) -> Outcome:
    """Run statements: one transaction, unless they contain BEGIN or COMMIT."""
    options = f"-c statement_timeout={TIMEOUT}"
    try:
        connection = psycopg.connect(
            **database, autocommit=True, options=options, connect_timeout=5, application_name="page"
        )
    except psycopg.Error as error:
        return Outcome([], 0.0, error=str(error).strip())
    with connection:
        started = time.perf_counter()
        results, objection = _run_all(connection, text)
        elapsed = (time.perf_counter() - started) * 1000
        unfinished = connection.info.transaction_status != TransactionStatus.IDLE
        connection.rollback()
    note = "The transaction was left open, so it was rolled back." if unfinished else None
    return Outcome(results, round(elapsed, 1), objection, note)


def _run_all(connection: psycopg.Connection[Any], text: str) -> tuple[list[Result], str | None]:
    try:
        cursor = connection.execute(text.encode())
        results = [_result(cursor)]
        while cursor.nextset():
            results.append(_result(cursor))
    except psycopg.Error as error:
        return [], str(error).strip()
    return results, None


def _result(cursor: psycopg.Cursor[Any]) -> Result:
    status = cursor.statusmessage or ""
    if cursor.description is None:
        return Result(status)
    rows = [
        [None if value is None else str(value) for value in row]
        for row in cursor.fetchmany(MOST_ROWS)
    ]
    columns = [column.name for column in cursor.description]
    return Result(status, columns, rows, cursor.rowcount > MOST_ROWS)


#: The most characters of a statement.
MOST_CHARACTERS = 20_000


@require_GET
def page(request: HttpRequest) -> HttpResponse:
    shown = {"config": config.current, "examples": EXAMPLES, "states": STATES}
    response = render(request, "harbour/index.html", shown)
    response.headers["Content-Security-Policy"] = _policy()
    response.headers["Cache-Control"] = "no-store"
    return response


@require_POST
def run(request: HttpRequest) -> HttpResponse:
    """
    Run a statement from the demo's own page.

    Browsers send the origin of a POST, and send JSON to another website only after a preflight request,
    which the demo rejects.
    """
    if request.headers.get("Origin") not in config.current.origins:
        return _refuse(403, "Only the demo's own page may run statements.")
    if request.content_type != "application/json":
        return _refuse(415, "Send JSON.")
    try:
        text = json.loads(request.body)["sql"]
    except (ValueError, KeyError, TypeError):
        return _refuse(400, 'Send {"sql": "…"}.')
    if not isinstance(text, str) or not text.strip():
        return _refuse(400, "There is no statement to run.")
    if len(text) > MOST_CHARACTERS or "\0" in text:
        return _refuse(
            400, f"A statement has at most {MOST_CHARACTERS} characters, none of them NUL."
        )
    return JsonResponse(asdict(execute(text, config.current.database)))


def _refuse(status: int, sentence: str) -> JsonResponse:
    return JsonResponse({"error": sentence}, status=status)


def _policy() -> str:
    sockets = " ".join(origin.replace("http:", "ws:") for origin in config.current.origins)
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        f"connect-src 'self' {sockets}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


urlpatterns = [path("", page), path("sql/", run)]
