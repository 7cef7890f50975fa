"""The outbox under load and faults: nothing is lost, and for each row nothing is out of order."""

from __future__ import annotations

import asyncio
import contextlib
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgobserve.demo import postgres
from pgobserve.wire import OUTBOX_WAKE_UP
from tests.acceptance import server as processes
from tests.acceptance.faults import chains
from tests.acceptance.faults import world as worlds
from tests.acceptance.faults.replica import fleet
from tests.acceptance.faults.writers import writing as simple_writing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from tests.acceptance.faults.chains import State, Step

#: Rows are kept for so long, so that slots are emptied again and again while a test runs.
RETENTION = 6
SETTINGS = {"TRANSPORT": "outbox", "OUTBOX_RETENTION": RETENTION}
TABLE = "SELECT id, name, rank FROM project_item"
LONG = "INSERT INTO project_item (id, name, rank) VALUES (1000, %s, 0)"
ROTATIONS = "SELECT rotated_at, horizon::text FROM pgobserve.outbox_state"


class Boxed(worlds.World):
    """A PostgreSQL whose table writes to the outbox."""

    def environ(self, **changes: Any) -> dict[str, str]:
        """Return the environment of a process; it connects as the owner, who may read all."""
        given = super().environ(**{**self.parameters, **changes})
        return given | {"PGOBSERVE_FAULTS": json.dumps(SETTINGS)}

    async def states(self) -> dict[int, State]:
        """Return what is in each row."""
        return {row[0]: row[1:] for row in await self.execute(TABLE)}


@pytest.fixture(scope="module")
def shared_box() -> Iterator[Boxed]:
    """A PostgreSQL of these tests' own."""
    with postgres.embedded(("fsync=off", "full_page_writes=off")) as server:
        made = Boxed(server)
        made.prepare()
        yield made


@pytest.fixture
async def box(shared_box: Boxed) -> Boxed:
    """The same with its rows as they were."""
    await shared_box.execute(worlds.RESET)
    return shared_box


class Worker:
    """A process that handles events, that can be killed and started again."""

    def __init__(self, box: Boxed, log: Path, number: int, kind: str = "worker") -> None:
        self._kind = kind
        self._box = box
        self._log = log
        self._number = number
        self._stack = contextlib.ExitStack()
        self.process: processes.Process

    def start(self) -> None:
        """Start it."""
        self.process = self._stack.enter_context(
            processes.process(
                f"{self._kind}-{self._number}",
                ["-m", "tests.acceptance.faults.worker", self._kind, str(self._log)],
                self._log.parent,
                self._box.environ(),
            )
        )

    def kill(self) -> None:
        """Kill it, whatever it does."""
        self.process.popen.kill()
        self.process.popen.wait()

    def close(self) -> None:
        """End it."""
        self.kill()
        self._stack.close()


def handled(log: Path) -> tuple[list[Step], list[str], set[int]]:
    """Return what the workers handled, resets, and the processes that did."""
    lines = [json.loads(line) for line in log.read_bytes().split(b"\n")[:-1]]
    steps = [
        (each["key"], each["xid"], _state(each["old"]), _state(each["new"]))
        for each in lines
        if "key" in each
    ]
    resets = [each["reset"] for each in lines if "reset" in each]
    return steps, resets, {each["pid"] for each in lines}


def _state(of: Sequence[Any] | None) -> State:
    return None if of is None else tuple(of)


async def begun(box: Boxed) -> bool:
    """Tell whether the workers' cursor is kept."""
    return bool(await box.execute("SELECT 1 FROM pgobserve.outbox_cursor WHERE name = 'chain'"))


@contextlib.asynccontextmanager
async def long_transaction(box: Boxed, name: str) -> AsyncIterator[None]:
    """Keep a transaction open that writes first and last."""
    async with await psycopg.AsyncConnection.connect(**box.parameters) as connection:
        await connection.execute(LONG, [name])
        yield
        await connection.execute("UPDATE project_item SET rank = rank + 1 WHERE id = 1000")


@pytest.mark.parametrize(
    "seconds", [10, pytest.param(30, marks=[pytest.mark.slow, pytest.mark.timeout(300)])]
)
@pytest.mark.timeout(300)
async def test_workers(box: Boxed, tmp_path: Path, seconds: int) -> None:
    """Workers that are killed, cut off and crashed under handle every change, in order."""
    log = tmp_path / "handled"
    log.touch()
    await box.execute("DELETE FROM pgobserve.outbox_cursor")
    workers = [Worker(box, log, number) for number in range(2)]
    with contextlib.ExitStack() as stack:
        for worker in workers:
            stack.callback(worker.close)
            worker.start()
        await worlds.eventually(partial(begun, box))
        begin = await box.states()
        rotations: set[tuple[Any, ...]] = set()

        async def rotated() -> bool:
            rotations.update(await box.execute(ROTATIONS))
            return len({at for at, _ in rotations}) > 1

        with chains.writing(box.parameters) as writers:
            await _some_time_later(log, 100)
            await asyncio.to_thread(box.restart)
            async with long_transaction(box, "long"):
                for second in range(seconds):
                    await asyncio.sleep(1)
                    await box.terminate_listeners()
                    await rotated()
                    if second % 2:
                        _kill_the_one_that_works(workers, log)
        await box.execute("UPDATE project_item SET name = 'end', rank = rank + 1")
        end = await box.states()
        await worlds.eventually(partial(_has, log, set(end.values())))
        await worlds.eventually(rotated)
        await _rests(log)
    steps, resets, pids = handled(log)
    first, again = chains.first_ones(steps)
    written = sum(writer.written for writer in writers)
    print(f"{len(first)} events of {written} transactions, {again} again, by {len(pids)} processes")

    assert resets == []
    assert chains.ends(first, begin) == end
    assert written > 100 * seconds / 10
    assert len(pids) > 2


def _kill_the_one_that_works(workers: Sequence[Worker], log: Path) -> None:
    """Kill the process that handled the last event, in the middle of the next one; start another."""
    last = json.loads(log.read_bytes().split(b"\n")[-2])["pid"]
    for worker in workers:
        if worker.process.popen.pid == last:
            worker.kill()
            worker.start()


async def _some_time_later(log: Path, lines: int) -> None:
    async def enough() -> bool:
        return len(handled(log)[0]) >= lines

    await worlds.eventually(enough)


async def _has(log: Path, states: set[Any]) -> bool:
    return states <= {new for _, _, _, new in handled(log)[0]}


async def _rests(log: Path) -> None:
    """Wait until nothing is handled for a while."""
    before = -1
    while (now := len(handled(log)[0])) != before:
        before = now
        await asyncio.sleep(0.5)


@pytest.mark.timeout(300)
async def test_followers(box: Boxed, tmp_path: Path) -> None:
    """Who follows in a process whose connections are cut under it hears everything, once."""
    log = tmp_path / "heard"
    log.touch()
    follower = Worker(box, log, 0, "follower")
    with contextlib.ExitStack() as stack:
        stack.callback(follower.close)
        follower.start()
        await worlds.eventually(lambda: _begun(log))
        begin = await box.states()
        with chains.writing(box.parameters) as writers:
            for second in range(8):
                await asyncio.sleep(1)
                if second == 4:
                    await asyncio.to_thread(box.restart)
                await box.terminate_listeners()
        await box.execute("UPDATE project_item SET name = 'end', rank = rank + 1")
        end = await box.states()
        await worlds.eventually(partial(_has, log, set(end.values())))
    steps, resets, _ = handled(log)

    assert resets == []
    assert chains.ends(steps, begin) == end
    assert sum(writer.written for writer in writers) > 100


@pytest.mark.timeout(300)
async def test_transaction_ids_are_given_again(box: Boxed, tmp_path: Path) -> None:
    """What a transaction writes whose id a rolled-back one had before a crash is heard, too."""
    log = tmp_path / "heard"
    log.touch()
    follower = Worker(box, log, 0, "follower")
    with contextlib.ExitStack() as stack:
        stack.callback(follower.close)
        follower.start()
        await worlds.eventually(lambda: _begun(log))
        await box.execute("UPDATE project_item SET name = 'before' WHERE id = 1")
        await worlds.eventually(partial(_has, log, {("before", 0)}))
        async with await psycopg.AsyncConnection.connect(**box.parameters) as connection:
            for _ in range(20):
                await connection.execute("UPDATE project_item SET name = 'never' WHERE id = 2")
                await connection.rollback()
            # Long enough for the reader to look once more, and not for the WAL to be written.
            await connection.execute("SELECT pg_notify('pgobserve', %s)", [OUTBOX_WAKE_UP])
            await connection.commit()
            for _ in range(20):
                await connection.execute("UPDATE project_item SET name = 'never' WHERE id = 2")
                await connection.rollback()
        await asyncio.sleep(0.05)
        await asyncio.to_thread(box.restart)
        for number in range(40):
            await box.execute(
                f"UPDATE project_item SET name = 'after', rank = {number} WHERE id = 3"
            )
        await worlds.eventually(partial(_has, log, {("after", n) for n in range(40)}))
        resets = handled(log)[1]

    assert resets == []


async def _begun(log: Path) -> bool:
    return b"begun" in log.read_bytes()  # noqa: ASYNC240 (a file of the tests)


@pytest.fixture(scope="module")
def box_server(
    shared_box: Boxed, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[worlds.Server]:
    """A Daphne that serves watched rows."""
    directory = tmp_path_factory.mktemp("outbox")
    with worlds.serving("daphne", shared_box.environ(), directory) as server:
        yield server


async def test_sockets(box: Boxed, box_server: worlds.Server) -> None:
    """Rows that are watched over the outbox are what the table has, after all faults."""
    async with fleet(box, box_server) as clients:
        with simple_writing(box.parameters):
            for _ in range(3):
                await clients.has_frames()
                await box.terminate_listeners()
            await asyncio.to_thread(box.restart)
            await clients.has_frames()
        await clients.equals_the_table()
        await box.terminate_listeners()
        await clients.change_all()

        await clients.equals_the_table()
