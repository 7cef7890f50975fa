"""How long to wait before trying again."""

from __future__ import annotations

import asyncio
from itertools import islice, pairwise
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from pgobserve.workers import backoff as backoff_module
from pgobserve.workers.backoff import Attempts, backoff

if TYPE_CHECKING:
    import pytest


def test_ceiling_doubles_up_to_the_cap() -> None:
    """Each wait may be twice as long as the one before, until the cap, without an end."""
    waits = list(islice(backoff(0.1, 1.0, draw=lambda: 1.0), 7))

    assert waits == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]


def test_full_jitter() -> None:
    """A wait may be nothing at all, so that not all processes come at once."""
    assert list(islice(backoff(draw=lambda: 0.0), 20)) == [0.0] * 20


@given(st.floats(0, 0.999), st.floats(0.001, 10), st.floats(10, 100))
def test_bounds(luck: float, first: float, cap: float) -> None:
    """No wait is negative or above the cap, and with the same luck none is shorter than the last."""
    waits = list(islice(backoff(first, cap, draw=lambda: luck), 50))

    assert all(0 <= wait <= cap for wait in waits)
    assert all(before <= after for before, after in pairwise(waits))


def test_each_starts_anew() -> None:
    """Two back-offs share nothing."""
    used = backoff(draw=lambda: 1.0)
    list(islice(used, 10))

    assert next(backoff(0.1, draw=lambda: 1.0)) == 0.1


async def test_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attempt comes at once, and delays grow until an attempt has lasted."""
    now, slept = 0.0, list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(backoff_module, "backoff", lambda: backoff(1.0, 8.0, draw=lambda: 1.0))
    monkeypatch.setattr(backoff_module.time, "monotonic", lambda: now)
    number = 0
    async for _ in Attempts():
        number += 1
        if number == 4:
            now += 60
        if number == 6:
            break

    assert slept == [1.0, 2.0, 4.0, 1.0, 2.0]
