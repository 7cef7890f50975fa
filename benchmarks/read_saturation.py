"""Frames per second when there is always something to send, against the bare server."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from benchmarks.read_fanout import both, sides
from benchmarks.reading.databases import environment
from benchmarks.reading.writing import MANY, ONE
from benchmarks.results import Row, median

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.read_fanout import Side

#: What is watched: sockets, the row of each, the statement that changes them all.
CASES: tuple[tuple[str, str, int, Callable[[int], int], str], ...] = (
    ("one row → 500 sockets", "one", 500, lambda _: 1, ONE),
    ("1,000 rows → a socket each", "many", 1000, lambda number: number + 1, MANY),
)


def run(*, quick: bool) -> list[Row]:
    """Measure."""
    rows = []
    with both() as (ports, writers):
        for work, kind, count, key, query in CASES:
            with sides(ports, writers, count, key) as pair:
                rows.append(_closed(work, pair, query, 10 if quick else 40))
                rows.append(_open(work, pair, kind, 1 if quick else 3))
    return rows


def _closed(work: str, pair: tuple[Side, Side], query: str, changes: int) -> Row:
    """Change, wait for every frame, change again: nothing can be conflated."""
    rates: tuple[list[float], list[float]] = ([], [])
    for number in range(changes + 3):
        for side, rate in zip(pair, rates, strict=True):
            took = side.change(query)
            if number >= 3:
                rate.append(len(took) / took[-1] * 1000)
    ours, bare = map(median, rates)
    return Row(
        f"{work}, frames/s from the commit to the last",
        f"{ours:,.0f}/s",
        f"{bare:,.0f}/s",
        f"{ours / bare:.2f} ×",
        "≥ 0.8 ×",
        ours / bare >= 0.8,
    )


def _open(work: str, pair: tuple[Side, Side], kind: str, rounds: int) -> Row:
    """Write without a pause; work is useful if it brings a socket nearer to what is true now."""
    results = [[_flooded(side, kind, 1.0) for side in pair] for _ in range(rounds)]
    ours, bare = (
        {key: median(r[key] for r in each) for key in each[0]}
        for each in zip(*results, strict=True)
    )
    text = "{changes:,.0f} changes/s, {frames:,.0f} frames/s, behind {behind:,.0f} ms"
    return Row(
        f"{work}, a writer at full speed",
        text.format(**ours),
        text.format(**bare),
        f"{ours['useful'] / bare['useful']:.2f} ×",
        "> 1 ×",
        ours["useful"] > bare["useful"],
        "changes × sockets told of them or of a later one, per second until all show the last",
    )


def _flooded(side: Side, kind: str, seconds: float) -> dict[str, Any]:
    side.change(ONE if kind == "one" else MANY)  # the sockets are all awake
    first = side.writer.rank + 1_000_000
    command = [sys.executable, "-m", "benchmarks.reading.flood", str(seconds), kind, str(first)]
    with subprocess.Popen(
        command, env=environment(side.writer.parameters), stdout=subprocess.PIPE, text=True
    ) as process:
        before, _ = side.sockets.receive_until(lambda: process.poll() is not None)
        assert process.stdout is not None
        result = json.loads(process.stdout.read())
    last = f'"rank":{result["rank"]},'.encode()
    waiting = set(side.sockets.all)

    def all_show_the_last() -> bool:
        waiting.difference_update([each for each in waiting if last in each.last])
        return not waiting

    after, moment = side.sockets.receive_until(all_show_the_last)
    moment = max(moment, result["last"])
    side.sockets.drain()
    lasted = (moment - result["last"]) / 1e9 + result["seconds"]
    useful = result["commits"] * len(side.sockets.all) / lasted
    return {
        "changes": result["commits"] / result["seconds"],
        "frames": (before + after) / lasted,
        "behind": (moment - result["last"]) / 1e6,
        "useful": useful,
    }
