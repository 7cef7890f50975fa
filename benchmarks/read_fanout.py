"""One change to N sockets, from the commit to the frame received, against the bare server."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.reading.client import allow_descriptors, sockets
from benchmarks.reading.databases import databases
from benchmarks.reading.servers import BARE, OURS, serving
from benchmarks.reading.writing import ONE, Writer
from benchmarks.results import Row, at_most, median, percentile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.reading.client import Sockets

#: Sockets, changes, and the ratio that should not be exceeded.
CASES = ((1, 1_500, 1.4), (100, 400, 1.15), (500, 150, 1.08))


@dataclass
class Side:
    """One of the two that are compared."""

    writer: Writer
    sockets: Sockets

    def change(self, query: str = ONE, frames: int | None = None) -> list[float]:
        """Change once; return the milliseconds from the commit to each frame."""
        committed = self.writer.change(query)
        count = len(self.sockets.all) if frames is None else frames
        return [(moment - committed) / 1e6 for moment in self.sockets.receive(count)]


@contextlib.contextmanager
def sides(
    ports: tuple[int, int], writers: tuple[Writer, Writer], count: int, key: Callable[[int], int]
) -> Iterator[tuple[Side, Side]]:
    """Open the sockets of both sides for a ``with`` block."""
    with sockets(ports[0], count) as ours, sockets(ports[1], count) as bare:
        ours.subscribe(key)
        bare.subscribe(key)
        yield Side(writers[0], ours), Side(writers[1], bare)


@contextlib.contextmanager
def both() -> Iterator[tuple[tuple[int, int], tuple[Writer, Writer]]]:
    """Run both servers, each on a database of its own, and a writer for each."""
    allow_descriptors()
    with (
        databases(2) as (first, second),
        serving(OURS, first) as ours,
        serving(BARE, second) as bare,
        contextlib.closing(Writer(first)) as writer,
        contextlib.closing(Writer(second)) as other_writer,
    ):
        yield (ours.port, bare.port), (writer, other_writer)


def run(*, quick: bool) -> list[Row]:
    """Measure."""
    with both() as (ports, writers):
        return [
            _case(ports, writers, count, changes // 8 if quick else changes, target)
            for count, changes, target in CASES
        ]


def _case(
    ports: tuple[int, int], writers: tuple[Writer, Writer], count: int, changes: int, target: float
) -> Row:
    ours: list[float] = []
    bare: list[float] = []
    with sides(ports, writers, count, lambda _: 1) as (side, other):
        for warm_up in (True, False):
            ours.clear()
            bare.clear()
            # One change here, one there: what else the machine does meets both.
            for _ in range(20 if warm_up else changes):
                ours += side.change()
                bare += other.change()
    note = f"p99 {percentile(ours, 99):.2f} and {percentile(bare, 99):.2f} ms"
    work = f"1 change → {count} socket{'s' * (count > 1)}, commit to frame, p50"
    return at_most(work, median(ours), median(bare), target, "ms", note)
