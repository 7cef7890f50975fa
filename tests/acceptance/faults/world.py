"""A PostgreSQL of the tests' own, its one table, and the servers that serve it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg

from pgobserve.demo import postgres
from tests.acceptance import server as processes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

ROWS = 40

#: The role of the server processes: the tests can keep it from connecting.
ROLE = "web"

PREPARE = f"""
    CREATE ROLE {ROLE} LOGIN PASSWORD 'web';
    GRANT pg_read_all_data TO {ROLE};
"""
RESET = f"""
    TRUNCATE project_membership, project_item RESTART IDENTITY;
    INSERT INTO project_item (name, rank) SELECT 'row ' || n, 0 FROM generate_series(1, {ROWS}) n;
"""
TERMINATE = f"""
    SELECT pg_catalog.pg_terminate_backend(pid, 5000) FROM pg_catalog.pg_stat_activity
    WHERE usename = '{ROLE}'
"""
#: Each row is changed once, one goes, and those that went come back. The lock keeps it from waiting
#: in a circle with writers, who take rows in another order.
CHANGE_ALL = f"""
    BEGIN;
    LOCK TABLE project_item IN SHARE ROW EXCLUSIVE MODE;
    UPDATE project_item SET rank = rank + 1000;
    INSERT INTO project_item (id, name, rank)
    SELECT n, 'back', 1 FROM generate_series(1, {ROWS}) n ON CONFLICT DO NOTHING;
    DELETE FROM project_item WHERE id = 7;
    COMMIT;
"""

Table = dict[int, dict[str, Any]]


@dataclass
class World:
    """
    The database and who may connect to it.

    Attributes:
        postgres: The server.
        parameters: How the tests connect, as a superuser.
    """

    postgres: postgres.Server
    parameters: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.parameters = self.postgres.parameters()

    def environ(self, **changes: Any) -> dict[str, str]:
        """Return the environment of a server process; ``changes`` go to its connections."""
        parameters = self.parameters | {"user": ROLE, "password": "web"} | changes
        return os.environ | {
            "DJANGO_SETTINGS_MODULE": "tests.acceptance.faults.settings",
            "PGOBSERVE_TEST_SERVER": json.dumps(parameters),
        }

    def prepare(self) -> None:
        """Make the project's tables, and the triggers of items."""
        self._run("-c", processes.PREPARE, '["project.Item"]')

    def manage(self, *arguments: str) -> None:
        """Run a management command as the superuser."""
        self._run("-m", "django", *arguments)

    def _run(self, *arguments: str) -> None:
        environ = self.environ(**self.parameters)
        command = [sys.executable, *arguments]
        subprocess.run(command, cwd=processes.ROOT, env=environ, check=True, capture_output=True)

    async def execute(self, text: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """
        Run SQL on a connection of its own, and commit.

        A statement that PostgreSQL ends in a deadlock with a writer is repeated: the writers go
        from key to key, a statement on the whole table goes through its pages.
        """
        while True:
            with contextlib.suppress(psycopg.errors.DeadlockDetected):
                return await self._execute(text, parameters)

    async def _execute(self, text: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        async with await psycopg.AsyncConnection.connect(
            **self.parameters, autocommit=True
        ) as connection:
            cursor = await connection.execute(text.encode(), parameters or None)
            return await cursor.fetchall() if cursor.description else []

    async def locked(self, table: str) -> psycopg.AsyncConnection[Any]:
        """Lock a table against readers until the connection is closed, which is returned."""
        connection = await psycopg.AsyncConnection.connect(**self.parameters)
        await connection.execute(f"LOCK TABLE {table}".encode())
        return connection

    async def table(self) -> Table:
        """Return the rows as the serializers show them."""
        rows = await self.execute("SELECT id, name, rank FROM project_item")
        return {row[0]: dict(zip(("id", "name", "rank"), row, strict=True)) for row in rows}

    async def listeners(self) -> list[int]:
        """Return the process ids of the backends that LISTEN."""
        rows = await self.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'pgobserve:%'"
        )
        return [row[0] for row in rows]

    async def terminate_listeners(self) -> int:
        """End the backends that LISTEN; return how many there were."""
        rows = await self.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE application_name LIKE 'pgobserve:%'"
        )
        return len(rows)

    @contextlib.asynccontextmanager
    async def nobody_connects(self) -> AsyncIterator[None]:
        """Cut all connections of the server processes, and let none come back meanwhile."""
        await self.execute(f"ALTER ROLE {ROLE} NOLOGIN")
        try:
            await self.execute(TERMINATE)
            await eventually(self._nobody_is_there)
            yield
        finally:
            await self.execute(f"ALTER ROLE {ROLE} LOGIN")

    async def _nobody_is_there(self) -> bool:
        return not await self.execute(f"SELECT 1 FROM pg_stat_activity WHERE usename = '{ROLE}'")

    def restart(self) -> None:
        """Crash PostgreSQL and start it again; returns when it accepts connections."""
        # As `immediate` does it: all processes are ended at once, nothing is written.
        program = str(self.postgres.bin / "pg_ctl")
        options = ["-D", str(self.postgres.directory), "-m", "immediate", "-w", "-s"]
        log = ["-l", str(self.postgres.directory / "log-of-restart")]
        postgres._run([program, *options, *log, "restart"], self.postgres.directory.parent)


@contextlib.contextmanager
def world(options: Sequence[str] = ()) -> Iterator[World]:
    """
    Start a PostgreSQL with the project's table and its triggers.

    Args:
        options: Further settings of the server, each ``name=value``.
    """
    # Commits are real ones: what was committed before a crash must be there after it.
    programs = os.environ.get("PGOBSERVE_TEST_PG_BIN")
    directory = processes.Path(programs) if programs else None
    with postgres.embedded(
        ("fsync=off", "full_page_writes=off", *options), bin_directory=directory
    ) as server:
        made = World(server)
        made.prepare()
        with psycopg.connect(**made.parameters, autocommit=True) as connection:
            connection.execute(PREPARE.encode())
        yield made


class Server:
    """
    A server process that can be killed and started again on the same port.

    Args:
        kind: ``daphne`` or ``uvicorn``.
        environ: Of the process.
        directory: Where its log goes.
    """

    def __init__(self, kind: str, environ: dict[str, str], directory: Path) -> None:
        self._kind = kind
        self._environ = environ
        self._directory = directory
        # Kept open: connections queue while no process accepts them.
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._stack = contextlib.ExitStack()
        self.port = self._socket.getsockname()[1]
        self.process: processes.Process

    def start(self) -> None:
        """Start the process."""
        template = processes.SERVERS[self._kind]
        number = self._socket.fileno()
        arguments = [part.format(fd=number) for part in template[:-1]]
        running = processes.process(
            self._kind,
            [*arguments, "tests.acceptance.faults.asgi:application"],
            self._directory,
            self._environ,
            fds=[number],
        )
        self.process = self._stack.enter_context(running)

    def kill(self) -> None:
        """Kill the process."""
        self.process.popen.kill()
        self.process.popen.wait()

    def close(self) -> None:
        """End the process."""
        self._stack.close()
        self._socket.close()

    def url(self, path: str = "items/") -> str:
        """Return a WebSocket's address."""
        return f"ws://127.0.0.1:{self.port}/{path}"


@contextlib.contextmanager
def serving(kind: str, environ: dict[str, str], directory: Path) -> Iterator[Server]:
    """Run a server for the length of a ``with`` block."""
    server = Server(kind, environ, directory)
    try:
        server.start()
        yield server
    finally:
        server.close()


async def eventually(
    condition: Callable[[], Awaitable[object]], patience: float = processes.PATIENCE
) -> None:
    """Wait until a condition holds that no event tells of."""
    async with asyncio.timeout(patience):
        while not await condition():  # noqa: ASYNC110 (there is no event, see above)
            await asyncio.sleep(0.02)
