"""Marks behind everything that was committed: shared, sent again, and never left behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pgobserve.errors import FeedUnavailable
from pgobserve.hub.snapshot import Snapshot
from pgobserve.listen.fence import Fence

SNAPSHOT = Snapshot(1, 1, frozenset())


class Channel:
    """The database: the test says when a mark comes back."""

    def __init__(self, *, listens: bool = True, timeout: float = 60) -> None:
        self.sent: list[str] = []
        self.errors: list[Exception] = []
        self.reached: list[Snapshot] = []
        self.fence = Fence(self.send, self.reach, listens=listens, timeout=timeout)

    async def send(self, name: str) -> Snapshot:
        if self.errors:
            raise self.errors.pop(0)
        self.sent.append(name)
        return SNAPSHOT

    async def reach(self, snapshot: Snapshot) -> None:
        self.reached.append(snapshot)

    def wait(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.fence.passed())

    def bring(self, *names: Any) -> None:
        self.fence.receive(names)

    async def until_sent(self, count: int) -> None:
        while len(self.sent) < count:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def rest() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def channel() -> Channel:
    return Channel()


async def test_mark_comes_back(channel: Channel) -> None:
    """A request waits for its mark, and for what the mark's snapshot says to read."""
    waiting = channel.wait()
    await channel.until_sent(1)
    await rest()
    assert not waiting.done()
    channel.bring(channel.sent[0])
    await waiting

    assert channel.reached == [SNAPSHOT]
    assert channel.fence._task is None


async def test_without_a_listener() -> None:
    """Where nothing listens the snapshot alone decides."""
    channel = Channel(listens=False)
    await channel.wait()

    assert channel.reached == [SNAPSHOT]


async def test_share(channel: Channel) -> None:
    """Requests that come while a mark is under way share the next one."""
    first = channel.wait()
    await channel.until_sent(1)
    others = [channel.wait() for _ in range(5)]
    await rest()
    channel.bring(channel.sent[0])
    await first
    assert not any(each.done() for each in others)
    await channel.until_sent(2)
    channel.bring(channel.sent[1])
    await asyncio.gather(*others)

    assert len(channel.sent) == 2


async def test_other_marks(channel: Channel) -> None:
    """Marks of other processes, and what is no name at all, end no wait."""
    waiting = channel.wait()
    await channel.until_sent(1)
    channel.bring("other", 1, ["x"])
    channel.fence.receive(None)
    await rest()
    assert not waiting.done()
    channel.bring(channel.sent[0])
    await waiting


async def test_gap(channel: Channel) -> None:
    """A mark that was under way in a gap is lost: another one is sent and waited for."""
    waiting = channel.wait()
    await channel.until_sent(1)
    channel.fence.restart()
    await channel.until_sent(2)
    await rest()
    assert not waiting.done()
    channel.bring(channel.sent[1])
    await waiting


async def test_gap_behind_the_mark(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gap that begins while the outbox is read makes the mark worthless, too."""

    async def gap(snapshot: Snapshot) -> None:
        monkeypatch.undo()
        channel.fence.restart()

    monkeypatch.setattr(channel.fence, "_reached", gap)
    waiting = channel.wait()
    await channel.until_sent(1)
    channel.bring(channel.sent[0])
    await channel.until_sent(2)
    channel.bring(channel.sent[1])
    await waiting


async def test_lost_without_a_sign() -> None:
    """A mark that does not come back is sent again; a late one still counts."""
    channel = Channel(timeout=0.001)
    waiting = channel.wait()
    async with asyncio.timeout(60):
        while len(channel.sent) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        channel.fence.timeout = 60
        await channel.until_sent(len(channel.sent))
    while not waiting.done():
        channel.bring(channel.sent[0])
        await asyncio.sleep(0)
    await waiting


async def test_database_away(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    """While no mark can be sent it is tried again."""
    monkeypatch.setattr("pgobserve.listen.fence.backoff", lambda: iter([0.0] * 9))
    channel.errors = [FeedUnavailable("away"), FeedUnavailable("away")]
    waiting = channel.wait()
    await channel.until_sent(1)
    channel.bring(channel.sent[0])
    await waiting

    assert channel.fence.rounds == 3


async def test_other_error(channel: Channel) -> None:
    """What nobody foresaw is raised to all who wait, and the next request is served."""
    channel.errors = [RuntimeError("odd")]
    waiting = [channel.wait(), channel.wait()]
    for each in waiting:
        with pytest.raises(RuntimeError):
            await each
    last = channel.wait()
    await channel.until_sent(1)
    channel.bring(channel.sent[0])
    await last


async def test_all_leave(channel: Channel) -> None:
    """When nobody waits any more nothing is sent any more."""
    waiting = [channel.wait(), channel.wait()]
    await channel.until_sent(1)
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)

    assert channel.fence._task is None
    assert not channel.fence._names
    again = channel.wait()
    await channel.until_sent(2)
    channel.bring(channel.sent[1])
    await again


async def test_close(channel: Channel) -> None:
    """A feed that is stopped says so."""
    waiting = channel.wait()
    await channel.until_sent(1)
    channel.fence.close()
    with pytest.raises(FeedUnavailable):
        await waiting

    assert channel.fence._task is None
