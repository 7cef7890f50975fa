"""Server processes that are killed, that stand still, and that are two."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.acceptance.faults.replica import fleet
from tests.acceptance.faults.world import ROLE, World, eventually, serving
from tests.acceptance.faults.writers import writing

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.faults.world import Server


@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
async def test_killed_and_resumed(world: World, kind: str, tmp_path: Path) -> None:
    """Clients of a process that was killed go on by etags, and receive exactly what they missed."""
    async with contextlib.AsyncExitStack() as stack:
        server = stack.enter_context(serving(kind, world.environ(), tmp_path))
        before = await stack.enter_async_context(fleet(world, server, 8))
        with writing(world.parameters):
            await before.has_frames()
        await before.change_all()
        await before.equals_the_table()
        server.kill()
        await asyncio.gather(*(each.connection.wait_closed() for each in before.replicas))
        await world.execute("UPDATE project_item SET rank = rank + 1 WHERE id <= 20")
        await world.execute("DELETE FROM project_item WHERE id = 8")
        server.start()
        after = await stack.enter_async_context(before.resumed())
        await after.equals_the_table()
        after.received_what_they_missed(before, await world.table())
        with writing(world.parameters):
            await after.has_frames()
        await world.terminate_listeners()
        await after.change_all()
        await after.equals_the_table()


async def test_two_processes(world: World, faulty_server: Server, tmp_path: Path) -> None:
    """Two processes on one database both deliver, and the end of one is nothing to the other."""
    async with fleet(world, faulty_server, 8) as staying:
        with serving("uvicorn", world.environ(), tmp_path) as server:
            async with fleet(world, server, 8) as leaving:
                with writing(world.parameters):
                    await asyncio.gather(staying.has_frames(), leaving.has_frames())
                    await world.terminate_listeners()
                    await asyncio.gather(staying.has_frames(), leaving.has_frames())
                    server.kill()
                    await staying.has_frames()
                await staying.change_all()
                await staying.equals_the_table()
            server.start()
            await world.execute("INSERT INTO project_item (id, name, rank) VALUES (7, 'back', 1)")
            async with fleet(world, server, 8) as coming:
                async with world.nobody_connects():
                    await staying.change_all()

                await asyncio.gather(staying.equals_the_table(), coming.equals_the_table())


async def held_back(world: World) -> bool:
    """Tell whether a session of the server's processes waits for them to read."""
    return bool(
        await world.execute(
            f"SELECT 1 FROM pg_stat_activity WHERE usename = '{ROLE}' AND wait_event = 'ClientWrite'"
        )
    )


async def is_free(world: World) -> bool:
    """Tell whether nothing holds the notification queue and vacuum's horizon back any more."""
    ((usage, pinned),) = await world.execute(
        "SELECT pg_notification_queue_usage(), (SELECT count(*) FROM pg_stat_activity "
        f"WHERE usename = '{ROLE}' AND (backend_xmin IS NOT NULL OR wait_event = 'ClientWrite'))"
    )
    return usage == 0 and pinned == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_stuck_process(world: World, tmp_path: Path) -> None:
    """A process that stands still is dropped by the server, and heals when it goes on."""
    with serving("daphne", world.environ(), tmp_path) as server:
        async with fleet(world, server, 4) as clients:
            await clients.equals_the_table()
            server.process.popen.send_signal(signal.SIGSTOP)
            try:
                await asyncio.to_thread(flood, world)
                assert await held_back(world)
                await eventually(lambda: is_free(world), 40)
                await clients.change_all()
            finally:
                server.process.popen.send_signal(signal.SIGCONT)

            await clients.equals_the_table()


def flood(world: World) -> None:
    """Notify until the connection of a process that does not read is full."""
    with psycopg.connect(**world.parameters, autocommit=True) as connection:
        while True:
            connection.execute(
                "SELECT pg_notify('pgobserve', n || repeat('x', 7000)) FROM generate_series(1, 500) n"
            )
            waiting = connection.execute(
                f"SELECT 1 FROM pg_stat_activity WHERE usename = '{ROLE}' "
                "AND wait_event = 'ClientWrite'"
            ).fetchone()
            if waiting:
                return


async def test_stops_in_order(world: World, tmp_path: Path) -> None:
    """A server that is told to end does so, with its sockets open and its feed at work."""
    with serving("daphne", world.environ(), tmp_path) as server:
        async with fleet(world, server, 4) as clients:
            with writing(world.parameters):
                await clients.has_frames()
                server.process.stop(signal.SIGINT)
    assert "Traceback" not in server.process.output()
    await eventually(lambda: _nobody_is_there(world, server.process.popen.pid))


async def _nobody_is_there(world: World, pid: int) -> bool:
    query = "SELECT 1 FROM pg_stat_activity WHERE application_name = %s"
    return not await world.execute(query, f"pgobserve:{pid}")
