"""Writers that know nothing of anybody: threads that change rows until they are told to stop."""

from __future__ import annotations

import contextlib
import random
import threading
from typing import TYPE_CHECKING, Any

import psycopg

from tests.acceptance.faults.world import ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Seconds between two writes of one writer.
PAUSE = 0.01


class Writer(threading.Thread):
    """
    Changes, deletes and puts back rows, in transactions of one to three statements.

    Attributes:
        written: Transactions committed.
    """

    def __init__(self, parameters: Mapping[str, Any], seed: int, stop: threading.Event) -> None:
        super().__init__(name=f"writer-{seed}", daemon=True)
        self.written = 0
        self._parameters = parameters
        self._random = random.Random(seed)
        self._stop_asked = stop

    def run(self) -> None:
        """Write until told to stop; a database that is away is tried again."""
        while not self._stop_asked.wait(PAUSE):
            with (
                contextlib.suppress(psycopg.OperationalError),
                psycopg.connect(**self._parameters) as connection,
            ):
                while not self._stop_asked.wait(PAUSE):
                    self._transaction(connection)

    def _transaction(self, connection: psycopg.Connection[Any]) -> None:
        # In the order of the keys, so that two writers never wait for each other in a circle.
        try:
            for key in sorted(self._random.sample(range(1, ROWS + 1), self._random.randint(1, 3))):
                self._write(connection, key)
        except psycopg.errors.DeadlockDetected:
            connection.rollback()
            return
        if self._random.random() < 0.1:
            connection.rollback()
        else:
            connection.commit()
            self.written += 1

    def _write(self, connection: psycopg.Connection[Any], key: int) -> None:
        chance = self._random.random()
        if chance < 0.1:
            connection.execute("DELETE FROM project_item WHERE id = %s", [key])
        elif chance < 0.25:
            connection.execute(
                "INSERT INTO project_item (id, name, rank) VALUES (%s, 'back', 0) "
                "ON CONFLICT (id) DO UPDATE SET name = project_item.name",
                [key],
            )
        else:
            connection.execute("UPDATE project_item SET rank = rank + 1 WHERE id = %s", [key])


@contextlib.contextmanager
def writing(parameters: Mapping[str, Any], count: int = 2) -> Iterator[list[Writer]]:
    """Let threads write for the length of a ``with`` block."""
    stop = threading.Event()
    writers = [Writer(parameters, seed, stop) for seed in range(count)]
    for writer in writers:
        writer.start()
    try:
        yield writers
    finally:
        stop.set()
        for writer in writers:
            writer.join()
