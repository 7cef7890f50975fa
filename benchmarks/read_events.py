"""Events of a model to many sockets, and what observers cost who loads rows, against DCRF."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

from benchmarks.read_dcrf import Side
from benchmarks.reading.client import allow_descriptors, sockets
from benchmarks.reading.databases import ROWS, databases, environment
from benchmarks.reading.servers import DCRF_EVENTS, EVENTS, OURS, serving
from benchmarks.results import Row, median

if TYPE_CHECKING:
    from benchmarks.reading.client import Sockets

SOCKETS = 300
OUTBOX = {"BENCHMARK_TRANSPORT": "outbox"}


def run(*, quick: bool) -> list[Row]:
    """Measure."""
    allow_descriptors()
    env = {"BENCHMARK_LAYER": "memory", "BENCHMARK_COUNT": "yes"}
    with databases(3) as (first, second, third):
        _install(first)
        with (
            serving(EVENTS, first, **env, **OUTBOX) as our_server,
            serving(DCRF_EVENTS, second, **env) as their_server,
            serving(OURS, third, **env) as plain_server,
            sockets(our_server.port, SOCKETS) as ours,
            sockets(their_server.port, SOCKETS) as theirs,
            sockets(our_server.port, 1, "/write/") as our_writer,
            sockets(their_server.port, 1, "/write/") as their_writer,
            sockets(plain_server.port, 1, "/write/") as plain_writer,
        ):
            ours.subscribe(lambda _: 1)
            theirs.subscribe(lambda _: 1)
            here, there = Side(ours, our_writer), Side(theirs, their_writer)
            return [
                *_events(here, there, 10 if quick else 40),
                _loading(our_writer, their_writer, plain_writer, 5 if quick else 20),
            ]


def _install(parameters: dict[str, Any]) -> None:
    env = environment(parameters, DJANGO_SETTINGS_MODULE="benchmarks.reading.settings", **OUTBOX)
    command = [sys.executable, "-m", "django", "pgobserve", "install", "reading.Item"]
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)


def _events(here: Side, there: Side, changes: int) -> list[Row]:
    latencies: list[float] = []
    others: list[float] = []
    for rank in range(1, changes + 4):
        ours, theirs = max(here.change(rank)), max(there.change(rank))
        if rank > 3:
            latencies.append(ours)
            others.append(theirs)
    ours, theirs = median(latencies), median(others)
    before = here.counters()["serializations"], there.counters()["serializations"]
    here.change(changes + 4)
    there.change(changes + 4)
    after = here.counters()["serializations"], there.counters()["serializations"]
    counted = after[0] - before[0]
    work = f"1 event → {SOCKETS} sockets, model_observer, against djangochannelsrestframework"
    return [
        Row(
            f"{work}, to the last socket, p50",
            f"{ours:.2f} ms",
            f"{theirs:.2f} ms",
            f"{theirs / ours:.2f} × lower",
            note="theirs: layer in memory, saved by the ORM in its own process, sent after commit",
        ),
        Row(
            f"{work}, serializations",
            f"{counted}",
            f"{after[1] - before[1]}",
            f"{counted}",
            "1",
            counted == 1,
        ),
    ]


def _loading(ours: Sockets, theirs: Sockets, plain: Sockets, times: int) -> Row:
    loads = [[_load(each) for each in (ours, theirs, plain)] for _ in range(times)]
    here, there, base = (min(of_side) for of_side in zip(*loads, strict=True))
    return Row(
        f"loading {2 * ROWS:,} rows of an observed model, against one without observers",
        f"{here:.0f} ms",
        f"{base:.0f} ms",
        f"{here / base:.2f} ×",
        "≤ 1.05 ×",
        here / base <= 1.05,
        f"djangochannelsrestframework: {there:.0f} ms, {there / base:.1f} ×",
    )


def _load(of: Sockets) -> float:
    """Let a server load the rows twice; return the milliseconds that both took."""
    of.all[0].send(load=2)
    of.receive(1)
    return float(of.all[0].frame["ms"])
