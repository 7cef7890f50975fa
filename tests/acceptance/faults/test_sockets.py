"""Clients that misbehave, and notifications that nobody of ours sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from websockets.asyncio.client import connect

from tests.acceptance.faults.replica import PATIENCE, Fleet, Replica, fleet, replica
from tests.acceptance.faults.world import ROWS, World, eventually, serving
from tests.acceptance.faults.writers import writing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.acceptance.faults.world import Server


#: Of connections: whether a machine is too busy is not what is tested.
OPTIONS = {"open_timeout": PATIENCE, "proxy": None, "ping_interval": None}


def payload(**changes: Any) -> str:
    """Return a notification as a trigger sends it, with some of it replaced."""
    content = {"v": 1, "t": "project.item", "o": "U", "x": "9999999999", "k": [1, 2, 3]}
    return json.dumps(content | changes)


FORGED = [
    "",
    "not JSON",
    "[" * 7000,
    "x" * 7999,
    "[]",
    "null",
    payload(v=2),
    payload(v="1"),
    payload(t="no.such_table"),
    payload(t="auth.user"),
    payload(t=7),
    payload(o="X"),
    payload(o="T", k=None),
    payload(o="D", k=[1]),
    payload(x="0"),
    payload(x="-1"),
    payload(x=5),
    payload(k="1"),
    payload(k=["\\u0000", "1.5", "", "one", -1, 2**70, 1.5, True, None]),
    payload(k=[[1, 2], [1], []]),
    payload(k=["9" * 5000]),
    payload(k=[99999999]),
    payload(s="elsewhere"),
    payload(k=[3]).replace("[3]", "[1e1000000, 1e-1000000, 123456789e20]"),
    payload().replace("9999999999", "18446744073709551615"),
]

GARBLED = [
    "",
    "not JSON",
    "[" * 5000,
    b"\x00\xff",
    "null",
    "[1]",
    "{}",
    '{"action": 5}',
    '{"action": "subscribe_instance"}',
    '{"action": "subscribe_instance", "request_id": 5}',
    '{"action": "subscribe_instance", "request_id": 5, "pk": null}',
    '{"action": "subscribe_instance", "request_id": 5, "pk": 1e400}',
    '{"action": "subscribe_instance", "request_id": 5, "pk": 99999999999999999999}',
    '{"action": "subscribe_instance", "request_id": 5, "pk": "\\ud800"}',
    '{"action": "subscribe_instance", "request_id": 5, "pk": 1, "etag": 5}',
    '{"action": "subscribe_instance", "request_id": 5, "pk": 1, "self": 1}',
    '{"action": "no_such_action", "request_id": {"a": [1]}}',
]


@contextlib.contextmanager
def forging(world: World) -> Iterator[None]:
    """Let somebody send notifications that are none of ours, for the length of a block."""
    stop = threading.Event()

    def forge() -> None:
        with psycopg.connect(**world.parameters, autocommit=True) as connection:
            for number in range(10**9):
                text = FORGED[number % len(FORGED)]
                connection.execute("SELECT pg_notify('pgobserve', %s)", [text])
                if stop.wait(0.002) and number > len(FORGED):
                    return

    thread = threading.Thread(target=forge, name="forger", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


async def test_noise(world: World, clients: Fleet) -> None:
    """Garbled frames and forged notifications, all along, change nothing and end nothing."""
    server = clients.server
    said = len(server.process.output())
    before = (await clients.state())["listener"]
    async with connect(server.url(), **OPTIONS) as noisy:
        with forging(world), writing(world.parameters):
            for message in GARBLED * 3:
                await noisy.send(message)
                frame = json.loads(await noisy.recv())
                assert 400 <= frame["response_status"] < 500, (message, frame)
            await clients.has_frames()
            await clients.change_all()
        await clients.equals_the_table()
        async with world.nobody_connects():
            await clients.change_all()
        with forging(world):
            await clients.equals_the_table()

    after = (await clients.state())["listener"]
    assert after["gaps"] == before["gaps"] + 1  # the one that was made here
    assert after["ignored"] > len(FORGED) / 2
    assert " ERROR " not in server.process.output()[said:]


async def test_churn(world: World, clients: Fleet) -> None:
    """Thousands of subscriptions that begin and end under load leave what has not ended."""
    sockets, pairs = 10, 300
    numbers = random.Random(1)
    server = clients.server
    async with contextlib.AsyncExitStack() as stack:
        restless = [await stack.enter_async_context(replica(server.url())) for _ in range(sockets)]
        with writing(world.parameters):
            await asyncio.gather(*(come_and_go(each, pairs, numbers) for each in restless))
        for each in restless:
            each.rows.clear()
            each.strange.clear()
        await clients.change_all()
        await clients.equals_the_table()
        watched = sum(each.subscriptions for each in clients.replicas)
        state = await clients.state()
        assert (state["subscriptions"], state["rows"]) == (watched, ROWS)
        clients.replicas += restless
        await asyncio.gather(*(each.subscribe(range(1, 7)) for each in restless))
        async with world.nobody_connects():
            await clients.change_all()
        await clients.equals_the_table()


async def come_and_go(each: Replica, pairs: int, numbers: random.Random) -> None:
    """Subscribe and unsubscribe without waiting for the answers in between."""
    for _ in range(pairs // 10):
        answers = []
        for key in numbers.sample(range(1, ROWS + 1), 10):
            answers.append(each.request("subscribe_instance", key, pk=key))
            answers.append(each.request("unsubscribe_instance", key, pk=key))
        for answer in await asyncio.wait_for(asyncio.gather(*answers), 60):
            assert answer["response_status"] in {201, 204, 404}, answer


@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
async def test_vanished(world: World, kind: str, tmp_path: Path) -> None:
    """Sockets that end by a reset, or amid a request, leave nothing; after the last one no connection is left."""
    name = f"vanishing-{kind}"
    with serving(kind, world.environ(application_name=name), tmp_path) as server:
        async with fleet(world, server, 12) as clients:
            with writing(world.parameters):
                await clients.has_frames()
                gone, clients.replicas = clients.replicas[:10], clients.replicas[10:]
                for each in gone[:5]:
                    each.vanish()
                for each in gone[5:]:
                    each.leave()
                watched = sum(each.subscriptions for each in clients.replicas)
                await eventually(lambda: has_subscriptions(clients, watched))
                await clients.has_frames()
            await clients.change_all()
            await clients.equals_the_table()
            for each in clients.replicas:
                each.vanish()
            await eventually(lambda: has_subscriptions(clients, 0))
            await eventually(lambda: nothing_is_left(world, name))
            assert not (await clients.state())["running"]
            async with replica(server.url()) as late:
                await late.subscribe([1])
        said = server.process.output()
        assert " ERROR " not in said, said


async def has_subscriptions(clients: Fleet, count: int) -> bool:
    """Tell whether the process has so many subscriptions."""
    return bool((await clients.state())["subscriptions"] == count)


async def nothing_is_left(world: World, name: str) -> bool:
    """Tell whether a server has no connection to the database."""
    query = "SELECT 1 FROM pg_stat_activity WHERE application_name = %s"
    return not await world.execute(query, name)


async def test_does_not_read(world: World, tmp_path: Path) -> None:
    """A client that doesn't read costs bounded memory, holds nobody back, and catches up."""
    rounds = 400
    wide = "UPDATE project_item SET rank = rank + 1, name = repeat(chr(128512), 200)"
    async with contextlib.AsyncExitStack() as stack:
        server = stack.enter_context(serving("uvicorn", world.environ(), tmp_path))
        lazily = connect(server.url(), **OPTIONS, max_queue=1, compression=None)
        lazy = Replica(await stack.enter_async_context(lazily))
        for key in range(1, ROWS + 1):
            content = {"action": "subscribe_instance", "pk": key, "request_id": key}
            await lazy.connection.send(json.dumps(content))
            assert json.loads(await lazy.connection.recv())["response_status"] == 201
            lazy.rows[key] = None
        clients = await stack.enter_async_context(fleet(world, server, 1))
        (reading,) = clients.replicas
        before = memory(server)
        for number in range(rounds):
            await world.execute(wide)
            rank = number + 1
            await reading.until(
                lambda: all(row and row["rank"] == rank for row in reading.rows.values())  # noqa: B023
            )
        sent = rounds * ROWS * 200 * 12
        grown = memory(server) - before
        assert grown < sent / 4, f"{grown} bytes for {sent} bytes of frames"
        follow = asyncio.create_task(lazy.follow())
        clients.replicas.append(lazy)
        await clients.equals_the_table()
        assert lazy.told.total() < rounds * ROWS / 2
        follow.cancel()


def memory(server: Server) -> int:
    """Return the resident memory of a server's process, in bytes."""
    text = Path(f"/proc/{server.process.popen.pid}/statm").read_text()
    return int(text.split()[1]) * 4096
