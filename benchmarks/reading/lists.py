"""What the benchmarks of lists share: changes at a rate, and what arrives of them."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.reading.databases import environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.reading.client import Connection, Sockets

_numbers = itertools.count(1_000_000, 1_000_000)
_PAGES = re.compile(rb'"pages":(\d+)')

#: Seconds without a frame after which nothing is believed to come any more.
QUIET = 1.5


@dataclass
class Seen:
    """
    What has arrived while changes were made.

    Attributes:
        ages: Milliseconds from the commit that a frame shows to its arrival; of some sockets.
        frames: All frames.
        seconds: From the first commit to the last frame.
        behind: Milliseconds from the last commit to the last frame.
    """

    ages: list[float]
    frames: int
    seconds: float
    behind: float


@dataclass
class _Shown:
    """The changes that frames show, and when they arrived."""

    pairs: list[tuple[int, int]] = field(default_factory=list)

    def take(self, frame: bytes) -> None:
        found = _PAGES.search(frame)
        if found is not None:
            self.pairs.append((int(found[1]), time.monotonic_ns()))


def change_at(
    watching: Sockets,
    parameters: dict[str, Any],
    *,
    seconds: float,
    rate: float,
    ids: Iterable[int],
    sampled: Sequence[Connection] | None = None,
) -> Seen:
    """
    Change books at a rate while all sockets are read; returns when nothing comes any more.

    Args:
        watching: The sockets.
        parameters: Of the database.
        seconds: How long.
        rate: Changes a second.
        ids: The books, again and again.
        sampled: Of these it is noted what they show and when; all frames are counted.
    """
    first = next(_numbers)
    command = [sys.executable, "-m", "benchmarks.reading.pace", str(seconds), str(rate), str(first)]
    shown = _Shown()
    for connection in watching.all if sampled is None else sampled:
        connection.listen = shown.take
    with subprocess.Popen(
        [*command, *map(str, ids)], env=environment(parameters), stdout=subprocess.PIPE, text=True
    ) as process:
        frames, last = 0, time.monotonic_ns()
        while process.poll() is None or time.monotonic_ns() - last < QUIET * 1e9:
            if found := watching.poll(0.02):
                frames, last = frames + len(found), found[-1][1]
        assert process.stdout is not None
        commits = json.loads(process.stdout.read())
    for connection in watching.all:
        connection.listen = None
    ages = [(moment - commits[pages - first]) / 1e6 for pages, moment in shown.pairs]
    return Seen(ages, frames, (last - commits[0]) / 1e9, (last - commits[-1]) / 1e6)


def counted(asking: Sockets) -> dict[str, int]:
    """Return what a server process has counted so far."""
    asking.all[0].send(count=True)
    asking.receive(1)
    counted: dict[str, int] = asking.all[0].frame
    return counted
