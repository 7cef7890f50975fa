"""A thousand users, each with a queryset of his own, who all watch one busy row."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.reading.client import Sockets, allow_descriptors, sockets
from benchmarks.reading.databases import USERS, databases
from benchmarks.reading.servers import OURS, serving
from benchmarks.reading.writing import Writer
from benchmarks.results import Row, median, percentile

RATE = 10  # changes a second


def run(*, quick: bool) -> list[Row]:
    """Measure."""
    allow_descriptors()
    users, seconds = (200, 2) if quick else (USERS, 10)
    with (
        databases(1) as (database,),
        serving(OURS, database, BENCHMARK_COUNT="yes") as server,
        sockets(server.port, users, lambda number: f"/own/?user={number + 1}") as watching,
        sockets(server.port, 1, "/write/") as asking,
    ):
        watching.subscribe(lambda _: 1)
        writer = Writer(database)
        writer.change()
        watching.receive(users)
        before, cpu = _counters(asking), server.cpu()
        latencies, frames = _at_a_rate(watching, writer, RATE * seconds)
        after, cpu = _counters(asking), server.cpu() - cpu
        writer.close()
    changes = RATE * seconds
    queries = (after["queries"] - before["queries"]) / changes
    serializations = (after["serializations"] - before["serializations"]) / changes
    p95 = percentile(latencies, 95)
    work = f"{users:,} users with a queryset each, {RATE} changes/s"
    return [
        Row(
            f"{work}, p95",
            f"{p95:.0f} ms",
            f"p50 {median(latencies):.0f} ms",
            f"{p95:.0f} ms",
            "< 300 ms",
            p95 < 300,
            f"{frames / changes / users:.2f} frames per user and change, "
            f"{cpu / seconds:.0%} of a CPU",
        ),
        Row(
            f"{work}, queries per 100 users and change",
            f"{queries * 100 / users:.2f}",
            "100",
            f"{queries * 100 / users:.2f}",
            "≤ 1",
            queries * 100 <= users,
            f"{serializations:.1f} serializations per change",
        ),
    ]


def _at_a_rate(watching: Sockets, writer: Writer, changes: int) -> tuple[list[float], int]:
    """Change at a steady rate; return how long each change took to each socket, in milliseconds."""
    committed: dict[int, int] = {}
    latencies: list[float] = []
    shown = dict.fromkeys(watching.all, writer.rank)
    frames = 0
    next_at = time.monotonic()
    while len(latencies) < changes * len(watching.all):
        if len(committed) < changes and time.monotonic() >= next_at:
            next_at += 1 / RATE
            moment = writer.change()
            committed[writer.rank] = moment
        for connection, moment in watching.poll(0.01):
            frames += 1
            rank = connection.frame["data"]["rank"]
            # A frame that shows a later change has brought the ones before it as well.
            news = range(shown[connection] + 1, rank + 1)
            latencies += [(moment - committed[earlier]) / 1e6 for earlier in news]
            shown[connection] = rank
    return latencies, frames


def _counters(asking: Sockets) -> dict[str, Any]:
    asking.all[0].send(count=True)
    asking.receive(1)
    counted: dict[str, Any] = asking.all[0].frame
    return counted
