"""A token is never ahead of what the client was told: it may go away at any frame, and come back."""

from __future__ import annotations

import asyncio
import random
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgobserve.listen.confirm import Confirmer
from pgobserve.runtime import runtime
from tests.integration.conftest import parameters
from tests.integration.deliver.conftest import run_sql, settled
from tests.integration.deliver.replica import Replica
from tests.integration.deliver.resuming import in_table
from tests.integration.deliver.test_list import RankedConsumer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Connect = Callable[..., Any]

#: Frames of the run, each of which is a place to stop at.
FRAMES = 60

INSERT = (
    "INSERT INTO project_item (id, name, rank) VALUES (%s, 'new', %s)"
    " ON CONFLICT (id) DO UPDATE SET name = 'again', rank = excluded.rank"
)

FILL = "INSERT INTO project_item SELECT n, 'old', n %% 10 FROM generate_series(0, %s) n"

#: So few rows that each is written often, and so many that most are written once.
FEW, MANY = 12, 1000


def _write(connection: psycopg.Connection[Any], chance: random.Random, rows: int) -> None:
    """Do something to a row: with a rank of 5 or more it is on the list."""
    key, rank = chance.randrange(rows), chance.randrange(10)
    statement, params = chance.choice(
        [
            ("UPDATE project_item SET name = %s WHERE id = %s", (str(chance.random()), key)),
            ("UPDATE project_item SET rank = %s WHERE id = %s", (rank, key)),
            ("DELETE FROM project_item WHERE id = %s", (key,)),
            (
                INSERT,
                (key, rank),
            ),
            ("SELECT * FROM project_item WHERE id = %s FOR UPDATE", (key,)),
        ]
    )
    if chance.random() < 0.3:
        with connection.transaction(force_rollback=chance.random() < 0.3):
            connection.execute(statement, params)
    else:
        connection.execute(statement, params)


def _keep_writing(stop: threading.Event, seed: int, rows: int) -> None:
    chance = random.Random(seed)
    with psycopg.connect(**parameters(), autocommit=True) as connection:
        while not stop.wait(0.002):
            try:
                with connection.transaction(force_rollback=chance.random() < 0.1):
                    for _ in range(chance.randrange(1, 4)):
                        _write(connection, chance, rows)
                        # Transactions overlap, and end in another order than they began.
                        stop.wait(chance.choice((0, 0, 0.01)))
            except psycopg.errors.DeadlockDetected:
                pass


@contextmanager
def writers(rows: int) -> Iterator[None]:
    """Write all the time, with several connections."""
    stop = threading.Event()
    threads = [threading.Thread(target=_keep_writing, args=(stop, n, rows)) for n in range(3)]
    for each in threads:
        each.start()
    try:
        yield
    finally:
        stop.set()
        for each in threads:
            each.join()


@pytest.fixture
def confirms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens advance all the time."""
    monkeypatch.setattr(runtime, "Confirmer", partial(Confirmer, period=0.02))


async def _stops(connect: Connect) -> list[tuple[dict[Any, Any], str]]:
    """Return what a client has, and its token, after each frame of a run of changes."""
    replica = await Replica(connect, RankedConsumer, rank=5).come()
    stops = []
    while len(stops) < FRAMES:
        assert replica.token is not None
        stops.append((dict(replica.rows), replica.token))
        replica.take(await replica.socket.receive())
    await replica.leave()
    assert len({token for _, token in stops}) > 3, "tokens don't advance"
    return stops


BOTH = pytest.mark.parametrize(
    ("transport", "keys"),
    [("notify", True), ("outbox", True), ("outbox", False)],
    indirect=["transport"],
)


@BOTH
async def test_stops_anywhere(
    connect: Connect, observed: None, confirms: None, transport: str, keys: bool
) -> None:
    """Whatever frame was the last, who comes back while others write ends with what is true."""
    replicas = []
    with writers(FEW):
        for rows, token in await _stops(connect):
            replicas.append(await _at(connect, rows, token).come_back(keys=keys))
        # Some go away again, in the middle of what they are told.
        for replica in replicas[::3]:
            replica.take(await replica.socket.receive())
            await replica.leave()
            await replica.come_back(keys=keys)

    await _all_are_right(replicas)


@BOTH
async def test_stops_anywhere_and_nothing_follows(
    connect: Connect, observed: None, confirms: None, transport: str, keys: bool
) -> None:
    """Whatever frame was the last, what was missed is told, though nobody writes any more."""
    await run_sql(FILL, MANY - 1)
    with writers(MANY):
        stops = await _stops(connect)

    await _all_are_right(
        [await _at(connect, rows, token).come_back(keys=keys) for rows, token in stops]
    )


def _at(connect: Connect, rows: dict[Any, Any], token: str) -> Replica:
    replica = Replica(connect, RankedConsumer, rank=5)
    replica.rows, replica.token = rows, token
    return replica


async def _all_are_right(replicas: list[Replica]) -> None:
    await settled()
    expected = await in_table(rank__gte=5)
    for replica in replicas:
        while not await replica.socket.communicator.receive_nothing(timeout=0.02, interval=0.01):
            replica.take(await replica.socket.receive())

        assert replica.rows == expected
    assert not any(replica.resets for replica in replicas)


@pytest.mark.parametrize("transport", ["notify", "outbox"], indirect=True)
async def test_advances(connect: Connect, observed: None, confirms: None, transport: str) -> None:
    """Who comes back and has missed nothing is given a token that is newer than his own."""
    replica = await Replica(connect, RankedConsumer, rank=5).come()
    first = replica.token
    await replica.leave()
    await asyncio.to_thread(_write_elsewhere)
    await replica.come_back()

    assert replica.token != first
    assert await replica.socket.has_nothing()


def _write_elsewhere() -> None:
    with psycopg.connect(**parameters(), autocommit=True) as connection:
        connection.execute("INSERT INTO project_item (name, rank) VALUES ('n', 0)")
