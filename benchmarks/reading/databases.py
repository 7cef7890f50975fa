"""Databases to measure on: with the tables, the triggers and some rows."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from pgobserve.demo.environment import named_server
from pgobserve.demo.postgres import embedded

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Settings of a server that is started.
OPTIONS = ("shared_buffers=128MB", "max_connections=50")

#: Rows to watch, and users who are members of the first of them.
ROWS = 10_000
USERS = 1_000

#: Books of the list that everybody sees; books of each author, who is a user; the author of the ten
#: books that all users see; and an author of very many books.
LISTED = 1_000
BOOKS_EACH = 10
COMMON = 1_000_000
PROLIFIC = 1_000_001

_FILL = f"""
INSERT INTO reading_item (id, name, rank, price, changed)
    SELECT n, 'item ' || n, 0, 1, now() FROM generate_series(1, {ROWS}) n;
INSERT INTO reading_membership (item_id, user_id)
    SELECT 1, n FROM generate_series(1, {USERS}) n;
INSERT INTO reading_author (id, name)
    SELECT n, 'author ' || n FROM generate_series(1, {USERS}) n
    UNION ALL VALUES ({COMMON}, 'everybody'), ({PROLIFIC}, 'prolific');
INSERT INTO reading_book (id, title, pages, price, author_id)
    SELECT n, 'book ' || n, 0, 1, (n - 1) / {BOOKS_EACH} + 1 FROM generate_series(1, {USERS * BOOKS_EACH}) n;
INSERT INTO reading_book (id, title, pages, price, author_id)
    SELECT {COMMON} + n, 'common ' || n, 0, 1, {COMMON} FROM generate_series(1, {BOOKS_EACH}) n;
ANALYZE;
"""


@contextlib.contextmanager
def databases(count: int, server: dict[str, Any] | None = None) -> Iterator[list[dict[str, Any]]]:
    """
    Make databases that are alike; dropped at the end.

    On the server that is given, else on the one that the environment names, else on one that is
    started. Sessions do not wait for the disk when they commit: that takes both sides the same
    time, much of it, and a varying one.

    Args:
        count: How many.
        server: Connection parameters of a server.

    Yields:
        The connection parameters of each, as psycopg keywords.
    """
    with contextlib.ExitStack() as stack:
        server = server or named_server()
        if server is None:
            server = stack.enter_context(embedded(OPTIONS)).parameters()
        prefix = f"pgobserve_benchmark_{secrets.token_hex(3)}"
        names = [f"{prefix}_{number}" for number in range(count)]
        stack.callback(_drop, server, names)
        _execute(server, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(names[0])))
        first = {**server, "dbname": names[0]}
        _prepare(first)
        for name in names[1:]:
            copy = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
            _execute(server, copy.format(sql.Identifier(name), sql.Identifier(names[0])))
        for name in names:
            setting = sql.SQL("ALTER DATABASE {} SET synchronous_commit = off")
            _execute(server, setting.format(sql.Identifier(name)))
        yield [{**server, "dbname": name} for name in names]


def environment(parameters: dict[str, Any], **more: str) -> dict[str, str]:
    """Return the environment of a process that uses the database."""
    own = {k: v for k, v in os.environ.items() if k != "PYTHONDEVMODE"}
    return {**own, "BENCHMARK_DATABASE": json.dumps(parameters), **more}


def _prepare(parameters: dict[str, Any]) -> None:
    django = [sys.executable, "-m", "django"]
    env = environment(parameters, DJANGO_SETTINGS_MODULE="benchmarks.reading.settings")
    models = [f"reading.{name}" for name in ("Item", "Membership", "Author", "Book")]
    for command in (["migrate", "--run-syncdb", "-v0"], ["pgobserve", "install", *models]):
        subprocess.run([*django, *command], env=env, check=True, stdout=subprocess.DEVNULL)
    _execute(parameters, _FILL)


def _execute(parameters: dict[str, Any], query: Any) -> None:
    with psycopg.connect(**parameters, autocommit=True) as connection:
        connection.execute(query)


def _drop(server: dict[str, Any], names: list[str]) -> None:
    for name in names:
        query = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        _execute(server, query)
