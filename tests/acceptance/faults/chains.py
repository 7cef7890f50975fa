"""
Writers whose every write makes a state that there never was, and what their events must add up to.

Each event leads from a state of its row to the next one. So nothing is missing, and nothing is out
of order, if the events of a row, each where it came first, make one chain from the row as it was in
the beginning to the row as it is in the end.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

ROWS = 40

State = tuple[Any, ...] | None
Step = tuple[int, int, State, State]


class ChainWriter(threading.Thread):
    """
    Writes in transactions of random length, of which a tenth is rolled back, with savepoints.

    Attributes:
        written: Transactions committed.
    """

    def __init__(self, parameters: Mapping[str, Any], seed: int, stop: threading.Event) -> None:
        super().__init__(name=f"chain-writer-{seed}", daemon=True)
        self.written = 0
        self._parameters = parameters
        self._random = random.Random(seed)
        self._stop_asked = stop
        self._states = (f"{seed}.{number}" for number in itertools.count())

    def run(self) -> None:
        """Write until told to stop; a database that is away is tried again."""
        while not self._stop_asked.wait(0.01):
            with (
                contextlib.suppress(psycopg.OperationalError),
                psycopg.connect(**self._parameters) as connection,
            ):
                while not self._stop_asked.is_set():
                    try:
                        self._transaction(connection)
                    except psycopg.errors.DeadlockDetected:
                        connection.rollback()

    def _transaction(self, connection: psycopg.Connection[Any]) -> None:
        draw = self._random
        for key in sorted(draw.sample(range(1, ROWS + 1), draw.randint(1, 4))):
            chance = draw.random()
            if chance < 0.3:
                connection.execute("SAVEPOINT here")
            self._write(connection, key)
            if chance < 0.15:
                connection.execute("ROLLBACK TO here")
            self._stop_asked.wait(0.3 if draw.random() < 0.02 else draw.expovariate(200))
        if draw.random() < 0.1:
            connection.rollback()
        else:
            connection.commit()
            self.written += 1

    def _write(self, connection: psycopg.Connection[Any], key: int) -> None:
        name = next(self._states)
        if self._random.random() < 0.1:
            connection.execute("DELETE FROM project_item WHERE id = %s", [key])
        else:
            connection.execute(
                "INSERT INTO project_item AS i (id, name, rank) VALUES (%s, %s, 0) "
                "ON CONFLICT (id) DO UPDATE SET name = excluded.name, rank = i.rank + 1",
                [key, name],
            )


@contextlib.contextmanager
def writing(parameters: Mapping[str, Any], count: int = 8) -> Iterator[list[ChainWriter]]:
    """Let threads write for the length of a ``with`` block."""
    stop = threading.Event()
    writers = [ChainWriter(parameters, seed, stop) for seed in range(count)]
    for writer in writers:
        writer.start()
    try:
        yield writers
    finally:
        stop.set()
        for writer in writers:
            writer.join()


def first_ones(steps: Iterable[Step]) -> tuple[list[Step], int]:
    """Return each step where it came first, and how many came again."""
    every = list(steps)
    return list(dict.fromkeys(every)), len(every) - len(set(every))


def ends(steps: Iterable[Step], begin: Mapping[int, State]) -> dict[int, State]:
    """
    Follow the chains, and return where they end.

    Raises:
        AssertionError: One is broken.
    """
    now: dict[int, State] = defaultdict(lambda: None, begin)
    for key, xid, old, new in steps:
        assert now[key] == old, f"row {key} was {now[key]}, and {xid} led from {old} to {new}"
        now[key] = new
    return {key: state for key, state in now.items() if state is not None}
