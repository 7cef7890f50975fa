"""The first frames of a list of ten thousand rows, against DRF's own list view of the same."""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks.reading.databases import databases, environment
from benchmarks.results import Row


def run(*, quick: bool) -> list[Row]:
    """Measure flat rows, and rows with a related one in them."""
    command = [sys.executable, "-m", "benchmarks.reading.snapshots", "2" if quick else "10"]
    with databases(1) as (database,):
        done = subprocess.run(
            command, env=environment(database), check=True, stdout=subprocess.PIPE, text=True
        )
    found = json.loads(done.stdout)
    rows = []
    for kind, ways in found.items():
        view = ways["view"]
        for way, name in (("pages", "in 10 frames"), ("one frame", "in one frame")):
            ours = ways[way]
            rows += [
                _row(f"10,000 rows, {kind}, {name}, time", ours, view, "seconds", 1000, "ms"),
                _row(f"10,000 rows, {kind}, {name}, memory", ours, view, "peak", 2**-20, "MB"),
            ]
    return rows


def _row(
    work: str,
    ours: dict[str, float],
    view: dict[str, float],
    key: str,
    factor: float,
    unit: str,
) -> Row:
    return Row(
        work,
        f"{ours[key] * factor:,.1f} {unit}",
        f"{view[key] * factor:,.1f} {unit}",
        f"{ours[key] / view[key]:.2f} ×",
        note=f"{ours['size'] / 2**20:.1f} and {view['size'] / 2**20:.1f} MB of JSON",
    )
