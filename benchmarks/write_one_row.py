"""What the triggers add to an UPDATE of one row, on the server."""

from __future__ import annotations

import time

import psycopg

from benchmarks.results import Row, median
from benchmarks.writing.server import Table, table

#: Microseconds that may be added.
TARGET = 20

#: In the server, so that no round trip is measured; of another row each time.
LOOP = """
DO $$ BEGIN
  FOR i IN 1..{count} LOOP
    UPDATE item SET n = n + 1, changed = clock_timestamp() WHERE id = i;
  END LOOP;
END $$
"""


def run(quick: bool) -> list[Row]:
    """Measure rounds with and without triggers in turn."""
    rounds, count = (3, 1000) if quick else (15, 3000)
    off: list[float] = []
    on: list[float] = []
    with table() as where:
        _measure(where, count)
        for _ in range(rounds):
            for triggers, times in ((False, off), (True, on)):
                where.triggers(triggers)
                times.append(_measure(where, count))
    return [_row("fastest", min(on), min(off)), _row("median", median(on), median(off))]


def _row(what: str, on: float, off: float) -> Row:
    return Row(
        f"one-row UPDATE, server side, {what}",
        f"{on:.1f} µs",
        f"{off:.1f} µs (no trigger)",
        f"+{on - off:.1f} µs",
        f"≤ +{TARGET} µs",
        on - off <= TARGET,
    )


def _measure(where: Table, count: int) -> float:
    """Return the microseconds of one UPDATE, commit excluded."""
    where.execute("VACUUM item")
    with where.connect() as session, session.transaction():
        session.execute(LOOP.format(count=10))  # compile and plan
        began = time.perf_counter()
        session.execute(LOOP.format(count=count))
        took = time.perf_counter() - began
        raise psycopg.Rollback
    return took / count * 1e6
