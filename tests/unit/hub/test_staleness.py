"""What made something stale, and whether a load has seen it all."""

from __future__ import annotations

import pytest

from pgobserve.hub.snapshot import Snapshot
from pgobserve.hub.staleness import (
    FRESH,
    MAX_XIDS,
    Stale,
    add,
    is_old_news,
)

SNAPSHOT = Snapshot(5, 10, frozenset({5, 7}))


@pytest.mark.parametrize(
    ("stale", "wanted"),
    [
        (FRESH, True),
        ((4, 6), True),
        ((4, 7), False),
        ((10,), False),
        (None, False),
    ],
)
def test_old_news(stale: Stale, wanted: bool) -> None:
    """It is old news if the load had seen every one of the transactions."""
    assert is_old_news(SNAPSHOT, stale) is wanted


def test_without_a_load() -> None:
    """Nothing is old news to who has not been read."""
    assert not is_old_news(None, (1,))


def test_forgets_which() -> None:
    """After many transactions it must be read whatever was seen; and that stays so."""
    stale = FRESH
    for xid in range(MAX_XIDS):
        stale = add(stale, xid)
    assert stale == tuple(range(MAX_XIDS))
    assert add(stale, 99) is None
    assert add(None, 1) is None
