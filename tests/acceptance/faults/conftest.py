"""One PostgreSQL and one Daphne for all tests of faults; each test begins with the same rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.acceptance.faults import world as worlds
from tests.acceptance.faults.replica import Fleet, fleet
from tests.acceptance.faults.standby import STREAMING, Cluster
from tests.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture(scope="session")
def shared_world() -> Iterator[worlds.World]:
    """A PostgreSQL with the table and its triggers."""
    with worlds.world() as made:
        yield made


@pytest.fixture
def world(shared_world: worlds.World) -> worlds.World:
    """The same with its rows as they were."""
    with psycopg.connect(**shared_world.parameters, autocommit=True) as connection:
        connection.execute(worlds.RESET.encode())
    return shared_world


@pytest.fixture(scope="session")
def faulty_server(
    shared_world: worlds.World, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[worlds.Server]:
    """A Daphne that several tests use, one after the other."""
    directory = tmp_path_factory.mktemp("faults")
    with worlds.serving("daphne", shared_world.environ(), directory) as server:
        yield server


@pytest.fixture
async def clients(world: worlds.World, faulty_server: worlds.Server) -> AsyncIterator[Fleet]:
    """Many sockets with replicas of their own."""
    async with fleet(world, faulty_server) as made:
        yield made


@pytest.fixture
def streaming_world() -> Iterator[worlds.World]:
    """A PostgreSQL of the test's own, which a standby can follow."""
    with worlds.world(STREAMING) as made:
        yield made


@pytest.fixture
async def front(streaming_world: worlds.World) -> AsyncIterator[Proxy]:
    """What server processes connect to it through."""
    async with Proxy("127.0.0.1", streaming_world.postgres.port) as made:
        yield made


@pytest.fixture
async def cluster(streaming_world: worlds.World, front: Proxy) -> AsyncIterator[Cluster]:
    """The means to fail over."""
    made = Cluster(streaming_world, front)
    yield made
    await made.close()
