"""Processes that the acceptance tests start: an ASGI server, management commands, the demo."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from pgobserve.demo.environment import NAMING, named_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]

#: A test waits no longer than this for anything.
PATIENCE = 90

#: Makes the tables, and the triggers of models that are named by its argument. Two commands in one process:
#: each process spends most of its time on importing Django.
PREPARE = """
import json, sys, django
from django.core.management import call_command
django.setup()
call_command("migrate", run_syncdb=True, verbosity=0)
call_command("pgobserve", "install", *json.loads(sys.argv[1]), verbosity=0)
"""

#: What they serve.
APPLICATION = "tests.project.asgi:application"

# A machine that is busy for longer than a keepalive's time-out is no fault of what is tested.
_RARELY = "600"

_UVICORN = (
    *("-m", "uvicorn", "--log-level", "warning", "--fd", "{fd}"),
    *("--ws-ping-interval", _RARELY, "--ws-ping-timeout", _RARELY),
)

#: The servers, by name; each takes over a socket that listens already, or else binds its port.
SERVERS = {
    "daphne": (
        *("-m", "daphne", "-v", "0", "--fd", "{fd}"),
        *("--ping-interval", _RARELY, "--ping-timeout", _RARELY, "{application}"),
    ),
    "uvicorn": (*_UVICORN, "{application}"),
    "uvicorn-websockets": (*_UVICORN, "--ws", "websockets", "{application}"),
    "uvicorn-sansio": (*_UVICORN, "--ws", "websockets-sansio", "{application}"),
    "uvicorn-wsproto": (*_UVICORN, "--ws", "wsproto", "{application}"),
    "hypercorn": (
        "-m",
        "hypercorn",
        "--log-level",
        "warning",
        "--bind",
        "fd://{fd}",
        "{application}",
    ),
    "granian": (
        *("-m", "granian", "--interface", "asginl", "--log-level", "warning"),
        *("--host", "127.0.0.1", "--port", "{port}", "{application}"),
    ),
}


@dataclass
class Process:
    """
    A process that a test started.

    Attributes:
        name: What it is, in the report of a failed test.
        popen: The process.
        log: The file that has all its output.
    """

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    def output(self) -> str:
        """Return what it has said so far."""
        return self.log.read_text(errors="replace")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        try:
            return self.popen.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.popen.send_signal(signal.SIGABRT)  # the fault handler writes down where it is
            self.popen.wait()
            raise AssertionError(f"{self.name} does not end:\n{self.output()}") from None


@dataclass
class Database:
    """
    A database of the test's own on the run's server.

    Attributes:
        parameters: How to connect, as psycopg keywords.
        environ: The environment of a process that uses it.
    """

    parameters: dict[str, Any]
    environ: dict[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.environ = os.environ | {
            "DJANGO_SETTINGS_MODULE": "tests.project.settings",
            "PGOBSERVE_TEST_DATABASE": self.parameters["dbname"],
        }

    def prepare(self) -> None:
        """Make the project's tables and the triggers of its models."""
        self._run("-c", PREPARE, "[]")

    def manage(self, *arguments: str) -> str:
        """Run a management command in a process of its own and return what it printed."""
        return self._run("-m", "django", *arguments)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, f"{arguments} ended with {done.returncode}:\n{said}"
        return said

    async def execute(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a statement on a connection that knows nothing of Django, and commit it."""
        async with await psycopg.AsyncConnection.connect(**self.parameters) as connection:
            cursor = await connection.execute(statement.encode(), parameters or None)
            return await cursor.fetchall() if cursor.description else []


def run_server() -> dict[str, Any]:
    """Return how to connect to the server of this test run."""
    text = os.environ.get("PGOBSERVE_TEST_SERVER")
    parameters: dict[str, Any] = json.loads(text) if text else named_server() or {}
    return parameters


@contextmanager
def database() -> Iterator[Database]:
    """Make an empty database, and remove it at the end."""
    name = f"acceptance_{secrets.token_hex(4)}"
    identifier = sql.Identifier(name)
    with psycopg.connect(**run_server(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(identifier))
        try:
            yield Database(run_server() | {"dbname": name})
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))


@contextmanager
def process(
    name: str,
    arguments: Sequence[str],
    directory: Path,
    environ: Mapping[str, str],
    *,
    cwd: Path = ROOT,
    fds: Sequence[int] = (),
) -> Iterator[Process]:
    """Run a Python process for the length of a ``with`` block."""
    path = directory / f"{name}.log"
    with path.open("wb") as log:
        popen = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", *arguments],
            cwd=cwd,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=fds,
            # SIGINT must not be ignored, which a shell does to what it runs in the background.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
    started = Process(name, popen, path)
    try:
        yield started
    finally:
        started.stop()


@dataclass
class Server:
    """
    An ASGI server that serves the tests' project.

    Attributes:
        process: Its process.
        url: Of the tutorial's WebSocket.
        database: What it serves.
    """

    process: Process
    url: str
    database: Database


@contextmanager
def serve(
    kind: str, served: Database, directory: Path, application: str = APPLICATION
) -> Iterator[Server]:
    """
    Serve the tests' project.

    Args:
        kind: One of `SERVERS`.
        served: The database; its tables must exist.
        directory: Where the log goes.
        application: What is served.
    """
    # Bound here: nobody can take the port meanwhile, and connections queue until the server is up.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        fd = listener.fileno()
        given = {"fd": fd, "port": port, "application": application}
        arguments = [part.format(**given) for part in SERVERS[kind]]
        if "{port}" in SERVERS[kind]:
            listener.close()
        running = process(
            kind, arguments, directory, served.environ, fds=[fd] if listener.fileno() >= 0 else []
        )
        started = running.__enter__()
    try:
        yield Server(started, f"ws://127.0.0.1:{port}/ws/", served)
    finally:
        running.__exit__(None, None, None)


def plain_environment(**changes: str) -> dict[str, str]:
    """Return the environment without what names a server or a Django project."""
    unwanted = (*NAMING, "DATABASE_URL", "DJANGO_SETTINGS_MODULE", "PYTHONPATH")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in unwanted and not name.startswith("PGOBSERVE_")
    }
    return kept | changes
