"""Clients that come back after PostgreSQL was restarted, restored or replaced receive the difference."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.faults.replica import fleet
from tests.acceptance.faults.world import RESET, serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.faults.standby import Cluster
    from tests.acceptance.faults.world import World
    from tests.proxy import Proxy

#: Some rows change, one goes, one comes; one changes and changes back.
AWAY = """
    UPDATE project_item SET rank = rank + 1 WHERE id BETWEEN 11 AND 20;
    DELETE FROM project_item WHERE id = 8;
    INSERT INTO project_item (id, name, rank) VALUES (7, 'back', 1) ON CONFLICT DO NOTHING;
    UPDATE project_item SET name = 'x' WHERE id = 30;
    UPDATE project_item SET name = 'row 30' WHERE id = 30;
"""


@pytest.mark.timeout(240)
@pytest.mark.parametrize("fault", ["restarted", "restored", "failed over"])
@pytest.mark.parametrize("process", ["the same", "another"])
async def test_resume_after(
    streaming_world: World,
    front: Proxy,
    cluster: Cluster,
    tmp_path: Path,
    fault: str,
    process: str,
) -> None:
    """Each client receives one frame of each row that differs from what it holds, and no other."""
    world = streaming_world
    await world.execute(RESET)
    with serving("uvicorn", world.environ(port=front.port), tmp_path) as server:
        async with fleet(world, server, 8) as before:
            backup = await cluster.back_up() if fault == "restored" else None
            await before.change_all()
            await before.equals_the_table()
        if process == "another":
            server.kill()
        if fault == "restarted":
            await asyncio.to_thread(world.restart)
        elif backup is not None:
            await cluster.restore(backup)
        else:
            await cluster.fail_over(linger=False)
        await world.execute(AWAY)
        if process == "another":
            server.start()
        async with before.resumed() as after:
            await after.equals_the_table()
            after.received_what_they_missed(before, await world.table())
            await after.change_all()
            await after.equals_the_table()
