"""A standby is promoted while the old primary lives on, with the connections that it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.acceptance.faults.replica import fleet
from tests.acceptance.faults.world import RESET, ROLE, World, serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.faults.standby import Cluster
    from tests.proxy import Proxy

#: Of the server processes' connections: those that LISTEN, those that read rows.
LISTENING = "application_name LIKE 'pgobserve:%'"
READING = "application_name NOT LIKE 'pgobserve:%'"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("transport", ["notify", pytest.param("outbox", marks=pytest.mark.slow)])
@pytest.mark.parametrize("broken", [LISTENING, READING], ids=["listening", "reading"])
async def test_old_primary_lives_on(
    streaming_world: World,
    front: Proxy,
    cluster: Cluster,
    tmp_path: Path,
    broken: str,
    transport: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If some connections break and others do not, all lead to the new primary in the end."""
    world = streaming_world
    if transport == "outbox":
        monkeypatch.setenv("PGOBSERVE_FAULTS", '{"TRANSPORT": "outbox"}')
        world.manage("pgobserve", "install", "project.Item")
        await world.execute(
            f"GRANT USAGE ON SCHEMA pgobserve TO {ROLE};"
            f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgobserve TO {ROLE}"
        )
    await world.execute(RESET)
    with serving("uvicorn", world.environ(port=front.port), tmp_path) as server:
        async with fleet(world, server) as clients:
            await world.execute("UPDATE project_item SET rank = rank + 1")
            await clients.equals_the_table()
            old = world.postgres.parameters()
            await cluster.fail_over(linger=True)
            await clients.change_all()
            async with await psycopg.AsyncConnection.connect(**old, autocommit=True) as there:
                await there.execute(b"UPDATE project_item SET rank = 77 WHERE id < 20")
                await there.execute(
                    f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                    f"WHERE usename = '{ROLE}' AND {broken}".encode()
                )
            # A load is what shows that LISTEN leads elsewhere.
            await clients.replicas[0].ask("subscribe_instance", "new", pk=2)

            await clients.equals_the_table()
