"""A renamed author of ten thousand watched books: from the commit to the last frame."""

from __future__ import annotations

import contextlib
import time

import psycopg

from benchmarks.reading.client import allow_descriptors, sockets
from benchmarks.reading.databases import PROLIFIC, databases
from benchmarks.reading.lists import counted
from benchmarks.reading.servers import OURS, serving
from benchmarks.results import Row, median

ROWS = 10_000

_FILL = f"""
INSERT INTO reading_book (id, title, pages, price, author_id)
    SELECT {2 * PROLIFIC} + n, 'book ' || n, 0, 1, {PROLIFIC} FROM generate_series(1, {ROWS}) n;
ANALYZE reading_book;
"""


def run(*, quick: bool) -> list[Row]:
    """Measure with one subscriber, and with some."""
    allow_descriptors()
    with databases(1) as (database,):
        with psycopg.connect(**database, autocommit=True) as connection:
            connection.execute(_FILL)
        return [
            _case(database, count, rounds) for count, rounds in ((1, 1 if quick else 5), (10, 1))
        ]


def _case(database: dict[str, object], count: int, rounds: int) -> Row:
    with (
        serving(OURS, database, BENCHMARK_COUNT="yes") as server,
        sockets(server.port, count, "/books/nested/") as watching,
        sockets(server.port, 1, "/write/") as asking,
        contextlib.closing(psycopg.connect(**database, autocommit=True)) as connection,  # type: ignore[arg-type]
    ):
        watching.ask_each(lambda _: {"author": PROLIFIC})
        times, firsts, before = [], [], counted(asking)
        for number in range(rounds):
            began = time.monotonic_ns()
            connection.execute(
                "UPDATE reading_author SET name = %s WHERE id = %s", [f"name {number}", PROLIFIC]
            )
            moments = watching.receive(count * ROWS)
            firsts.append((moments[0] - began) / 1e6)
            times.append((moments[-1] - began) / 1e6)
        after = counted(asking)
    queries = (after["queries"] - before["queries"]) / rounds
    return Row(
        f"a renamed author of {ROWS:,} books, {count} subscriber{'s' * (count > 1)}, last frame",
        f"{median(times):,.0f} ms",
        f"first frame {median(firsts):,.0f} ms",
        f"{queries:.0f} queries",
        "a handful",
        queries <= 9,
        f"{count * ROWS * 1000 / median(times):,.0f} frames/s",
    )
