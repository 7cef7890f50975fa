"""The connections that read the rows are lost, and what reads them raises."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.acceptance.faults.replica import Fleet, fleet, replica
from tests.acceptance.faults.world import ROLE, ROWS, World, eventually, serving
from tests.acceptance.faults.writers import writing
from tests.proxy import Proxy

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.faults.world import Server

#: The connections of the loader's threads, and what they wait for.
LOADERS = f"""
    SELECT pid FROM pg_stat_activity
    WHERE usename = '{ROLE}' AND application_name NOT LIKE 'pgobserve:%'
"""


async def end(world: World, which: str = "") -> int:
    """End the loader's connections; return how many there were."""
    rows = await world.execute(
        f"SELECT pg_terminate_backend(pid, 5000) FROM ({LOADERS} {which}) AS loaders"
    )
    return len(rows)


async def test_ended_while_idle(world: World, clients: Fleet) -> None:
    """Whoever comes first after the loader's connections were ended notices nothing of it."""
    # After an interruption it is asked anew whether the table has its triggers.
    await world.terminate_listeners()
    await clients.change_all()
    await clients.equals_the_table()
    assert await end(world)

    async with replica(clients.server.url()) as late:
        await late.subscribe([1])


async def test_ended_in_mid_query(world: World, clients: Fleet) -> None:
    """Loads that are ended in the middle are made again."""
    with writing(world.parameters):
        await clients.has_frames()
    await clients.equals_the_table()
    async with await psycopg.AsyncConnection.connect(**world.parameters) as locking:
        await locking.execute("UPDATE project_item SET rank = rank + 1")
        await locking.execute("DELETE FROM project_item WHERE id = 3")
        async with await psycopg.AsyncConnection.connect(**world.parameters) as hidden:
            # The loads of these changes wait for the lock, so they are ended while they run.
            await locking.commit()
            await hidden.execute("LOCK TABLE project_item IN ACCESS EXCLUSIVE MODE")
            await world.execute(
                "SELECT pg_notify('pgobserve', "
                """'{"v":1,"t":"project.item","o":"T","x":"99999999","k":null}')"""
            )
            waiting = "AND wait_event_type = 'Lock'"
            await eventually(lambda: world.execute(LOADERS + waiting))
            assert await end(world, waiting)
            await hidden.execute("UPDATE project_item SET name = 'last'")

    await clients.equals_the_table()


async def test_ended_every_moment(world: World, clients: Fleet) -> None:
    """Under load, with connections ended again and again, nothing is lost."""
    with writing(world.parameters):
        for _ in range(20):
            await asyncio.sleep(0.1)
            await end(world)
    await clients.change_all()

    await clients.equals_the_table()


async def test_refused(world: World, tmp_path: Path) -> None:
    """While changes are heard and rows can't be read, they wait to be read."""
    names = {name: world.parameters[name] for name in ("user", "password")}
    ear = {"PGOBSERVE_FAULTS": json.dumps({"CONNECTION": {"default": names}})}
    with serving("daphne", world.environ() | ear, tmp_path) as server:
        async with fleet(world, server, 8) as clients:
            with writing(world.parameters):
                await clients.has_frames()
                async with world.nobody_connects():
                    await clients.change_all()
                    await eventually(lambda: is_busy(clients))
                    assert (await clients.state())["listener"]["live"]
                await clients.has_frames()
            async with world.nobody_connects():
                await clients.change_all()
                await eventually(lambda: is_busy(clients))

            await clients.equals_the_table()
            assert (await clients.state())["listener"]["gaps"] == 0
            assert not any(each.refused for each in clients.replicas)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_silent_without_an_end(world: World, tmp_path: Path) -> None:
    """A load that never gets its answer is made again over a new connection."""
    async with Proxy("127.0.0.1", world.postgres.port) as proxy:
        environ = world.environ(port=proxy.port)
        direct = json.dumps({"CONNECTION": {"default": {"port": world.postgres.port}}})
        with serving("daphne", environ | {"PGOBSERVE_FAULTS": direct}, tmp_path) as server:
            async with fleet(world, server, 4) as clients:
                await clients.equals_the_table()
                proxy.freeze(new=False)
                await clients.change_all()
                await eventually(lambda: is_busy(clients))
                await eventually(lambda: rests(clients), 150)
                await clients.equals_the_table()


async def is_busy(clients: Fleet) -> Any:
    """Tell whether rows wait to be read."""
    return (await clients.state())["busy"]


async def rests(clients: Fleet) -> bool:
    """Tell whether no row waits to be read."""
    return not await is_busy(clients)


async def test_row_that_can_not_be_shown(world: World, faulty_server: Server) -> None:
    """One row that its serializer chokes on: its watchers are told, all others get their rows."""
    async with fleet(world, faulty_server, 6, "fragile/") as clients:
        with writing(world.parameters):
            await clients.has_frames()
            await world.execute("UPDATE project_item SET name = 'bad' WHERE id = 12")
            await clients.has_frames()
        await clients.change_all()
        await world.execute("UPDATE project_item SET name = 'bad' WHERE id = 12")
        row = (await world.table())[12]
        for each in clients.replicas:
            watches = each.sees(row)
            await each.until(lambda: (12 in each.failed) == watches)  # noqa: B023 (awaited here)
            for frame in each.failed.values():
                assert frame["response_status"] == 500
                assert "bad" not in str(frame["errors"])
        table = await world.table()
        for each in clients.replicas:
            await each.until(lambda: not (each.stale(table).keys() - {12}))  # noqa: B023
        assert "Serializing project.Item 12 for " in faulty_server.process.output()
        await world.execute("UPDATE project_item SET name = 'good' WHERE id = 12")

        await clients.equals_the_table()


async def test_user_whose_queryset_raises(world: World, faulty_server: Server) -> None:
    """One user whose queryset raises is told so; the others go on."""
    async with (
        fleet(world, faulty_server, 6, "picky/") as clients,
        replica(faulty_server.url("picky/")) as poor,
    ):
        # No writer deletes these. A client receives no error for a row of which it holds no copy.
        own = [ROWS + 1, ROWS + 2, ROWS + 3]
        await world.execute(
            "INSERT INTO project_item (id, name, rank) SELECT unnest(%s::int[]), 'own', 0", own
        )
        await poor.subscribe(own, user="poor")
        with writing(world.parameters):
            await clients.has_frames()
            await world.execute(
                "INSERT INTO project_membership (\"user\", item_id) VALUES ('poor', %s)", own[0]
            )
            await world.execute("UPDATE project_item SET rank = 1 WHERE id = ANY(%s)", own)
            await poor.until(lambda: len(poor.failed) == 3)
            await clients.has_frames()
        await clients.equals_the_table()
        assert "poor has a queryset that fails" in faulty_server.process.output()
        await world.execute("DELETE FROM project_membership")
        await clients.change_all()

        await clients.equals_the_table()
        table = await world.table()
        await poor.until(lambda: not poor.stale(table))
