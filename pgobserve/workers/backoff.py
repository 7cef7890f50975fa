"""Delays between attempts."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds after which an attempt counts as a success, so that the next delay is short again.
LASTED: Final = 1.0


def backoff(
    first: float = 0.1, cap: float = 5.0, draw: Callable[[], float] = random.random
) -> Iterator[float]:
    """
    Yield the seconds to wait before each attempt, without end: exponential with full jitter.

    Full jitter spreads the processes that reconnect to a restarted server. The cap is low because users
    wait, and a process costs one connection.
    """
    ceiling = first
    while True:
        yield draw() * ceiling
        ceiling = min(cap, ceiling * 2)


class Attempts:
    """Iterates over attempts at work without end: the first at once, the others after a delay."""

    def __init__(self) -> None:
        self._delays = backoff()
        self._started: float | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> None:
        if self._started is not None:
            if time.monotonic() - self._started > LASTED:
                self._delays = backoff()
            await asyncio.sleep(next(self._delays))
        self._started = time.monotonic()
