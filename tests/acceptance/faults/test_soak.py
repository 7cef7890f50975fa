"""
Random faults, one after another, for minutes: after each round every socket equals the table.

``PGOBSERVE_SOAK_SECONDS`` says how long (15 minutes without it), ``PGOBSERVE_SOAK_SEED`` which
faults come; the seed is part of every failure's message.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from functools import partial
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.acceptance.faults.lasting import lasting
from tests.acceptance.faults.replica import ListReplica, Replica
from tests.acceptance.faults.world import CHANGE_ALL, RESET, ROWS, serving
from tests.acceptance.faults.writers import writing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.acceptance.faults.lasting import Lasting
    from tests.acceptance.faults.standby import Cluster
    from tests.acceptance.faults.world import Server, World
    from tests.proxy import Proxy

SECONDS = float(os.environ.get("PGOBSERVE_SOAK_SECONDS") or 900)
SEED = int(os.environ.get("PGOBSERVE_SOAK_SEED") or time.time())
SOCKETS = 32
#: Faults of a round at most.
FAULTS = 4


class Faults:
    """
    What may happen to the servers.

    Args:
        world: The database, and the table that the sockets watch.
        proxy: Between the server processes and the database.
        cluster: The database's standby.
        servers: The server processes.
        chance: Chooses.

    Attributes:
        done: The names of the faults so far.
    """

    def __init__(
        self,
        world: World,
        proxy: Proxy,
        cluster: Cluster,
        servers: list[Server],
        chance: random.Random,
    ) -> None:
        self._world = world
        self._proxy = proxy
        self._cluster = cluster
        self._servers = servers
        self._random = chance
        self.done: list[str] = []

    async def one(self) -> None:
        """Let a fault happen, and pass."""
        kinds: list[Callable[[], Awaitable[object]]] = [
            self.listeners_terminated,
            self.listeners_terminated,
            self.backends_terminated,
            self.connections_cut,
            self.network_down,
            self.network_silent,
            self.listening_backend_frozen,
            self.server_frozen,
            self.postgres_crashed,
            self.server_killed,
            self.server_stopped,
            self.table_truncated,
            self.table_locked,
        ]
        fault = self._random.choice(kinds)
        self.done.append(fault.__name__)
        await fault()

    async def failover(self) -> None:
        """Fail over to a standby; the old primary may stay alive for a while."""
        linger = self._random.random() < 0.5
        self.done.append(f"failover({linger=})")
        await self._cluster.fail_over(linger=linger)
        if linger:
            # The server processes still have connections to the old primary: whatever they hear
            # and read there is out of date. Only some of them break.
            for link in self._random.sample([*self._proxy._links], len(self._proxy._links) // 2):
                link.abort()

    async def listeners_terminated(self) -> None:
        await self._world.terminate_listeners()

    async def backends_terminated(self) -> None:
        async with self._world.nobody_connects():
            await self._pause(0.5)

    async def connections_cut(self) -> None:
        self._proxy.cut()

    async def network_down(self) -> None:
        await self._proxy.stop()
        await self._pause(3)
        await self._proxy.start()

    async def network_silent(self) -> None:
        self._proxy.freeze()
        await self._pause(12)
        self._proxy.thaw()

    async def listening_backend_frozen(self) -> None:
        pids = await self._world.listeners()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            await self._pause(8)
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    async def server_frozen(self) -> None:
        process = self._random.choice(self._servers).process.popen
        process.send_signal(signal.SIGSTOP)
        await self._pause(8)
        process.send_signal(signal.SIGCONT)

    async def postgres_crashed(self) -> None:
        await asyncio.to_thread(self._world.restart)

    async def server_killed(self) -> None:
        server = self._random.choice(self._servers)
        server.kill()
        await self._pause(2)
        server.start()

    async def server_stopped(self) -> None:
        server = self._random.choice(self._servers)
        await asyncio.to_thread(server.process.stop)
        await self._pause(1)
        server.start()

    async def table_truncated(self) -> None:
        # A writer that waits for it in a circle may be let through instead.
        with contextlib.suppress(psycopg.errors.DeadlockDetected):
            await self._world.execute("TRUNCATE project_membership, project_item")

    async def table_locked(self) -> None:
        await self._world.execute(
            "BEGIN; LOCK TABLE project_item; SELECT pg_catalog.pg_sleep(2); COMMIT"
        )

    async def _pause(self, most: float) -> None:
        await asyncio.sleep(self._random.uniform(0, most))


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 600)
async def test_random_faults(
    streaming_world: World, front: Proxy, cluster: Cluster, tmp_path: Path
) -> None:
    """Whatever happens to the servers, every socket has the committed rows once it is over."""
    world, chance = streaming_world, random.Random(SEED)
    await world.execute(RESET)
    environ = world.environ(port=front.port)
    for kind in ("daphne", "uvicorn"):
        (tmp_path / kind).mkdir()
    with (
        serving("daphne", environ, tmp_path / "daphne") as first,
        serving("uvicorn", environ, tmp_path / "uvicorn") as second,
    ):
        faults = Faults(world, front, cluster, [first, second], chance)
        async with lasting(_places([first, second])) as sockets:
            end, rounds = time.monotonic() + SECONDS, 0
            while rounds == 0 or time.monotonic() < end:
                rounds += 1
                await _round(world, cluster, faults, sockets, chance)
            print(_story(sockets, faults.done, rounds))


def _places(servers: list[Server]) -> list[tuple[str, Callable[..., Replica], list[int]]]:
    places: list[tuple[str, Callable[..., Replica], list[int]]] = []
    for number in range(SOCKETS):
        server = servers[number % 2]
        if number % 4 < 2:
            keys = [key for key in range(1, ROWS + 1) if (key + number // 4) % 2]
            places.append((server.url("items/"), Replica, keys))
        else:
            kind = partial(ListReplica, odd=number % 8 >= 4)
            places.append((server.url("lists/items/"), kind, []))
    return places


async def _round(
    world: World,
    cluster: Cluster,
    faults: Faults,
    sockets: list[Lasting],
    chance: random.Random,
) -> None:
    begun = len(faults.done)
    with writing(world.parameters, 3):
        for _ in range(chance.randint(1, FAULTS)):
            await asyncio.sleep(chance.uniform(0, 3))
            await faults.one()
    if chance.random() < 0.25:
        await faults.failover()
        with writing(world.parameters, 3):
            await asyncio.sleep(chance.uniform(0, 5))
            await faults.one()
    # Every row is changed once, while nothing can be heard, and nothing is written afterwards:
    # whatever was lost stays lost.
    async with world.nobody_connects():
        await world.execute(CHANGE_ALL)
    table = await world.table()
    try:
        await asyncio.gather(*(each.equals(table) for each in sockets))
    except AssertionError as error:
        raise AssertionError(f"{error}; seed {SEED}, after {faults.done[begun:]}") from None
    await cluster.end_old_primary()


def _story(sockets: list[Lasting], done: list[str], rounds: int) -> str:
    connects = sum(each.connects for each in sockets)
    counts = {name: done.count(name) for name in sorted({*done})}
    return (
        f"seed {SEED}: {rounds} rounds, {len(done)} faults {counts}; {len(sockets)} sockets "
        f"connected {connects} times; nothing was stale"
    )
