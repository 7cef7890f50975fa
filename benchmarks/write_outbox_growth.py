"""
How far the outbox grows under a steady load, while somebody rotates it.

``python -m benchmarks.write_outbox_growth --minutes 10`` takes as long as it says.
"""

from __future__ import annotations

import argparse
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.results import Row, as_markdown
from benchmarks.write_commits import number, pgbench
from benchmarks.writing.server import Table, table

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Changes a second, by so many writers.
RATE = 1000
WRITERS = 4

#: How long a row may stay, in retentions: one and a half, and what the rotation comes late.
SLACK = 2.0

LOOK = """
SELECT (SELECT count(*) FROM pgobserve.outbox),
       (SELECT sum(pg_total_relation_size(inhrelid))::bigint FROM pg_inherits
         WHERE inhparent = 'pgobserve.outbox'::regclass),
       (SELECT coalesce(extract(epoch FROM clock_timestamp() - min(at)), 0)::float8 FROM pgobserve.outbox)
"""


@dataclass(slots=True)
class Load:
    """
    What was seen.

    Attributes:
        done: Set when the load is to end.
        written: Changes made.
        looks: Seconds since the start, rows, bytes, and the age of the oldest row.
        steps: What the rotation did.
    """

    done: threading.Event = field(default_factory=threading.Event)
    written: int = 0
    looks: list[tuple[float, int, int, float]] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)


def run(quick: bool, minutes: float | None = None) -> list[Row]:
    """Write at a steady rate for some minutes; the retention is a minute, or a tenth of it if quick."""
    minutes = minutes or (0.5 if quick else 4)
    retention = 6.0 if quick else 60.0
    load = Load()
    with table() as where:
        where.triggers(True, transport="outbox")
        threads = [
            threading.Thread(target=_write, args=(where, load, minutes * 60)),
            threading.Thread(target=_rotate, args=(where, load, retention)),
        ]
        for thread in threads:
            thread.start()
        _look(where, load, minutes * 60)
        load.done.set()
        for thread in threads:
            thread.join()
    return _rows(load, minutes, retention)


def _write(where: Table, load: Load, seconds: float) -> None:
    options = ("-R", str(RATE), "-c", str(WRITERS), "-T", str(round(seconds)))
    said = pgbench(where, *options)
    load.written = round(number(said, r"actually processed: (\d+)"))


def _rotate(where: Table, load: Load, retention: float) -> None:
    with where.connect() as session:
        while not load.done.wait(retention / 8):
            step = ""
            while step in ("", "emptied", "advanced", "quiet"):
                found = session.execute("SELECT pgobserve.outbox_rotate(%s::float8)", [retention])
                (step,) = found.fetchone() or ("",)
                load.steps.append(step)


def _look(where: Table, load: Load, seconds: float) -> None:
    began = time.monotonic()
    while (now := time.monotonic() - began) < seconds:
        row = where.connection.execute(LOOK).fetchone()
        assert row is not None
        load.looks.append((now, *row))
        time.sleep(min(2.0, max(0.0, seconds - now)))


def _rows(load: Load, minutes: float, retention: float) -> list[Row]:
    rows, size, age = (max(look[i] for look in load.looks) for i in (1, 2, 3))
    last = load.looks[-1]
    rate = load.written / (minutes * 60)
    bound = rate * retention * SLACK
    work = f"outbox under {rate:,.0f} changes/s for {minutes:g} minutes, retention {retention:g} s"
    emptied = f"{load.steps.count('emptied')} slots emptied"
    return [
        Row(
            f"rows of the {work}",
            f"{rows:,} at most, {last[1]:,} at the end",
            f"{load.written:,} written",
            f"{rows / (rate * retention):.2f} × of one retention's",
            f"≤ {SLACK} ×",
            rows <= bound,
            emptied,
        ),
        Row(
            f"size of the {work}",
            f"{size / 1e6:,.1f} MB at most, {last[2] / 1e6:,.1f} MB at the end",
            f"{size / max(rows, 1):,.0f} bytes a row",
            f"{_halves(load.looks, 2):.2f} × second half's peak to first half's",
        ),
        Row(
            f"age of the oldest row of the {work}",
            f"{age:,.1f} s at most",
            f"{retention:g} s (retention)",
            f"{age / retention:.2f} ×",
            f"≤ {SLACK} ×",
            age <= retention * SLACK,
        ),
    ]


def _halves(looks: Sequence[tuple[float, int, int, float]], column: int) -> float:
    half = len(looks) // 2
    return float(max(e[column] for e in looks[half:]) / max(e[column] for e in looks[:half]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    print(as_markdown(run(quick=False, minutes=parser.parse_args().minutes)))
