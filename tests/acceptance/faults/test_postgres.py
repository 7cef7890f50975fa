"""PostgreSQL itself goes away, and its tables change under the feed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.acceptance.faults.writers import writing

if TYPE_CHECKING:
    from tests.acceptance.faults.replica import Fleet
    from tests.acceptance.faults.world import World


async def test_restarted(world: World, clients: Fleet) -> None:
    """After a crash of the server everyone has what was committed."""
    with writing(world.parameters):
        await clients.has_frames()
        await asyncio.to_thread(world.restart)
        await clients.has_frames()
    async with world.nobody_connects():
        await asyncio.to_thread(world.restart)
        await clients.change_all()

    await clients.equals_the_table()


async def test_hundred_thousand_rows(world: World, clients: Fleet) -> None:
    """One statement that changes a hundred thousand rows is one re-read of what is watched."""
    await world.execute(
        "INSERT INTO project_item (id, name, rank) "
        "SELECT n, 'many', 0 FROM generate_series(1000, 101000) n"
    )
    with writing(world.parameters):
        await clients.has_frames()
        await world.execute("UPDATE project_item SET name = 'changed'")
    await clients.equals_the_table()
    await world.execute("UPDATE project_item SET name = 'changed again'")

    await clients.equals_the_table()


async def test_truncate(world: World, clients: Fleet) -> None:
    """Rows that a TRUNCATE takes are gone for everyone, and come back when they do."""
    with writing(world.parameters):
        await clients.has_frames()
    await world.execute("TRUNCATE project_membership, project_item")
    await clients.equals_the_table()
    assert not any(row for each in clients.replicas for row in each.rows.values())
    with writing(world.parameters):
        await clients.has_frames()
        await world.execute("TRUNCATE project_membership, project_item")
    await clients.change_all()

    await clients.equals_the_table()


async def test_altered_column(world: World, clients: Fleet) -> None:
    """A watched column gets another type while it is read by prepared statements."""
    try:
        with writing(world.parameters):
            await clients.has_frames()
            for kind in ("bigint", "integer", "bigint"):
                await world.execute(f"ALTER TABLE project_item ALTER rank TYPE {kind}")
                await clients.has_frames()
        await clients.change_all()

        await clients.equals_the_table()
        assert not any(each.refused for each in clients.replicas)
    finally:
        await world.execute("ALTER TABLE project_item ALTER rank TYPE integer")


async def test_dropped_column(world: World, clients: Fleet) -> None:
    """While a shown column is missing everyone is told so; when it is back, so are the rows."""
    await world.execute("ALTER TABLE project_item DROP COLUMN name")
    await world.execute("UPDATE project_item SET rank = rank + 1")
    for each in clients.replicas:
        await each.until(lambda: each.failed.keys() >= each.rows.keys())  # noqa: B023 (awaited here)
    await world.execute("ALTER TABLE project_item ADD COLUMN name varchar(200) DEFAULT 'new'")
    with writing(world.parameters):
        await clients.has_frames()
    await clients.change_all()

    await clients.equals_the_table()
