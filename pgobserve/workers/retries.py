"""
Retries of rows and lists whose query failed.

A time-out, a lock or an ALTER TABLE passes, but no notification follows. The loader therefore reads the
row again, with growing delays, until it succeeds. The subscribers received one error frame.
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

#: Upper limits of the random delay in seconds: of the first retry, and of later ones.
FIRST_RETRY: Final = 0.5
MAX_RETRY: Final = 60.0


def _delays() -> Iterator[float]:
    return backoff(FIRST_RETRY, MAX_RETRY)


class Retries:
    """
    Schedules the retries of failed rows and lists.

    Args:
        again: Called in the event loop with a row that is due.
        delays: Returns the delays of one row, in seconds.
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
        """Return whether the last load of a row failed."""
        return row in self._failing

    @property
    def failing(self) -> Collection[Thing]:
        """The rows and lists whose last load failed."""
        return self._failing.keys()

    def failed(self, row: Thing) -> None:
        """Schedule a retry of a row whose load failed."""
        delays = self._failing[row][0] if row in self._failing else self._delays()
        self.succeeded(row)
        timer = asyncio.get_running_loop().call_later(next(delays), self._fire, row)
        self._failing[row] = (delays, timer)

    def succeeded(self, row: Thing) -> None:
        """Cancel the retry of a row."""
        failing = self._failing.pop(row, None)
        if failing is not None:
            failing[1].cancel()

    def end(self) -> None:
        """Cancel all retries."""
        for row in list(self._failing):
            self.succeeded(row)

    def _fire(self, row: Thing) -> None:
        if row.wanted:
            self._again(row)
        else:
            self.succeeded(row)
