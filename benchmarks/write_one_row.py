"""What the triggers add to an UPDATE of one row, on the server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import psycopg

from benchmarks.results import Row, median
from benchmarks.writing.server import Table, table

if TYPE_CHECKING:
    from collections.abc import Mapping

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


#: With routes the payload carries old and new values of a column, as related rows need them.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "": {},
    ", telling one column": {"routes": ("owner_id",)},
    ", telling two columns": {"routes": ("owner_id", "state")},
}


def run(quick: bool) -> list[Row]:
    """Measure rounds with and without triggers in turn."""
    rounds, count = (3, 1000) if quick else (15, 3000)
    off: list[float] = []
    on: dict[str, list[float]] = {name: [] for name in VARIANTS}
    with table() as where:
        _measure(where, count)
        for _ in range(rounds):
            where.triggers(False)
            off.append(_measure(where, count))
            for name, options in VARIANTS.items():
                where.triggers(True, **options)
                on[name].append(_measure(where, count))
    return [
        _row(what + name, of(times), of(off))
        for name, times in on.items()
        for what, of in (("fastest", min), ("median", median))
    ]


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
