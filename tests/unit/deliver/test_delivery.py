"""From what a load found to those who watch, with turns for others in between."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pgobserve.deliver import delivery as delivery_module
from pgobserve.deliver.delivery import Delivery, Pause
from pgobserve.deliver.send_queue import SendQueue
from pgobserve.hub.hub import Hub, TableDependencies
from pgobserve.hub.list_state import ListRow
from pgobserve.hub.load_requests import (
    ListLoadRequest,
    ListLoadResult,
    LoadRequest,
    LoadResult,
)
from pgobserve.hub.outcome import UNKNOWN, View
from pgobserve.hub.snapshot import Snapshot
from pgobserve.hub.subscriptions import ListSnapshot, ListSubscription
from pgobserve.workers.retrying import Retries

ITEM = TableDependencies(("item",))
SNAPSHOT = Snapshot(100, 100, frozenset())


class World:
    """A list and its readers, who are told one by one."""

    def __init__(self, readers: int) -> None:
        self.hub = Hub()
        self.delivery = Delivery(self.hub, Retries(lambda _: None))
        self.told: list[tuple[int, str]] = []
        self.begun: list[Any] = []
        self.watches = [self._watch(number) for number in range(readers)]
        (self.roster,) = self.hub.take_lists(10)

    def _watch(self, number: int) -> ListSubscription:
        send_queue = SendQueue(lambda: None, lambda item: self._send(number, item))
        watch = ListSubscription(send_queue, 1, None, lambda listed: self.begun.append(listed))
        self.hub.add_list(watch, ITEM, "list")
        return watch

    def _send(self, number: int, item: Any) -> None:
        self.told.append((number, item[2]))
        assert self.watches[number].send_queue.take() is None

    def find(self, **bodies: str) -> list[LoadResult]:
        """Find rows."""
        return [
            LoadResult(
                LoadRequest(ListRow(self.roster, key), self.roster.audience),
                SNAPSHOT,
                View.of(body),
            )
            for key, body in bodies.items()
        ]

    async def deliver_whole(
        self, has: dict[ListSubscription, Any] | None = None, **bodies: str
    ) -> None:
        """Deliver the list."""
        job = ListLoadRequest(self.roster, self.roster.audience, tuple(self.roster.newcomers))
        await self.delivery.whole(ListLoadResult(job, SNAPSHOT, self.find(**bodies), has=has or {}))

    async def deliver_row(self, **bodies: str) -> None:
        """Deliver a row that changed."""
        self.roster.mark(list(bodies), None)
        self.roster.take(10)
        await self.delivery.rows(self.find(**bodies))


@pytest.fixture
def breath(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let others have their turn after two frames."""
    monkeypatch.setattr(delivery_module, "YIELD_EVERY", 2)


async def test_others_have_their_turn(breath: None) -> None:
    """While a row is told to many, others have their turn again and again."""
    world = World(5)
    await world.deliver_whole(a="1")
    seen: list[int] = []

    async def look() -> None:
        while len(world.told) < 5:
            seen.append(len(world.told))
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    await world.deliver_row(a="2")
    await looking

    assert world.told == [(number, "update") for number in range(5)]
    assert {2, 4} <= set(seen)


async def test_all_are_told_whatever_happens(breath: None) -> None:
    """A delivery that is cancelled half way tells the others all the same."""
    world = World(5)
    await world.deliver_whole(a="1")
    task = asyncio.create_task(world.deliver_row(a="2"))
    for _ in range(2):
        await asyncio.sleep(0)
    assert 0 < len(world.told) < 5
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert task.cancelled()
    assert len(world.told) == 5


async def test_moved_amid_a_delivery(breath: None) -> None:
    """A subscription that moves to a lane amid a delivery still gets the row that it has not received."""
    world = World(5)
    await world.deliver_whole(a="1")
    task = asyncio.create_task(world.deliver_row(a="2"))
    for _ in range(2):
        await asyncio.sleep(0)
    last = world.watches[4]
    assert (4, "update") not in world.told
    world.hub.isolate([last], "lane")
    await task
    (roster,) = world.hub.take_lists(10, lane="lane")
    job = ListLoadRequest(roster, (), (last,))
    item = LoadResult(LoadRequest(ListRow(roster, "a"), (last,)), SNAPSHOT, View.of("2"))
    await world.delivery.whole(ListLoadResult(job, SNAPSHOT, [item]))

    assert (4, "update") in world.told


async def test_list_is_put_together_once(breath: None) -> None:
    """Those who wait for the same list get the same one."""
    world = World(3)
    await world.deliver_whole(a="1", b="2")

    assert [bodies(listed) for listed in world.begun] == [["1", "2"]] * 3
    assert len({id(listed) for listed in world.begun}) == 1


def bodies(listed: ListSnapshot) -> list[Any]:
    """Return what a list shows."""
    return [row.view.body for row in listed.rows]


async def test_empty_list() -> None:
    """A list without rows is one, too."""
    world = World(1)
    await world.deliver_whole()

    assert [(listed.rows, listed.resumed) for listed in world.begun] == [([], False)]


async def test_who_comes_back(breath: None) -> None:
    """Who has some of the list gets what he has not, or not so, and what is gone; others all."""
    world = World(3)
    all_of_it = {"a": View.of("1").digest, "b": View.of("2").digest}
    some = {"a": View.of("old").digest, "c": View.of("3").digest, "b": UNKNOWN}
    await world.deliver_whole({world.watches[0]: all_of_it, world.watches[1]: some}, a="1", b="2")

    assert world.told == [(1, "update"), (1, "update"), (1, "delete")]
    assert [listed.resumed for listed in world.begun] == [True, True, False]
    assert bodies(world.begun[2]) == ["1", "2"]
    assert [world.roster.holdings(watch) for watch in world.watches] == [all_of_it] * 3


async def test_pause_counts_steps() -> None:
    """The loop has its turn once there were as many steps as wanted, however they came."""
    turns = 0

    def count() -> None:
        nonlocal turns
        turns += 1

    pause, loop = Pause(10), asyncio.get_running_loop()
    for steps in (4, 4, 4, 9):
        loop.call_soon(count)
        await pause.after(steps)

    assert turns == 3
