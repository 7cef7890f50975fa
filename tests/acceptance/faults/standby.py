"""A streaming standby of the tests' PostgreSQL, and what a failover does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg

from pgobserve.demo import postgres
from tests.acceptance.faults.world import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.acceptance.faults.world import World
    from tests.proxy import Proxy

#: What a primary needs so that a standby can follow it.
STREAMING = ("wal_level=replica", "max_wal_senders=5", "hot_standby=on")
SETTINGS = ("fsync=off", "full_page_writes=off", *STREAMING)


class Cluster:
    """
    A primary that can fail over to a fresh standby, with a proxy in front.

    Args:
        world: Speaks to the primary; follows a failover.
        proxy: The servers under test connect through it; new connections follow a failover.
    """

    def __init__(self, world: World, proxy: Proxy) -> None:
        self._world = world
        self._proxy = proxy
        self._root = world.postgres.directory.parent
        self._made = 0
        self._running: dict[Path, subprocess.Popen[bytes]] = {}

    async def fail_over(self, *, linger: bool) -> None:
        """
        Promote a standby that has all that was committed, and send new connections to it.

        Args:
            linger: The old primary stays alive with the connections that it has. Otherwise it is
                stopped first, as by a crash.
        """
        old = self._world.postgres
        new, process = await self._standby(old)
        await self._caught_up(old, new)
        if not linger:
            await self._crash(old)
        await _execute(new, "SELECT pg_catalog.pg_promote(true, 30)")
        self._follow(new, process)
        self._lingering = old if linger else None

    def _follow(self, server: postgres.Server, process: subprocess.Popen[bytes]) -> None:
        """Send new connections to a server."""
        self._running[server.directory] = process
        self._world.postgres = server
        self._world.parameters = server.parameters()
        self._proxy.aim("127.0.0.1", server.port)

    async def back_up(self) -> Path:
        """Return the directory of a base backup of the primary as it is."""
        directory = self._directory("backup")
        await self._copy(self._world.postgres, directory)
        return directory

    async def restore(self, backup: Path) -> None:
        """Stop the primary as by a crash, and go on with an older backup of it."""
        old = self._world.postgres
        await self._crash(old)
        new, process = await self._started(old, backup)
        self._follow(new, process)

    async def end_old_primary(self) -> None:
        """Stop the old primary, if the last failover left it alive."""
        if self._lingering is not None:
            await self._crash(self._lingering)
            self._lingering = None

    async def close(self) -> None:
        """Stop the servers that this started."""
        for directory, process in self._running.items():
            await self._stop(directory)
            await asyncio.to_thread(process.wait)

    async def _standby(self, primary: postgres.Server) -> tuple[postgres.Server, Any]:
        data = self._directory("standby")
        await self._copy(primary, data, "-R")
        return await self._started(primary, data)

    def _directory(self, kind: str) -> Path:
        """Return a new directory for a server's files."""
        self._made += 1
        home = self._root / f"{kind}-{self._made}"
        home.mkdir(mode=0o711)
        data = home / "data"
        data.mkdir(mode=0o700)
        if "user" in (options := postgres._environment()):
            for path in (home, data):
                os.chown(path, options["user"], options["group"])
        return data

    async def _started(self, like: postgres.Server, data: Path) -> tuple[postgres.Server, Any]:
        """Start a server with a directory's files."""
        made = replace(like, port=postgres._free_port(), directory=data)
        process = postgres._start(made, SETTINGS, data.parent)
        await asyncio.to_thread(postgres._wait_until_ready, process, made, data.parent)
        return replace(made, pid=process.pid), process

    async def _copy(self, primary: postgres.Server, data: Path, *options: str) -> None:
        program = str(primary.bin / "pg_basebackup")
        target = ["-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres", "-D", str(data)]
        command = [program, *target, *options, "-X", "stream", "-c", "fast"]
        await self._run(command, PGPASSWORD=primary.password)

    async def _caught_up(self, primary: postgres.Server, standby: postgres.Server) -> None:
        ((position,),) = await _execute(primary, "SELECT pg_catalog.pg_current_wal_lsn()::text")

        async def has_it() -> object:
            query = "SELECT pg_catalog.pg_last_wal_replay_lsn() >= %s::pg_catalog.pg_lsn"
            ((reached,),) = await _execute(standby, query, position)
            return reached

        await eventually(has_it)

    async def _crash(self, server: postgres.Server) -> None:
        await self._stop(server.directory)
        process = self._running.pop(server.directory, None)
        if process is not None:
            await asyncio.to_thread(process.wait)

    async def _stop(self, directory: Path) -> None:
        program = str(self._world.postgres.bin / "pg_ctl")
        with contextlib.suppress(subprocess.CalledProcessError):
            await self._run([program, "-D", str(directory), "-m", "immediate", "-w", "stop"])

    async def _run(self, command: Sequence[str], **environ: str) -> None:
        options = postgres._environment()
        options |= {"cwd": self._root, "capture_output": True, "env": options["env"] | environ}
        await asyncio.to_thread(subprocess.run, command, check=True, **options)

    _lingering: postgres.Server | None = None


async def _execute(server: postgres.Server, text: str, *parameters: Any) -> list[tuple[Any, ...]]:
    async with await psycopg.AsyncConnection.connect(
        **server.parameters(), autocommit=True
    ) as connection:
        cursor = await connection.execute(text.encode(), parameters or None)
        return await cursor.fetchall()
