"""
Asks for a row again and again, in a process of its own: how long others keep a socket waiting.

``python -m benchmarks.reading.retrieving PORT SECONDS``; prints JSON: the milliseconds of each answer.
"""

from __future__ import annotations

import json
import sys
import time

from benchmarks.reading.client import sockets


def main() -> None:
    """Ask, and rest for 5 ms."""
    port, seconds = int(sys.argv[1]), float(sys.argv[2])
    took: list[float] = []
    with sockets(port, 1, "/books/") as asking:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            began = time.perf_counter()
            asking.all[0].send(action="retrieve", pk=1, request_id=1)
            asking.receive(1)
            took.append((time.perf_counter() - began) * 1000)
            time.sleep(0.005)
    print(json.dumps(took))


if __name__ == "__main__":
    main()
