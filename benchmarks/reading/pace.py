"""
Changes one book after the other at a steady rate, in a process of its own.

``python -m benchmarks.reading.pace SECONDS RATE FIRST ID…``; prints JSON: when each COMMIT was sent,
in nanoseconds. The n-th change sets ``pages`` to FIRST + n, and goes around the ids.
"""

from __future__ import annotations

import json
import os
import sys
import time

import psycopg

QUERY = "UPDATE reading_book SET pages = %s WHERE id = %s"


def main() -> None:
    """Write."""
    seconds, rate, first = float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    ids = [int(each) for each in sys.argv[4:]]
    commits: list[int] = []
    with psycopg.connect(**json.loads(os.environ["BENCHMARK_DATABASE"])) as connection:
        began = time.monotonic()
        for number in range(int(seconds * rate)):
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            connection.execute(QUERY, [first + number, ids[number % len(ids)]])
            commits.append(time.monotonic_ns())
            connection.commit()
    print(json.dumps(commits))


if __name__ == "__main__":
    main()
