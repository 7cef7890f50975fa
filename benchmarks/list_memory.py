"""Memory of a socket that has a list of a thousand rows, over one that watches a single row."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks.reading.client import allow_descriptors, sockets
from benchmarks.reading.databases import LISTED, databases
from benchmarks.reading.servers import OURS, serving
from benchmarks.results import Row

if TYPE_CHECKING:
    from benchmarks.reading.client import Sockets
    from benchmarks.reading.servers import Process

COUNT = 1_000
WARM = 100


def run(*, quick: bool) -> list[Row]:
    """Measure; each with a server of its own, for memory given back is not returned."""
    allow_descriptors()
    count = 300 if quick else COUNT
    with databases(1) as (database,):
        on_list = _per_socket(database, count, lists=True)
        on_row = _per_socket(database, count, lists=False)
    over = (on_list - on_row) / 1024
    return [
        Row(
            f"memory of an idle socket with a list of {LISTED:,} rows, {count:,} sockets",
            f"{on_list / 1024:.1f} KB",
            f"{on_row / 1024:.1f} KB with a row",
            f"+ {over:.1f} KB",
            "≤ 5 KB",
            over <= 5,
        )
    ]


def _per_socket(database: dict[str, object], count: int, *, lists: bool) -> float:
    def subscribe(some: Sockets) -> None:
        if lists:
            some.ask_each(lambda _: {})
        else:
            some.subscribe(lambda number: number % LISTED + 1)

    with (
        serving(OURS, database) as server,
        sockets(server.port, WARM, "/books/") as warm,
    ):
        subscribe(warm)
        before = _settled(server)
        with sockets(server.port, count, "/books/") as many:
            subscribe(many)
            return (_settled(server) - before) / count


def _settled(server: Process) -> int:
    """Return the memory once nothing is done any more."""
    time.sleep(1)
    return server.memory()
