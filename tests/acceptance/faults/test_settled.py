"""A write of another connection, then ``settled``: the reply never comes before the frames."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.acceptance.client import Client, connected
from tests.acceptance.faults.test_outbox import box, shared_box  # noqa: F401 (fixtures)
from tests.acceptance.faults.world import ROWS, serving
from tests.acceptance.faults.writers import writing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from tests.acceptance.faults.test_outbox import Boxed
    from tests.acceptance.faults.world import Server, World

#: How often is written, and once in how many writes the listeners are ended: ten times each. A thousand
#: cost forty seconds of a core.
by_writes = pytest.mark.parametrize(
    ("writes", "ends"), [(200, 20), pytest.param(1000, 100, marks=pytest.mark.slow)]
)

#: Rows that the writers of the load leave alone.
OWN = range(ROWS + 1, ROWS + 11)

PREPARE = "INSERT INTO project_item (id, name, rank) SELECT n, 'new', 0 FROM generate_series(%s::int, %s::int) n"
WRITE = "UPDATE project_item SET name = %s WHERE id = %s"


class Reader:
    """
    A socket that reads its frames one after the other, so that it knows what came before a reply.

    Attributes:
        names: What it was shown last, by request id and key.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.names: dict[tuple[Any, int], str] = {}

    async def subscribe(self) -> None:
        """Subscribe to the list, or to the rows."""
        for number, key in enumerate(OWN):
            if "lists" not in self.client.connection.request.path:  # type: ignore[union-attr]
                await self.client.send(
                    {"action": "subscribe_instance", "pk": key, "request_id": number}
                )
        if "lists" in self.client.connection.request.path:  # type: ignore[union-attr]
            await self.client.send({"action": "subscribe_list", "request_id": "list"})
        assert await self.settle("first") == 200

    async def settle(self, request_id: Any) -> int:
        """Send the request and read until its reply; return the status."""
        await self.client.send({"action": "settled", "request_id": request_id})
        while True:
            frame = await self.client.receive()
            self.client.frames.clear()
            if (frame["action"], frame["request_id"]) == ("settled", request_id):
                status: int = frame["response_status"]
                return status
            self._note(frame)

    def _note(self, frame: dict[str, Any]) -> None:
        data = frame["data"] or {}
        for row in data.get("results", [data]):
            if "name" in row:
                self.names[frame["request_id"], row["id"]] = row["name"]

    def shows(self, key: int) -> set[str]:
        """Return what the subscriptions show of a row."""
        return {name for (_, of), name in self.names.items() if of == key}


@contextlib.asynccontextmanager
async def reading(server: Server) -> AsyncIterator[list[Reader]]:
    """Subscribe to the rows with a socket, and to the list with another one."""
    async with (
        connected(server.url("items/")) as rows,
        connected(server.url("lists/items/")) as items,
    ):
        readers = [Reader(rows), Reader(items)]
        for each in readers:
            await each.subscribe()
        yield readers


async def prepare(world: World) -> None:
    await world.execute(PREPARE, OWN[0], OWN[-1])


async def write_and_settle(
    world: World, readers: Sequence[Reader], writes: int, *, ends: int = 0
) -> list[Any]:
    """
    Write again and again, with a request on every socket after each.

    Args:
        world: The database.
        readers: The sockets.
        writes: How often.
        ends: Once in so many writes the listeners are ended before it, and once while the requests are
            under way.

    Returns:
        The replies that came too early: the number of the write, and what the socket shows.
    """
    early = []
    async with await psycopg.AsyncConnection.connect(
        **world.parameters, autocommit=True
    ) as connection:
        for number in range(writes):
            key, name = OWN[number % len(OWN)], f"write {number}"
            if ends and number % ends == ends - 1:
                await world.terminate_listeners()  # nothing hears of the write
            await connection.execute(WRITE, [name, key])
            works: list[Any] = [each.settle(number) for each in readers]
            if ends and number % ends == ends // 2:
                works.append(world.terminate_listeners())
            statuses = await asyncio.gather(*works)
            assert {*statuses[: len(readers)]} == {200}, statuses
            early += [(number, each.shows(key)) for each in readers if each.shows(key) != {name}]
    return early


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["uvicorn", "daphne"])
@by_writes
async def test_under_load(world: World, kind: str, writes: int, ends: int, tmp_path: Path) -> None:
    """Hundreds of writes, while others write and the listener is ended now and then."""
    await prepare(world)
    with serving(kind, world.environ(), tmp_path) as server:
        async with reading(server) as readers:
            with writing(world.parameters) as writers:
                early = await write_and_settle(world, readers, writes, ends=ends)

    assert early == []
    assert all(writer.written for writer in writers)


@pytest.mark.timeout(600)
async def test_two_processes(world: World, tmp_path: Path) -> None:
    """Each process sends marks of its own, and ignores those of the other."""
    await prepare(world)
    with (
        serving("uvicorn", world.environ(), tmp_path) as one,
        serving("uvicorn", world.environ(), tmp_path) as other,
    ):
        async with reading(one) as first, reading(other) as second:
            with writing(world.parameters):
                early = await write_and_settle(world, [*first, *second], 200)

    assert early == []


@pytest.mark.timeout(600)
@by_writes
async def test_outbox(box: Boxed, writes: int, ends: int, tmp_path: Path) -> None:  # noqa: F811
    """The same where changes travel through the outbox."""
    await prepare(box)
    with serving("uvicorn", box.environ(), tmp_path) as server:
        async with reading(server) as readers:
            with writing(box.parameters):
                early = await write_and_settle(box, readers, writes, ends=ends)

    assert early == []


@pytest.mark.timeout(600)
async def test_restarted(world: World, tmp_path: Path) -> None:
    """A request whose mark is lost with the server is answered after the reads that heal the gap."""
    await prepare(world)
    with serving("uvicorn", world.environ(), tmp_path) as server:
        async with reading(server) as readers:
            for number in range(3):
                waiting = [asyncio.create_task(each.settle(f"w{number}")) for each in readers]
                await asyncio.to_thread(world.restart)
                await asyncio.gather(*waiting)
                early = await write_and_settle(world, readers, 5)

                assert early == []
                for each in readers:
                    each.names = {k: v for k, v in each.names.items() if v.startswith("write")}
