"""The LISTEN connection is lost in every way there is, under load."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.faults.replica import Fleet, fleet
from tests.acceptance.faults.world import World, serving
from tests.acceptance.faults.writers import writing
from tests.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture
async def proxy(world: World) -> AsyncIterator[Proxy]:
    """A proxy to the database."""
    async with Proxy("127.0.0.1", world.postgres.port) as made:
        yield made


@pytest.fixture
async def listening_by_proxy(world: World, proxy: Proxy, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Sockets on a server of which only the LISTEN connection goes through the proxy."""
    environ = world.environ() | {
        "PGOBSERVE_FAULTS": json.dumps({"CONNECTION": {"default": {"port": proxy.port}}})
    }
    with serving("daphne", environ, tmp_path) as server:
        async with fleet(world, server) as made:
            yield made


async def test_terminated_once(world: World, clients: Fleet) -> None:
    """Changes that were made while the listener was away reach everyone when it is back."""
    with writing(world.parameters) as writers:
        await clients.has_frames()
        assert await world.terminate_listeners() == 1
    async with world.nobody_connects():
        await clients.change_all()

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
        await clients.change_all()
    await clients.equals_the_table()


async def test_cut_by_a_proxy(world: World, proxy: Proxy, listening_by_proxy: Fleet) -> None:
    """A network that is down for two seconds loses nothing."""
    clients = listening_by_proxy
    with writing(world.parameters):
        await clients.has_frames()
        await proxy.stop()
        await asyncio.sleep(2)
    assert not (await clients.state())["listener"]["live"]
    await clients.change_all()
    await proxy.start()

    await clients.equals_the_table()


async def test_silent_without_an_end(world: World, proxy: Proxy, listening_by_proxy: Fleet) -> None:
    """A connection that is open and silent for ever is given up, and everything is read again."""
    clients = listening_by_proxy
    with writing(world.parameters):
        await clients.has_frames()
    await clients.equals_the_table()
    proxy.freeze(new=False)
    await clients.change_all()

    await clients.equals_the_table()
    assert (await clients.state())["listener"]["gaps"] == 1


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop a process for the length of a ``with`` block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_frozen_backend(world: World, clients: Fleet) -> None:
    """A backend that has stopped is given up while it stands still, not when it goes on."""
    with writing(world.parameters):
        await clients.has_frames()
    await clients.equals_the_table()
    (pid,) = await world.listeners()
    with frozen(pid):
        await clients.change_all()
        await clients.equals_the_table()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seconds", [20, 40])
async def test_frozen_under_load(world: World, clients: Fleet, seconds: int) -> None:
    """A backend that stands still under load, and then goes on with what it had to tell."""
    (pid,) = await world.listeners()
    with writing(world.parameters):
        await clients.has_frames()
        with frozen(pid):
            await asyncio.sleep(seconds)
    async with world.nobody_connects():
        await clients.change_all()

    await clients.equals_the_table()
