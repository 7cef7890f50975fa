"""
What made something stale: the transactions whose changes are still to be read.

A load that has seen them all has seen what they told; so much of what is heard is old news.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pgobserve.hub.snapshot import Snapshot

#: Transactions; None: it must be read whatever was seen. Empty: it is not stale.
Stale = tuple[int, ...] | None

FRESH: Final[Stale] = ()

#: Transactions remembered for one thing, to find out that a load saw them all.
MAX_XIDS: Final = 8


def add(known: Stale, xid: int) -> Stale:
    """Return what makes it stale, another transaction included."""
    return None if known is None or len(known) >= MAX_XIDS else (*known, xid)


def is_old_news(snapshot: Snapshot | None, stale: Stale) -> bool:
    """Tell whether a load with this snapshot had seen all that made something stale."""
    return snapshot is not None and stale is not None and all(map(snapshot.sees, stale))
