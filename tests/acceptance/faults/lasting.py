"""Sockets that come back by themselves when they break, and resume where they were."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from websockets.exceptions import WebSocketException

from tests.acceptance.faults.replica import PATIENCE, replica

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from tests.acceptance.faults.replica import Replica
    from tests.acceptance.faults.world import Table

#: Seconds until a socket that broke tries again.
PAUSE = 0.2


class Lasting:
    """
    A replica whose socket is replaced whenever it breaks.

    Args:
        url: Where it connects.
        kind: Makes the replica of a connection.
        keys: The rows that it subscribes to, if its subscriptions are to rows.

    Attributes:
        connects: How often it connected.
        strange: Unexpected frames of all its sockets.
        error: Why it broke the last time, or could not subscribe.
    """

    def __init__(self, url: str, kind: Callable[..., Replica], keys: Sequence[int]) -> None:
        self._url = url
        self._kind = kind
        self._keys = keys
        self._current: Replica | None = None
        self._held: Replica | None = None
        self._changed = asyncio.Event()
        self.connects = 0
        self.strange: list[Any] = []
        self.error: BaseException | None = None

    async def run(self) -> None:
        """Connect, subscribe or resume, and again; ends only by cancellation."""
        while True:
            try:
                async with replica(self._url, self._kind) as made:
                    self.connects += 1
                    await self._live(made)
            except (OSError, WebSocketException, TimeoutError, AssertionError) as error:
                self.error = error
            await asyncio.sleep(PAUSE)

    async def ready(self) -> None:
        """Wait until it has subscribed for the first time."""
        async with asyncio.timeout(PATIENCE):
            await self._changed.wait()

    async def _live(self, made: Replica) -> None:
        try:
            start = asyncio.create_task(self._start(made))
            closed = asyncio.create_task(made.connection.wait_closed())
            await asyncio.wait({start, closed}, return_when=asyncio.FIRST_COMPLETED)
            start.cancel()
            if not start.done() or start.cancelled():
                return
            start.result()
            self._current = self._held = made
            self._changed.set()
            await closed
        finally:
            self._current = None
            self.strange += made.strange
            if self._held is not made and made.strange:
                # It never had all of its rows; what came for those that it had is no surprise.
                del self.strange[-len(made.strange) :]

    async def _start(self, made: Replica) -> None:
        if self._held is None:
            await made.subscribe(self._keys)
        else:
            await made.resume(self._held)

    async def equals(self, table: Table) -> None:
        """
        Wait until the replica has the table's rows.

        Raises:
            AssertionError: It has not in time; says what differs.
        """
        try:
            async with asyncio.timeout(2 * PATIENCE):
                while not await self._has(table):
                    pass
        except TimeoutError:
            held = self._held
            stale = "nothing was ever read" if held is None else held.stale(table)
            state = "connected" if self._current else "not connected"
            raise AssertionError(
                f"A socket ({state}, last error {self.error!r}) differs: {stale}"
            ) from None
        current = self._current
        assert not self.strange, self.strange[:3]
        assert current is None or not current.strange, current.strange[:3]

    async def _has(self, table: Table) -> bool:
        current = self._current
        if current is None:
            self._changed.clear()
            await self._changed.wait()
            return False
        if not current.stale(table):
            return True
        closed = asyncio.create_task(current.connection.wait_closed())
        right = asyncio.create_task(current.until(lambda: not current.stale(table)))
        try:
            await asyncio.wait({closed, right}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (closed, right):
                task.cancel()
            await asyncio.gather(closed, right, return_exceptions=True)
        return self._current is current and not current.stale(table)


@contextlib.asynccontextmanager
async def lasting(
    places: Sequence[tuple[str, Callable[..., Replica], Sequence[int]]],
) -> AsyncIterator[list[Lasting]]:
    """Keep sockets open for the length of a ``with`` block."""
    sockets = [Lasting(*place) for place in places]
    tasks = [asyncio.create_task(each.run()) for each in sockets]
    try:
        # A row that is not there yet can't be subscribed to: no fault before all have theirs.
        await asyncio.gather(*(each.ready() for each in sockets))
        yield sockets
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
