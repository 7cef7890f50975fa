"""
Writes as fast as it can for some seconds, in a process of its own.

``python -m benchmarks.reading.flood SECONDS one|many FIRST_RANK``; prints JSON: how many commits,
the last rank, and when the last commit had returned.
"""

from __future__ import annotations

import json
import os
import sys
import time

import psycopg

from benchmarks.reading.writing import MANY, ONE


def main() -> None:
    """Write."""
    seconds, kind, rank = float(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    query = ONE if kind == "one" else MANY
    commits, began = 0, time.monotonic()
    with psycopg.connect(**json.loads(os.environ["BENCHMARK_DATABASE"])) as connection:
        # A commit waits for the disk, as it would, or nothing else would get a turn.
        connection.execute("SET synchronous_commit = on")
        connection.commit()
        while time.monotonic() - began < seconds:
            rank += 1
            connection.execute(query, [rank])
            connection.commit()
            commits += 1
    result = {"commits": commits, "rank": rank, "last": time.monotonic_ns()}
    print(json.dumps(result | {"seconds": time.monotonic() - began}))


if __name__ == "__main__":
    main()
