"""A client that doesn't read: what it costs the server while the row goes on changing."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from benchmarks.reading.client import Connection, sockets
from benchmarks.reading.databases import databases
from benchmarks.reading.servers import OURS, serving
from benchmarks.reading.writing import Writer
from benchmarks.results import Row

if TYPE_CHECKING:
    import socket

SIZE = 20_000  # bytes of a frame

_GROW = f"UPDATE reading_item SET rank = %s, name = repeat('x', {SIZE}) WHERE id = 1"


def run(*, quick: bool) -> list[Row]:
    """Measure."""
    changes = 500 if quick else 2_000
    with databases(1) as (database,):
        return [_case(database, server, changes) for server in ("uvicorn", "daphne")]


def _case(database: dict[str, object], name: str, changes: int) -> Row:
    with (
        serving(OURS, database, server=name) as server,
        sockets(server.port, 1) as reading,
        contextlib.closing(Writer(database)) as writer,
        contextlib.closing(_not_reading(server.port)),
    ):
        reading.subscribe(lambda _: 1)
        for _ in range(50):
            writer.change(_GROW)
            reading.receive(1)
        before = server.memory()
        for _ in range(changes):
            writer.change(_GROW)
            reading.receive(1)
        grown = (server.memory() - before) / 2**20
    sent = changes * SIZE / 2**20
    return Row(
        f"{changes:,} changes while a client doesn't read, {name}",
        f"{grown:.1f} MB",
        f"{sent:.0f} MB of frames",
        f"{grown:.1f} MB",
        "< 4 MB" if name == "uvicorn" else "none",
        grown < 4 if name == "uvicorn" else None,
        "" if name == "uvicorn" else "its send never waits, so that all that is sent is kept",
    )


def _not_reading(port: int) -> socket.socket:
    connection = Connection(port, "/feed/")
    connection.finish_opening()
    connection.send(action="subscribe_instance", pk=1, request_id=1)
    connection.raw.setblocking(True)
    connection.raw.recv(65536)
    return connection.raw
