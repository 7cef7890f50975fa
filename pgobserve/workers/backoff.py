"""How long to wait before trying again."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def backoff(
    first: float = 0.1, cap: float = 5.0, draw: Callable[[], float] = random.random
) -> Iterator[float]:
    """
    Yield the seconds to wait before each attempt: exponential with full jitter, without an end.

    Full jitter, for a server that comes back must not meet all processes at once. The cap is low:
    a process costs one connection, and users wait for it.
    """
    ceiling = first
    while True:
        yield draw() * ceiling
        ceiling = min(cap, ceiling * 2)
