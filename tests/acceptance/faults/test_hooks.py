"""Hooks that raise anything, or never return: their subscriptions suffer, and no others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance.client import Client, connected
from tests.acceptance.faults.hooks import ALL, CLOSED, HELD, RAISED
from tests.acceptance.faults.world import ROLE, Server, World, eventually, serving
from tests.acceptance.server import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What each row, by its key, has its hooks do.
NAMES = dict(enumerate(ALL, 1))
OTHER = 30

#: Queries that the servers of the tests have running.
WORK = f"""
    SELECT 1 FROM pg_stat_activity
    WHERE usename = '{ROLE}' AND state <> 'idle' AND backend_type = 'client backend'
"""


@contextlib.contextmanager
def impatient(kind: str, world: World, directory: Any) -> Iterator[Server]:
    """A server that gives hooks up early."""
    faults = {"PGOBSERVE_FAULTS": json.dumps({"HOOK_TIMEOUT": 3})}
    with serving(kind, world.environ() | faults, directory) as server:
        yield server


@pytest.fixture(scope="module", params=["uvicorn", "daphne"])
def server(
    request: Any, shared_world: World, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """One for all tests: what one hook does to it the next one finds."""
    with impatient(request.param, shared_world, tmp_path_factory.mktemp("hooks")) as made:
        yield made


async def misbehave(world: World) -> None:
    cases = " ".join(f"WHEN {key} THEN '{name}'" for key, name in NAMES.items())
    await world.execute(
        f"UPDATE project_item SET name = CASE id {cases} END WHERE id <= {len(NAMES)}"
    )


async def behave(world: World) -> None:
    await world.execute(f"UPDATE project_item SET name = 'good', rank = 7 WHERE id <= {len(NAMES)}")


async def until(client: Client, rank: int) -> None:
    """Wait for a row of that rank, whatever comes before."""
    async with asyncio.timeout(PATIENCE):
        while True:
            frame = await client.receive()
            if frame["response_status"] == 200 and frame["data"]["rank"] == rank:
                return


@pytest.mark.parametrize("hook", ["serializer", "queryset", "permission", "async", "reply"])
async def test_others_are_served(world: World, server: Server, hook: str) -> None:
    """While hooks misbehave in every way, others receive each change; mended ones receive theirs."""
    async with contextlib.AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(
                connected(server.url(f"bad/{hook}/"), ping_interval=None)
            )
            for _ in NAMES
        ]
        bad = dict(zip(NAMES, opened, strict=True))
        good = await stack.enter_async_context(connected(server.url(), ping_interval=None))
        for key, client in bad.items():
            frame = await client.ask("subscribe_instance", request_id=key, pk=key, row=key)
            assert frame["response_status"] == 201
            await good.ask("subscribe_instance", request_id=key, pk=key)
        await good.ask("subscribe_instance", request_id=OTHER, pk=OTHER)

        await misbehave(world)
        seen = [await good.receive() for _ in NAMES]
        assert {frame["request_id"]: frame["data"]["name"] for frame in seen} == NAMES
        await world.execute(f"UPDATE project_item SET rank = 5 WHERE id = {OTHER}")
        assert (await good.receive())["data"]["rank"] == 5
        fresh = await stack.enter_async_context(connected(server.url(), ping_interval=None))
        assert (await fresh.ask("subscribe_instance", pk=OTHER))["response_status"] == 201

        await behave(world)
        for _ in NAMES:
            assert (await good.receive())["data"]["rank"] == 7
        for key, client in bad.items():
            # A hook that was given up is not called again at once.
            if NAMES[key] not in HELD:
                await until(client, 7)
    assert server.process.popen.poll() is None


async def test_held_threads_are_reported(world: World, server: Server) -> None:
    """The log names the consumer and the hook that was given up, and shows where it is."""
    async with connected(server.url("bad/serializer/"), ping_interval=None) as client:
        await client.ask("subscribe_instance", request_id=1, pk=1, row=1)
        await world.execute("UPDATE project_item SET name = 'sleep' WHERE id = 1")
        assert (await client.receive())["response_status"] == 500
    output = server.process.output()
    (line,) = [
        line
        for line in output.splitlines()
        if "has held a thread of database 'default' for 3 s" in line
    ][-1:]
    assert "BadSerializerConsumer.serializer" in line
    assert "time.sleep(600)" in output


@pytest.mark.parametrize("kind", ["uvicorn", "daphne"])
async def test_ends(world: World, tmp_path: Any, kind: str) -> None:
    """With stuck hooks, a locked table and requests that wait for it, SIGTERM ends the server."""
    async with contextlib.AsyncExitStack() as stack:
        server = stack.enter_context(impatient(kind, world, tmp_path))
        stuck = await stack.enter_async_context(
            connected(server.url("bad/serializer/"), ping_interval=None)
        )
        waits = await stack.enter_async_context(connected(server.url(), ping_interval=None))
        for key in (1, 2, 3):
            await stuck.ask("subscribe_instance", request_id=key, pk=key)
        await world.execute("UPDATE project_item SET name = 'sleep' WHERE id = 1")
        await world.execute("UPDATE project_item SET name = 'endless' WHERE id = 2")
        await world.execute("UPDATE project_item SET rank = 1 WHERE id = 3")
        while (await stuck.receive())["request_id"] != 3:
            pass
        locked = await world.locked("project_item")
        stack.push_async_callback(locked.close)
        for key in range(4, 24):
            await waits.send({"action": "subscribe_instance", "request_id": key, "pk": key})

        async def works() -> bool:
            return bool(await world.execute(WORK))

        async def is_over() -> bool:
            return server.process.popen.poll() is not None

        async def rests() -> bool:
            return not await works()

        await eventually(works)
        server.process.popen.send_signal(signal.SIGTERM)
        await eventually(is_over)
        await eventually(rests)


async def test_killed(world: World, tmp_path: Any) -> None:
    """A server that is killed while it waits for a lock leaves no query at work."""
    async with contextlib.AsyncExitStack() as stack:
        server = stack.enter_context(impatient("uvicorn", world, tmp_path))
        client = await stack.enter_async_context(connected(server.url(), ping_interval=None))
        await client.ask("subscribe_instance", request_id=1, pk=1)
        locked = await world.locked("project_item")
        stack.push_async_callback(locked.close)
        await client.send({"action": "subscribe_instance", "request_id": 2, "pk": 2})

        async def works() -> bool:
            return bool(await world.execute(WORK))

        async def rests() -> bool:
            return not await works()

        await eventually(works)
        server.kill()
        await eventually(rests)


def test_names() -> None:
    """No two ways to misbehave have one name."""
    assert len(ALL) == len(HELD) + len(CLOSED) + len(RAISED)
