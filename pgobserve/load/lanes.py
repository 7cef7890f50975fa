"""
Lanes: subscriptions whose hooks hold threads are read apart from all others.

A hook that has held a thread once may do so again. Its subscription therefore gets a lane of its own,
where no other subscription waits for it. The other subscriptions of its class share a second lane until
they prove quick. A subscription leaves its lane after some quick loads.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pgobserve.logs import fields
from pgobserve.workers.pool_worker import ThreadHeld
from pgobserve.workers.thread_pool import HELD_BY_ONE, HOLD_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator

    from pgobserve.hub.hub import Hub
    from pgobserve.hub.subscriptions import ListSubscription, RowSubscription
    from pgobserve.workers.pool_worker import Held

logger = logging.getLogger(__name__)

#: Consecutive quick loads after which the subscriptions of a lane return to all others.
QUICK_LOADS: Final = 3

#: Seconds between two checks that a lane still has subscriptions.
LANE_CHECK_INTERVAL: Final = 10.0

#: Seconds between two loads of a subscription whose hook was abandoned: the first delay and the longest.
FIRST_DELAY: Final = 30.0
MAX_DELAY: Final = 600.0


def _delays() -> Iterator[float]:
    # At least half of the ceiling: a draw near zero would take a second thread at once.
    ceiling = FIRST_DELAY
    while True:
        yield ceiling * (1 + random.random()) / 2  # noqa: S311 (no secret)
        ceiling = min(MAX_DELAY, ceiling * 2)


@dataclass(slots=True, eq=False)
class Lane:
    """
    A queue of loads for some subscriptions of one class.

    Attributes:
        owner: The class of their hooks.
        held: The thread that a hook holds. None without one, and in a shared lane.
        shared: Whether it is the lane of all other subscriptions of the class.
        quick: Consecutive quick loads.
    """

    owner: type
    held: Held | None = None
    shared: bool = False
    quick: int = 0
    work: asyncio.Event = field(default_factory=asyncio.Event)
    delays: Iterator[float] = field(default_factory=_delays)


@dataclass(slots=True, eq=False)
class Lanes:
    """
    The lanes of one loader.

    Args:
        turn: Loads from a lane, and returns whether there was work. Raises
            :class:`~pgobserve.workers.pool_worker.ThreadHeld` if a hook is abandoned.
        failed: Called with a lane whose subscribers must receive an error.
        returned: Called when subscriptions have left a lane.
        held_by: Returns how many threads the hooks of a class hold.
    """

    _hub: Hub
    _turn: Callable[[Lane], Awaitable[bool]]
    _failed: Callable[[Lane], object]
    _returned: Callable[[], object]
    _held_by: Callable[[type], int]
    alias: str = "default"
    _tasks: dict[Lane, asyncio.Task[None]] = field(default_factory=dict)
    _of_class: dict[type, Lane] = field(default_factory=dict)

    def kick(self) -> None:
        """Wake the lanes: the hub may have rows for them."""
        for lane in self._tasks:
            lane.work.set()

    def isolate(
        self, error: ThreadHeld, mates: Collection[RowSubscription | ListSubscription]
    ) -> None:
        """
        Move subscriptions to lanes.

        Args:
            mates: Other subscriptions of the class from the same load.
        """
        assert error.owner is not None  # noqa: S101 (else there are no subscriptions)
        logger.warning(
            "%s.%s has held a thread of database %r for %.0f s. Its subscription is read apart from "
            "others, and so are the others of the class until they are quick.",
            *(error.owner.__qualname__, error.hook, self.alias, HOLD_TIMEOUT),
            extra=fields(consumer=error.owner, alias=self.alias),
        )
        self._put(Lane(error.owner, error.held), error.watches)
        if mates:
            lane = self._of_class.get(error.owner)
            if lane is None:
                lane = self._of_class[error.owner] = Lane(error.owner, shared=True)
            self._put(lane, mates)

    def _put(
        self, lane: Lane, subscriptions: Collection[RowSubscription | ListSubscription]
    ) -> None:
        self._hub.isolate(subscriptions, lane)
        if lane not in self._tasks and self._hub.lane(lane):
            task = asyncio.create_task(self._serve(lane), name="pgobserve-lane")
            self._tasks[lane] = task
            task.add_done_callback(lambda done: self._ended(lane, done))
        lane.work.set()

    async def aclose(self) -> None:
        """End all lanes."""
        tasks = [*self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, lane: Lane, task: asyncio.Task[None]) -> None:
        self._tasks.pop(lane, None)
        if self._of_class.get(lane.owner) is lane:
            del self._of_class[lane.owner]
        names = (lane.owner.__qualname__, self.alias)
        about = fields(consumer=lane.owner, alias=self.alias)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error(
                "Reading subscriptions of %s apart from others failed in database %r; they are read "
                "with all others again.",
                *names,
                exc_info=error,
                extra=about,
            )
        elif not task.cancelled() and (subscriptions := self._hub.lane(lane)):
            logger.warning(
                "%s is quick again in database %r: %d subscriptions are read with all others.",
                *(*names, len(subscriptions)),
                extra=about,
            )
        self._hub.isolate(self._hub.lane(lane), None)
        self._returned()

    async def _serve(self, lane: Lane) -> None:
        """Load from a lane until it has no subscriptions, or they have been quick."""
        while self._hub.lane(lane):
            await self._until_free(lane)
            began = time.monotonic()
            try:
                busy = await self._turn(lane)
            except ThreadHeld as error:
                lane.held, lane.quick = error.held, 0
                continue
            if not busy:
                lane.work.clear()
                # With a limit: no event says that the last subscription has ended.
                await asyncio.wait(
                    [asyncio.ensure_future(lane.work.wait())], timeout=LANE_CHECK_INTERVAL
                )
                lane.work.set()
                continue
            lane.quick = lane.quick + 1 if time.monotonic() - began < HOLD_TIMEOUT else 0
            if lane.quick >= QUICK_LOADS:
                return

    async def _until_free(self, lane: Lane) -> None:
        """Wait until a load of the lane may take a thread."""
        if lane.held is not None:
            held, lane.held = lane.held, None
            await held.settled.wait()
            if held.given_up:
                self._failed(lane)
                delay = next(lane.delays)
                # The hook must not get a second thread while it holds the first one.
                await held.ended.wait()
                await asyncio.sleep(delay)
        while self._held_by(lane.owner) >= HELD_BY_ONE:  # noqa: ASYNC110 (no event says when)
            await asyncio.sleep(HOLD_TIMEOUT)
