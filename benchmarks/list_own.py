"""A thousand subscribers, each with a list of his own by a filter of his own."""

from __future__ import annotations

from typing import Any

from benchmarks.reading.client import allow_descriptors, sockets
from benchmarks.reading.databases import BOOKS_EACH, COMMON, USERS, databases
from benchmarks.reading.lists import change_at, counted
from benchmarks.reading.servers import OURS, serving
from benchmarks.results import Row, median, percentile

RATE = 10  # changes a second


def run(*, quick: bool) -> list[Row]:
    """Measure with Python's own thresholds of the garbage collector, and with higher ones."""
    allow_descriptors()
    with databases(1) as (database,):
        return [
            *_measured(database, "", quick=quick),
            *_measured(
                database, ", collecting garbage less often", quick=quick, BENCHMARK_GC="yes"
            ),
        ]


def _measured(database: dict[str, Any], how: str, *, quick: bool, **env: str) -> list[Row]:
    """Measure changes of a row that is on one list, and of a row that is on all."""
    users, seconds = (200, 2) if quick else (USERS, 10)
    on_one = [number * 389 % users * BOOKS_EACH + 1 for number in range(RATE * seconds)]
    on_all = [COMMON + 1 + number for number in range(BOOKS_EACH)]
    with (
        serving(OURS, database, BENCHMARK_COUNT="yes", **env) as server,
        sockets(server.port, users, "/books/own/") as watching,
        sockets(server.port, 1, "/write/") as asking,
    ):
        watching.ask_each(lambda number: {"user": number + 1})
        rows = []
        for what, ids in (("on one list", on_one), ("on all lists", on_all)):
            change_at(watching, database, seconds=1, rate=RATE, ids=ids)
            before, cpu = counted(asking), server.cpu()
            seen = change_at(watching, database, seconds=seconds, rate=RATE, ids=ids)
            after, cpu = counted(asking), (server.cpu() - cpu) / seen.seconds
            p95 = percentile(seen.ages, 95)
            changes = RATE * seconds
            queries = (after["queries"] - before["queries"]) / changes * 100 / users
            work = f"{users:,} lists of their own, {RATE} changes/s of rows {what}{how}"
            rows += [
                Row(
                    f"{work}, p95",
                    f"{p95:.0f} ms",
                    f"p50 {median(seen.ages):.0f} ms",
                    f"{p95:.0f} ms",
                    "< 300 ms",
                    p95 < 300,
                    f"{seen.frames / changes:,.1f} frames per change, {cpu:.0%} of a CPU",
                ),
                Row(
                    f"{work}, queries per 100 subscribers and change",
                    f"{queries:.2f}",
                    "100",
                    f"{queries:.2f}",
                    "≤ 1",
                    queries <= 1,
                ),
            ]
    return rows
