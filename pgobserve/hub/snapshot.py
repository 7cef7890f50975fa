"""
PostgreSQL snapshots as values, and what is stale until a load has seen it.

A change concerns a reader only if its transaction is not visible in the reader's snapshot. This is
``pg_visible_in_snapshot`` in Python, for the text form of ``pg_snapshot``: ``xmin:xmax:xip,xip,…``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

_FORM = re.compile(r"(\d{1,19}):(\d{1,19}):((?:\d{1,19}(?:,\d{1,19})*)?)(?:@(\d{1,19}))?", re.ASCII)

#: Maximum length of a text form. ``max_connections`` bounds the transactions in progress.
MAX_TEXT = 100_000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    A ``pg_snapshot``, and the run of the server in which it was taken.

    Transaction ids mean nothing across runs. After a crash, a restore or a failover the server assigns
    some of them again.

    Attributes:
        xmin: All transactions before it had ended.
        xmax: It and all later transactions had not started.
        in_progress: The transactions in between that had not ended.
        run: When the server started, or recovered from a crash, in microseconds since the epoch; 0 if
            not known.
    """

    xmin: int
    xmax: int
    in_progress: frozenset[int]
    run: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Read the text form, optionally followed by ``@`` and the server's run.

        Raises:
            ValueError: The text is no snapshot.
        """
        match = _FORM.fullmatch(text) if len(text) <= MAX_TEXT else None
        if match is None:
            raise ValueError("not a snapshot")
        xmin, xmax = int(match[1]), int(match[2])
        in_progress = frozenset(map(int, match[3].split(","))) if match[3] else frozenset()
        if not (0 < xmin <= xmax and all(xmin <= xid < xmax for xid in in_progress)):
            raise ValueError("not a snapshot")
        return cls(xmin, xmax, in_progress, int(match[4] or 0))

    def sees(self, xid: int) -> bool:
        """Return whether the writes of a transaction are visible."""
        return xid < self.xmin or (xid < self.xmax and xid not in self.in_progress)

    def covers(self, other: Snapshot) -> bool:
        """Return whether everything visible in another snapshot is visible here."""
        return self.xmax >= other.xmax and not any(map(other.sees, self.in_progress))

    def __str__(self) -> str:
        run = f"@{self.run}" if self.run else ""
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, sorted(self.in_progress)))}{run}"


#: The transactions whose changes are still to be read; empty if there are none. None means that a read is
#: due whatever earlier loads have seen.
Stale = tuple[int, ...] | None

FRESH: Final[Stale] = ()

#: Transactions that are remembered for one row or list. Beyond it, a read is due in any case.
MAX_XIDS: Final = 8


def with_xid(stale: Stale, xid: int) -> Stale:
    """Return the transactions that are still to be read, with another one."""
    return None if stale is None or len(stale) >= MAX_XIDS else (*stale, xid)


def is_old_news(snapshot: Snapshot | None, stale: Stale) -> bool:
    """Return whether a load with this snapshot has already seen all of the transactions."""
    return snapshot is not None and stale is not None and all(map(snapshot.sees, stale))
