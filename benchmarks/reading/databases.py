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

#: Rows to watch, and users who are members of the first of them.
ROWS = 10_000
USERS = 1_000

_FILL = f"""
INSERT INTO reading_item (id, name, rank, price, changed)
    SELECT n, 'item ' || n, 0, 1, now() FROM generate_series(1, {ROWS}) n;
INSERT INTO reading_membership (item_id, user_id)
    SELECT 1, n FROM generate_series(1, {USERS}) n;
ANALYZE;
"""


@contextlib.contextmanager
def databases(count: int) -> Iterator[list[dict[str, Any]]]:
    """
    Make databases that are alike; dropped at the end.

    On the server that the environment names, else on one that is started. Sessions do not wait for
    the disk when they commit: that takes both sides the same time, much of it, and a varying one.

    Yields:
        The connection parameters of each, as psycopg keywords.
    """
    with contextlib.ExitStack() as stack:
        server = named_server()
        if server is None:
            options = ("shared_buffers=128MB", "max_connections=50")
            server = stack.enter_context(embedded(options)).parameters()
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
    for command in (["migrate", "--run-syncdb", "-v0"], ["pgobserve", "install", "reading.Item"]):
        subprocess.run([*django, *command], env=env, check=True, stdout=subprocess.DEVNULL)
    _execute(parameters, _FILL)


def _execute(parameters: dict[str, Any], query: Any) -> None:
    with psycopg.connect(**parameters, autocommit=True) as connection:
        connection.execute(query)


def _drop(server: dict[str, Any], names: list[str]) -> None:
    for name in names:
        query = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        _execute(server, query)
