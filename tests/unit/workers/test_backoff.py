"""How long to wait before trying again."""

from __future__ import annotations

from itertools import islice, pairwise

from hypothesis import given
from hypothesis import strategies as st

from pgobserve.workers.backoff import backoff


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
