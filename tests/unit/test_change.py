"""The value between listener and hub."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from pgobserve.wire import Change, Operation


def test_is_a_value() -> None:
    """Two changes that say the same are equal and have one hash."""
    one, other = (Change("app.model", Operation.UPDATE, 7, (1, 2)) for _ in range(2))

    assert one == other
    assert len({one, other}) == 1


def test_does_not_change() -> None:
    """A change that is passed on is the same for everyone."""
    change = Change("app.model", Operation.UPDATE, 7, None)

    with pytest.raises(FrozenInstanceError):
        change.xid = 8  # type: ignore[misc]
