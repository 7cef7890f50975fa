"""How long a socket that asks for a row waits while a thousand others are told of changes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from benchmarks.list_shared import IDS, SUBSCRIBERS
from benchmarks.reading.client import allow_descriptors, sockets
from benchmarks.reading.databases import databases
from benchmarks.reading.lists import QUIET, change_at
from benchmarks.reading.servers import OURS, serving
from benchmarks.results import Row, percentile

if TYPE_CHECKING:
    from benchmarks.reading.client import Sockets

RATES = (10, 50, 100)


def run(*, quick: bool) -> list[Row]:
    """Measure without changes, and at some rates."""
    allow_descriptors()
    count, seconds = (200, 2) if quick else (SUBSCRIBERS, 6)
    with (
        databases(1) as (database,),
        serving(OURS, database, BENCHMARK_KEEP="yes") as server,
        sockets(server.port, count, "/books/") as watching,
    ):
        watching.ask_each(lambda _: {})
        idle = _asked(watching, database, server.port, seconds, 0)
        busy = {rate: _asked(watching, database, server.port, seconds, rate) for rate in RATES}
    return [
        Row(
            f"a request while {count:,} subscribers are told of {rate} changes/s, p95",
            f"{percentile(took, 95):,.1f} ms",
            f"{percentile(idle, 95):,.1f} ms without changes",
            f"{percentile(took, 95) / percentile(idle, 95):,.1f} ×",
            note=f"p50 {percentile(took, 50):,.1f} and {percentile(idle, 50):,.1f} ms, "
            f"longest {max(took):,.0f} and {max(idle):,.0f} ms",
        )
        for rate, took in busy.items()
    ]


def _asked(
    watching: Sockets, database: dict[str, Any], port: int, seconds: float, rate: int
) -> list[float]:
    """Return the milliseconds of the answers."""
    command = [sys.executable, "-m", "benchmarks.reading.retrieving", str(port), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        if rate:
            change_at(watching, database, seconds=seconds + QUIET, rate=rate, ids=IDS, sampled=[])
        assert process.stdout is not None
        took: list[float] = json.loads(process.stdout.read())
    return took
