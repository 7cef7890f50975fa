"""A server of our own, a table of 100,000 rows, and the triggers on it, on and off."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django
import psycopg
from django.conf import settings

from pgobserve.demo.postgres import embedded
from pgobserve.triggers import trigger_statements
from pgobserve.triggers.trigger_values import TableInfo
from pgobserve.wire import ALONE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pgobserve.demo.postgres import Server

#: As durable as PostgreSQL is by default; nothing may begin by itself while we measure.
OPTIONS = (
    "shared_buffers=512MB",
    "max_wal_size=8GB",
    "min_wal_size=2GB",
    "checkpoint_timeout=1d",
    "autovacuum=off",
    "max_connections=50",
)

ROWS = 100_000

TABLE = """
CREATE TABLE item (
    id bigint PRIMARY KEY, name text NOT NULL, owner_id int NOT NULL, state smallint NOT NULL,
    price numeric(10, 2) NOT NULL, note text, facts jsonb NOT NULL, n int NOT NULL,
    made timestamptz NOT NULL, changed timestamptz NOT NULL);
CREATE INDEX ON item (owner_id);
CREATE INDEX ON item (changed);
"""
FILL = """
SELECT i::bigint AS id, 'item ' || i AS name, i % 1000 AS owner_id, (i % 5)::smallint AS state,
       (i / 100.0)::numeric(10, 2) AS price, CASE WHEN i % 3 = 0 THEN 'a note' END AS note,
       jsonb_build_object('a', i, 'b', 'text') AS facts, 0 AS n, now() AS made, now() AS changed
"""
SOURCE = f"CREATE TABLE source AS {FILL} FROM generate_series(1, {ROWS}) i"


@dataclass(frozen=True, slots=True)
class Table:
    """
    The table, and a connection that owns it.

    Attributes:
        server: The server.
        connection: An autocommit connection.
    """

    server: Server
    connection: psycopg.Connection[Any]

    def execute(self, *statements: str) -> None:
        """Run statements one by one."""
        for statement in statements:
            self.connection.execute(statement)

    def triggers(self, on: bool, *, empty: bool = False, **options: Any) -> None:
        """Put the triggers on the table, or such as do nothing, or remove them."""
        statements = _install(**options) if on else _uninstall()
        with self.connection.transaction():
            self.execute(*(_emptied(statements) if empty else statements))

    def fill(self) -> None:
        """Make the table new, with all its rows."""
        self.execute(
            "TRUNCATE item", "INSERT INTO item SELECT * FROM source", "VACUUM ANALYZE item"
        )

    def connect(self) -> psycopg.Connection[Any]:
        """Return another session."""
        return psycopg.connect(**self.server.parameters(), autocommit=True)


@contextlib.contextmanager
def table(options: Sequence[str] = ()) -> Iterator[Table]:
    """Run a server with the table; ``PGOBSERVE_TEST_PG_BIN`` names another PostgreSQL's programs."""
    programs = os.environ.get("PGOBSERVE_TEST_PG_BIN")
    bin_directory = Path(programs) if programs else None
    with (
        embedded((*OPTIONS, *options), bin_directory=bin_directory) as server,
        psycopg.connect(**server.parameters(), autocommit=True) as connection,
    ):
        made = Table(server, connection)
        made.execute(TABLE, SOURCE)
        made.fill()
        yield made


@contextlib.contextmanager
def listeners(where: Table, count: int) -> Iterator[None]:
    """Let sessions listen and read all they are sent, as server processes do."""
    connections = [where.connect() for _ in range(count)]
    stop = threading.Event()

    def listen(connection: psycopg.Connection[Any]) -> None:
        connection.execute("LISTEN pgobserve")
        while not stop.is_set():
            for _ in connection.notifies(timeout=0.2):
                pass

    threads = [threading.Thread(target=listen, args=(each,)) for each in connections]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        for each in connections:
            each.close()


RELATION = TableInfo("public", "item")


def _registration(**options: Any) -> Any:
    if not settings.configured:
        settings.configure(INSTALLED_APPS=[], DATABASES={})
        django.setup()
    from benchmarks.writing.models import Item
    from pgobserve.triggers.registry import Registration

    return Registration(model=Item, **options)


def _install(**options: Any) -> list[str]:

    registration = _registration(**options)
    return list(trigger_statements.install_statements(registration, RELATION, always=False))


def _emptied(statements: list[str]) -> list[str]:
    """Return the statements with function bodies that do nothing."""
    return [
        re.sub(r"(?s)AS (\$\w+\$).*", r"AS \1 BEGIN RETURN NULL; END \1", statement)
        if statement.startswith("CREATE OR REPLACE FUNCTION")
        else statement
        for statement in statements
    ]


def _uninstall() -> list[str]:
    from pgobserve.triggers import compiler

    wanted = compiler.wanted(_registration(), RELATION, always=False)
    functions = [trigger.function for trigger in wanted.values()]
    return list(trigger_statements.uninstall_statements([RELATION], functions, ALONE))
