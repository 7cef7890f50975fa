"""A client that leaves while frames are sent to it is no error, under any server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import struct
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from websockets.asyncio.client import connect

from tests.acceptance import server as processes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from websockets.asyncio.client import ClientConnection

#: Each row fills a network buffer with a few others: the server must wait for a client to read.
ROWS, LENGTH = 60, 8000
KINDS = [
    *("uvicorn-websockets", "uvicorn-sansio", "uvicorn-wsproto"),
    *("daphne", "hypercorn", "granian"),
]


@pytest.fixture(scope="module")
def rows(installed: processes.Database) -> Iterator[processes.Database]:
    """Rows that take long to send."""
    installed.manage("pgobserve", "install", "project.Item")
    with psycopg.connect(**installed.parameters, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO project_item (id, name, rank) SELECT n, 'a', 0"
            f" FROM generate_series(1, {ROWS}) AS n"
        )
        yield installed
        connection.execute("DELETE FROM project_item")


@pytest.fixture(scope="module", params=KINDS)
def running(
    request: pytest.FixtureRequest,
    rows: processes.Database,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[processes.Server]:
    """One server of each kind."""
    application = "tests.acceptance.faults.asgi:application"
    directory = tmp_path_factory.mktemp("departures")
    with processes.serve(request.param, rows, directory, application) as server:
        yield server


@contextlib.asynccontextmanager
async def connected(server: processes.Server, path: str) -> AsyncIterator[ClientConnection]:
    """Connect, as soon as the server listens."""
    url = server.url.replace("/ws/", path)
    async with asyncio.timeout(processes.PATIENCE):
        while True:
            try:
                connection = await connect(
                    url,
                    open_timeout=processes.PATIENCE,
                    proxy=None,
                    ping_interval=None,
                    max_size=None,
                    max_queue=2,
                )
                break
            except ConnectionRefusedError:
                assert server.process.popen.poll() is None, server.process.output()
                await asyncio.sleep(0.05)
    try:
        yield connection
    finally:
        # Not close(): one that does not read would wait for the server's close frame in vain.
        connection.transport.abort()
        await connection.wait_closed()


async def ask(connection: ClientConnection, action: str, **given: object) -> Any:
    """Send a request and return its reply."""
    await connection.send(json.dumps({"action": action, "request_id": action, **given}))
    async with asyncio.timeout(processes.PATIENCE):
        while True:
            frame = json.loads(await connection.recv())
            if (frame["action"], frame["request_id"]) == (action, action):
                assert not frame["errors"], frame
                return frame["data"]


def request_much(connection: ClientConnection) -> None:
    """Send requests whose replies come too late; nothing waits for them."""
    for number in range(1, 5):
        for action in ("subscribe_list", "retrieve", "subscribe_instance"):
            request = {"action": action, "pk": number, "request_id": f"late {number}"}
            connection.protocol.send_text(json.dumps(request).encode())
    connection.send_data()


async def vanish(connection: ClientConnection) -> None:
    """End by a reset, with neither a close frame nor a FIN."""
    request_much(connection)
    await asyncio.sleep(0)
    reset = struct.pack("ii", 1, 0)
    connection.transport.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, reset
    )
    connection.transport.abort()


async def drop(connection: ClientConnection) -> None:
    """End by a FIN, as a process does that is killed."""
    request_much(connection)
    await asyncio.sleep(0)
    connection.transport.abort()


async def say_goodbye(connection: ClientConnection) -> None:
    """End by a close frame, with requests on the way whose replies come too late."""
    request_much(connection)
    connection.protocol.send_close(1000)
    connection.send_data()


async def test_departure_is_no_error(running: processes.Server) -> None:
    """Clients leave in the midst of a stream of frames; the log has no error, and others go on."""
    change = f"UPDATE project_item SET rank = {LENGTH}, name = %s"
    database = running.database
    await database.execute("UPDATE project_item SET rank = 0")
    async with contextlib.AsyncExitStack() as stack:
        steady = await stack.enter_async_context(connected(running, "/long/"))
        assert len((await ask(steady, "subscribe_list"))["results"]) == ROWS
        for number in range(2):
            ways = [vanish, drop, say_goodbye] * 2
            leaving = [await stack.enter_async_context(connected(running, "/long/")) for _ in ways]
            for each in leaving:
                await ask(each, "subscribe_list")
            # None of them reads from here on, until the server has to wait for them.
            await database.execute(change, f"first {number}")
            await database.execute(change, f"last {number}")
            await until_all_are(steady, f"last {number}")
            for each, leave in zip(leaving, ways, strict=True):
                await leave(each)
            await database.execute(change, f"later {number}")
            await until_all_are(steady, f"later {number}")
        state = await stack.enter_async_context(connected(running, "/state/"))
        async with asyncio.timeout(processes.PATIENCE):
            # There is no event, for the server notices departures when it comes to it.
            while (await ask(state, "state"))["subscriptions"] != 1:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await database.execute(change, "at the end")
        await until_all_are(steady, "at the end")
    output = running.process.output()
    assert not re.search(r"ERROR|CRITICAL|Traceback|Exception", output), output


async def until_all_are(connection: ClientConnection, name: str) -> None:
    """Read frames until every row has a name."""
    missing = set(range(1, ROWS + 1))
    async with asyncio.timeout(processes.PATIENCE):
        while missing:
            frame = json.loads(await connection.recv())
            assert not frame["errors"], frame
            if frame["data"]["name"] == name:
                missing.discard(frame["data"]["id"])
