"""The same against djangochannelsrestframework, where that is at its best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.reading.client import allow_descriptors, sockets
from benchmarks.reading.databases import databases
from benchmarks.reading.servers import DCRF, OURS, serving
from benchmarks.results import Row, median

if TYPE_CHECKING:
    from benchmarks.reading.client import Sockets

SOCKETS = 100


@dataclass
class Side:
    """One of the two: the watching sockets, and one by which its own process is told to write."""

    watching: Sockets
    writing: Sockets

    def change(self, rank: int) -> list[float]:
        """Let the row be saved; return the milliseconds from the commit to each frame."""
        self.writing.all[0].send(pk=1, rank=rank)
        moments = self.watching.receive(len(self.watching.all))
        self.writing.receive(1)
        committed = self.writing.all[0].frame["committed"]
        return [(moment - committed) / 1e6 for moment in moments]

    def counters(self) -> dict[str, Any]:
        """Return what its process has counted."""
        self.writing.all[0].send(count=True)
        self.writing.receive(1)
        counted: dict[str, Any] = self.writing.all[0].frame
        return counted

    def per_change(self, rank: int) -> str:
        """Change once; return what that cost, the two queries of the save itself left out."""
        before = self.counters()
        self.change(rank)
        after = self.counters()
        queries = after["queries"] - before["queries"] - 2
        serializations = after["serializations"] - before["serializations"]
        return f"{queries} queries, {serializations} serializations"


def run(*, quick: bool) -> list[Row]:
    """Measure."""
    allow_descriptors()
    env = {"BENCHMARK_LAYER": "memory", "BENCHMARK_COUNT": "yes"}
    with (
        databases(2) as (first, second),
        serving(OURS, first, **env) as our_server,
        serving(DCRF, second, **env) as their_server,
        sockets(our_server.port, SOCKETS) as ours,
        sockets(their_server.port, SOCKETS) as theirs,
        sockets(our_server.port, 1, "/write/") as our_writer,
        sockets(their_server.port, 1, "/write/") as their_writer,
    ):
        ours.subscribe(lambda _: 1)
        theirs.subscribe(lambda _: 1)
        return _compare(Side(ours, our_writer), Side(theirs, their_writer), 10 if quick else 40)


def _compare(side: Side, other: Side, changes: int) -> list[Row]:
    latencies: list[float] = []
    others: list[float] = []
    for rank in range(1, changes + 4):
        here, there = side.change(rank), other.change(rank)
        if rank > 3:
            latencies += here
            others += there
    ours, theirs = median(latencies), median(others)
    counted, others_counted = side.per_change(changes + 4), other.per_change(changes + 4)
    work = f"1 change → {SOCKETS} sockets, against djangochannelsrestframework"
    return [
        Row(
            f"{work}, p50",
            f"{ours:.2f} ms",
            f"{theirs:.2f} ms",
            f"{theirs / ours:.1f} × lower",
            "≥ 8 × lower",
            theirs / ours >= 8,
            "its best case: layer in memory, saved by the ORM in its own process",
        ),
        Row(
            f"{work}, work",
            counted,
            others_counted,
            counted,
            "1 query, 1 serialization",
            counted == "1 queries, 1 serializations",
        ),
    ]
