"""
A PostgreSQL snapshot as a value: which transactions a reader had seen.

Every subscription begins at one and every load carries one; a change concerns a reader if and only
if its transaction is not visible in the reader's snapshot. This is ``pg_visible_in_snapshot`` in
Python, for the text form of ``pg_snapshot``: ``xmin:xmax:xip,xip,…``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

_FORM = re.compile(r"(\d{1,19}):(\d{1,19}):((?:\d{1,19}(?:,\d{1,19})*)?)(?:@(\d{1,19}))?", re.ASCII)

#: A snapshot lists the transactions in progress; ``max_connections`` bounds them in practice.
MAX_TEXT = 100_000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    A ``pg_snapshot``, and in which run of the server it was taken.

    Transaction ids mean nothing across runs. A server that crashed gives some again that it had
    given to transactions that came to nothing; a restored one, or a standby that took over too
    early, gives many again.

    Attributes:
        xmin: All transactions before it had ended.
        xmax: It and all after it had not begun.
        in_progress: Those between the two that had not ended.
        run: When the server was started, or came back after a crash, in microseconds since the
            epoch; 0 if not known.
    """

    xmin: int
    xmax: int
    in_progress: frozenset[int]
    run: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Read the text form, ``@`` and the server's run behind it.

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
        """Tell whether what the transaction wrote is visible here."""
        return xid < self.xmin or (xid < self.xmax and xid not in self.in_progress)

    def covers(self, other: Snapshot) -> bool:
        """Tell whether all that the other one sees is visible here."""
        return self.xmax >= other.xmax and not any(map(other.sees, self.in_progress))

    def __str__(self) -> str:
        run = f"@{self.run}" if self.run else ""
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, sorted(self.in_progress)))}{run}"
