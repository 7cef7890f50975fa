"""Servers and ears for the read side's tests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.db import connection

from pgobserve.demo import postgres
from pgobserve.errors import PayloadInvalid
from pgobserve.listen.listener import Listener
from pgobserve.listen.payload import parse
from pgobserve.triggers import trigger_statements
from tests.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from pgobserve.demo.postgres import Server
    from pgobserve.wire import Change

CHANNEL = "pgobserve"

#: What an installation announces.
ANNOUNCEMENTS = trigger_statements.announcements


@pytest.fixture(autouse=True)
def unannounced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let installations announce nothing, so that a test hears its own changes alone."""
    monkeypatch.setattr(trigger_statements, "announcements", lambda _: ())


def parameters() -> dict[str, Any]:
    """Return psycopg's keywords for the test database."""
    given = connection.get_connection_params()
    return {k: v for k, v in given.items() if k not in ("cursor_factory", "context")}


def payload(key: int, xid: int = 5) -> str:
    """Return a payload that names a row."""
    return f'{{"v":1,"t":"project.item","o":"U","x":"{xid}","k":[{key}]}}'


class Writer:
    """A connection of somebody else's."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.connection = psycopg.connect(**given, autocommit=True)

    def rows(self, query: str, *params: Any) -> list[Any]:
        """Run a statement and return its rows."""
        cursor = self.connection.execute(query, params or None)
        return cursor.fetchall() if cursor.description else []

    def notify(self, *payloads: str, channel: str = CHANNEL) -> None:
        """Send notifications, each in a transaction of its own."""
        for text in payloads:
            self.rows("SELECT pg_notify(%s, %s)", channel, text)

    def listeners(self) -> list[int]:
        """Return the backends of this process's LISTEN connections."""
        query = (
            "SELECT pid FROM pg_stat_activity WHERE application_name = %s ORDER BY backend_start"
        )
        return [row[0] for row in self.rows(query, f"pgobserve:{os.getpid()}")]

    def listener(self) -> int:
        """Return the one that goes on, once the one that the probe was sent over has ended."""
        deadline = time.monotonic() + 90
        while len(pids := self.listeners()) > 1:
            assert time.monotonic() < deadline, "more than one goes on"
            time.sleep(0.01)
        return pids[0]

    def until_alone(self) -> None:
        """Wait until none of them is left; the server takes a moment to notice that one closed."""
        deadline = time.monotonic() + 90
        while self.listeners():
            assert time.monotonic() < deadline, "connections are left"
            time.sleep(0.01)

    def terminate(self) -> int:
        """Terminate those backends and wait until they are gone; return how many there were."""
        # One that was closed just now, as the probe's is, may be listed still, and is not there.
        query = "SELECT pg_terminate_backend(%s, 20000)"
        return sum(self.rows(query, pid) == [(True,)] for pid in self.listeners())


@pytest.fixture
def writer(transactional_db: None) -> Iterator[Writer]:
    """A connection to the test database."""
    each = Writer(parameters())
    yield each
    each.connection.close()


class Ear(logging.Handler):
    """A listener that runs, what it said, and a way to wait for it."""

    def __init__(self, given: Callable[[], Mapping[str, Any]], heartbeat: float = 20.0) -> None:
        super().__init__()
        self.changes: list[Change] = []
        self.lives: list[bool] = []
        self.logs: list[str] = []
        self.on_live: Callable[[], object] = lambda: None
        self._news = asyncio.Event()
        self.listener = Listener(given, CHANNEL, self._take, self._live, heartbeat)
        logging.getLogger("pgobserve.listen.listener").addHandler(self)
        self.task = asyncio.create_task(self.listener.run())

    @property
    def keys(self) -> list[Any]:
        """All keys heard."""
        return [key for change in self.changes for key in change.keys or [None]]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for something that the listener calls or logs."""
        async with asyncio.timeout(90):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def until_live(self, times: int = 1) -> None:
        """Wait until it has been live so many times."""
        await self.until(lambda: len(self.lives) >= times)

    async def aclose(self) -> None:
        """End it."""
        self.task.cancel()
        async with asyncio.timeout(60):
            await asyncio.gather(self.task, return_exceptions=True)
        logging.getLogger("pgobserve.listen.listener").removeHandler(self)
        self.close()

    def emit(self, record: logging.LogRecord) -> None:
        self.logs.append(record.getMessage())
        self._news.set()

    def _take(self, payload: str) -> None:
        try:
            self.changes.append(parse(payload))
        except PayloadInvalid as error:
            self.listener.ignore(str(error))
        self._news.set()

    def _live(self, gap: bool) -> None:
        self.lives.append(gap)
        self._news.set()
        self.on_live()


@pytest.fixture
async def ear(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Callable[..., Ear]]:
    """Return a function that starts a listener; all are ended, and leave no task behind."""
    caplog.set_level(logging.INFO, "pgobserve")
    before = asyncio.all_tasks()
    async with contextlib.AsyncExitStack() as stack:

        def start(*, heartbeat: float = 20.0, **overrides: Any) -> Ear:
            given = {**parameters(), **overrides}
            each = Ear(lambda: given, heartbeat)
            stack.push_async_callback(each.aclose)
            return each

        yield start
    assert {task for task in asyncio.all_tasks() - before if "listen" in repr(task)} == set()


@pytest.fixture
async def proxy(transactional_db: None) -> AsyncIterator[Proxy]:
    """A proxy before the test database's server."""
    given = parameters()
    async with Proxy(given.get("host") or "/var/run/postgresql", int(given["port"])) as each:
        yield each


def identity() -> dict[str, Any]:
    """Return whom a server program runs as: never root."""
    uid = postgres.UNPRIVILEGED_UID
    return {"user": uid, "group": uid, "extra_groups": []} if os.geteuid() == 0 else {}


def run(*command: object, cwd: Path, **environment: str) -> None:
    """Run one of the server's programs."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
    subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        check=True,
        capture_output=True,
        env={**kept, "LC_ALL": "C", **environment},
        **identity(),
    )


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server of the test's own, to do to it what it likes."""
    with postgres.embedded() as server:
        yield server


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """Make a directory in which the server's user may write."""
    path = Path(tempfile.mkdtemp(prefix="pgobserve-tests-", dir="/tmp"))
    path.chmod(0o700)
    if identity():
        os.chown(path, postgres.UNPRIVILEGED_UID, postgres.UNPRIVILEGED_UID)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def process(command: list[str], ready: Callable[[], object], cwd: Path) -> Iterator[None]:
    """Run a program while the block runs, from when it is ready."""
    with subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **identity()
    ) as running:
        try:
            deadline = time.monotonic() + 90
            while True:
                try:
                    ready()
                    break
                except psycopg.OperationalError:
                    assert running.poll() is None, f"{command[0]} ended"
                    assert time.monotonic() < deadline, f"{command[0]} does not start"
                    time.sleep(0.05)
            yield
        finally:
            running.terminate()
            running.wait(60)


PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@pytest.fixture
def bouncer(transactional_db: None) -> Iterator[Callable[..., dict[str, Any]]]:
    """Return a function that starts PgBouncer in a mode, and returns the parameters to use."""
    if PGBOUNCER is None:
        pytest.skip("PgBouncer is not installed (apt-get install pgbouncer)")
    given = parameters()
    with contextlib.ExitStack() as stack:

        def start(mode: str) -> dict[str, Any]:
            home = stack.enter_context(directory())
            port = free_port()
            names = ("host", "port", "dbname", "user", "password")
            target = " ".join(f"{name}={given[name]}" for name in names if given.get(name))
            config = home / "pgbouncer.ini"
            config.write_text(
                f"[databases]\ntested = {target}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
                f"listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\n"
                "ignore_startup_parameters = extra_float_digits,options\n"
            )
            config.chmod(0o644)
            if identity():
                os.chown(config, postgres.UNPRIVILEGED_UID, postgres.UNPRIVILEGED_UID)
            through = {**given, "host": "127.0.0.1", "port": port, "dbname": "tested"}
            stack.enter_context(
                process(
                    [str(PGBOUNCER), str(config)],
                    lambda: psycopg.connect(**through, connect_timeout=2).close(),
                    home,
                )
            )
            return through

        yield start
