"""Whether a one-row UPDATE spoils the plan of a later large one in the same session."""

from __future__ import annotations

import time

from benchmarks.results import Row, at_most, median
from benchmarks.writing.server import Table, table

ROWS = 30_000
TARGET = 2.0


def run(quick: bool) -> list[Row]:
    """Measure the large UPDATE in sessions that did and did not update one row before."""
    times: dict[bool, list[float]] = {False: [], True: []}
    with table() as where:
        where.triggers(True)
        for _ in range(3 if quick else 9):
            for one_row_first in (False, True):
                times[one_row_first].append(_measure(where, one_row_first))
    after, before = (median(times[each]) * 1000 for each in (True, False))
    work = f"{ROWS:,}-row UPDATE after a one-row UPDATE in the same session, against without it"
    return [at_most(work, after, before, TARGET, "ms")]


def _measure(where: Table, one_row_first: bool) -> float:
    where.fill()
    with where.connect() as session:
        if one_row_first:
            session.execute("UPDATE item SET n = n + 1 WHERE id = 1")
        began = time.perf_counter()
        session.execute("UPDATE item SET n = n + 1 WHERE id <= %s", [ROWS])
        return time.perf_counter() - began
