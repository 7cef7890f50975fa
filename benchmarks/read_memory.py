"""Memory of a subscribed socket that is idle, over the same socket on a plain consumer."""

from __future__ import annotations

import time

from benchmarks.reading.client import allow_descriptors, sockets
from benchmarks.reading.databases import databases
from benchmarks.reading.servers import OURS, serving
from benchmarks.results import Row

COUNTS = (1_000, 10_000)
WARM = 100


def run(*, quick: bool) -> list[Row]:
    """Measure; each number with servers of its own, for memory given back is not returned."""
    limit = allow_descriptors()
    with databases(1) as (database,):
        return [
            _case(database, count)
            for count in (COUNTS[:1] if quick else COUNTS)
            if count + 500 < limit
        ]


def _case(database: dict[str, object], count: int) -> Row:
    ours, plain = (_per_socket(database, count, path) for path in ("/feed/", "/plain/"))
    over = (ours - plain) / 1024
    return Row(
        f"memory of a subscribed socket, {count:,} sockets, each on a row of its own",
        f"{ours / 1024:.1f} KB",
        f"{plain / 1024:.1f} KB",
        f"+ {over:.1f} KB",
        "≤ 5 KB",
        over <= 5,
    )


def _per_socket(database: dict[str, object], count: int, path: str) -> float:
    with serving(OURS, database) as server, sockets(server.port, WARM, path) as warm:
        warm.subscribe(lambda number: number + 1)
        before = _settled(server)
        with sockets(server.port, count, path) as many:
            many.subscribe(lambda number: number % 10_000 + 1)
            return (_settled(server) - before) / count


def _settled(server: object) -> int:
    """Return the memory once nothing is done any more."""
    time.sleep(1)
    return server.memory()  # type: ignore[attr-defined,no-any-return]
