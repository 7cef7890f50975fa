"""A thousand subscribers of one list of a thousand rows, against a bare server that sends it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from benchmarks.reading.client import allow_descriptors, sockets
from benchmarks.reading.databases import LISTED, databases
from benchmarks.reading.lists import change_at, counted
from benchmarks.reading.servers import BARE_LIST, OURS, serving
from benchmarks.results import Row, median, percentile

if TYPE_CHECKING:
    from typing import Any

    from benchmarks.reading.lists import Seen

SUBSCRIBERS = 1_000

#: Changes a second: one that can be followed, one that can't.
RATES = (10, 100)

#: Neighbours are far apart, so that rows are changed in no order that could help anybody.
IDS = [number * 389 % LISTED + 1 for number in range(LISTED)]


def run(*, quick: bool) -> list[Row]:
    """Measure each rate here and there."""
    allow_descriptors()
    count, seconds = (200, 2) if quick else (SUBSCRIBERS, 10)
    with databases(2) as (first, second):
        ours = _side(OURS, first, count, seconds)
        bare = _side(BARE_LIST, second, count, seconds)
    return [
        row
        for rate in RATES
        for row in _rows(f"{count:,} subscribers, {rate} changes/s", ours[rate], bare[rate])
    ]


def _side(
    application: str, database: dict[str, Any], count: int, seconds: float
) -> dict[int, tuple[Seen, float, dict[str, int]]]:
    """Return for each rate what was seen, the CPU used a second, and what was counted."""
    found = {}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(application, database, BENCHMARK_COUNT="yes"))
        watching = stack.enter_context(sockets(server.port, count, "/books/"))
        asking = (
            stack.enter_context(sockets(server.port, 1, "/write/")) if application == OURS else None
        )
        watching.ask_each(lambda _: {})
        sampled = watching.all[:: max(1, count // 100)]
        change_at(watching, database, seconds=1, rate=10, ids=IDS, sampled=sampled)
        for rate in RATES:
            before, cpu = counted(asking) if asking else {}, server.cpu()
            seen = change_at(
                watching, database, seconds=seconds, rate=rate, ids=IDS, sampled=sampled
            )
            used = (server.cpu() - cpu) / seen.seconds
            after = counted(asking) if asking else {}
            per_second = {k: round((after[k] - before[k]) / seen.seconds, 1) for k in after}
            found[rate] = (seen, used, per_second)
    return found


def _rows(
    work: str,
    ours: tuple[Seen, float, dict[str, int]],
    bare: tuple[Seen, float, dict[str, int]],
) -> list[Row]:
    (seen, cpu, per_second), (other, other_cpu, _) = ours, bare
    note = (
        f"p99 {percentile(seen.ages, 99):,.0f} and {percentile(other.ages, 99):,.0f} ms, "
        f"{cpu:.0%} and {other_cpu:.0%} of a CPU"
    )
    p50, other_p50 = median(seen.ages), median(other.ages)
    rate, other_rate = seen.frames / seen.seconds, other.frames / other.seconds
    return [
        Row(
            f"{work}, commit to frame, p50",
            f"{p50:,.1f} ms",
            f"{other_p50:,.1f} ms",
            f"{p50 / other_p50:.2f} ×",
            note=note,
        ),
        Row(
            f"{work}, frames/s",
            f"{rate:,.0f}/s, {seen.behind:,.0f} ms behind at the end",
            f"{other_rate:,.0f}/s, {other.behind:,.0f} ms behind at the end",
            f"{rate / other_rate:.2f} ×",
            note=f"{seen.frames:,} and {other.frames:,} frames",
        ),
        Row(
            f"{work}, queries/s",
            f"{per_second['queries']:,.1f}",
            "one for each change",
            f"{per_second['queries']:,.1f}",
            note=f"{per_second['serializations']:,.1f} serializations/s",
        ),
    ]
