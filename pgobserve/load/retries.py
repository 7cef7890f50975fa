"""
Rows and lists whose query failed, to be read again after a while.

A statement that ran into a time-out, a lock or a table that is being altered fails for reasons that
pass, and no notification tells that they have. So the row is read again until it can be, ever more
seldom; those who watch it were told once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from pgobserve.workers.backoff import backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from pgobserve.hub.hub import RowState
    from pgobserve.hub.list_state import ListRow, ListState

    Thing = RowState | ListRow | ListState

#: Seconds before the first repetition, and between two at most; each is drawn from below that.
FIRST: Final = 0.5
CAP: Final = 60.0


def _delays() -> Iterator[float]:
    return backoff(FIRST, CAP)


class Retries:
    """
    Calls back for each failed row, after a time that grows with its failures.

    Args:
        again: Called with the row in the event loop.
        delays: Makes the delays of one row, in seconds.
    """

    def __init__(
        self,
        again: Callable[[Thing], object],
        delays: Callable[[], Iterator[float]] = _delays,
    ) -> None:
        self._again = again
        self._delays = delays
        self._failing: dict[Thing, tuple[Iterator[float], asyncio.TimerHandle]] = {}

    def __contains__(self, row: Thing) -> bool:
        """Tell whether the row's last load failed."""
        return row in self._failing

    @property
    def failing(self) -> Collection[Thing]:
        """The rows and lists whose last load failed."""
        return self._failing.keys()

    def failed(self, row: Thing) -> None:
        """Note that the row could not be read."""
        delays = self._failing[row][0] if row in self._failing else self._delays()
        self.succeeded(row)
        timer = asyncio.get_running_loop().call_later(next(delays), self._fire, row)
        self._failing[row] = (delays, timer)

    def succeeded(self, row: Thing) -> None:
        """Forget a row's failures."""
        failing = self._failing.pop(row, None)
        if failing is not None:
            failing[1].cancel()

    def end(self) -> None:
        """Call back no more."""
        for row in list(self._failing):
            self.succeeded(row)

    def _fire(self, row: Thing) -> None:
        if row.wanted:
            self._again(row)
        else:
            self.succeeded(row)
