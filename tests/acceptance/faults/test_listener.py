"""The LISTEN connection is lost in every way there is, under load."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.acceptance.faults.writers import writing

if TYPE_CHECKING:
    from tests.acceptance.faults.replica import Fleet
    from tests.acceptance.faults.world import World


async def test_terminated_once(world: World, clients: Fleet) -> None:
    """Changes that were made while the listener was away reach everyone when it is back."""
    with writing(world.parameters) as writers:
        await clients.replicas[0].until(lambda: clients.replicas[0].frames > 50)
        assert await world.terminate_listeners() == 1
    async with world.nobody_connects():
        await clients.change_all_unheard()

    await clients.equals_the_table()
    assert all(writer.written for writer in writers)


async def test_terminated_every_second(world: World, clients: Fleet) -> None:
    """A listener that is ended again and again loses nothing."""
    with writing(world.parameters):
        for _ in range(5):
            await asyncio.sleep(1)
            await world.terminate_listeners()

    await clients.equals_the_table()
    async with world.nobody_connects():
        await clients.change_all_unheard()
    await clients.equals_the_table()
