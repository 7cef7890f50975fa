"""What happens to the handlers of a client that leaves."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from pgobserve._consumer import client_presence, incoming
from pgobserve.consumers import AsyncAPIConsumer
from pgobserve.decorators import action
from tests.sockets import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Consumer(AsyncAPIConsumer):
    """Writes down what its actions do."""

    def __init__(self, log: list[str], begun: asyncio.Event, go: asyncio.Event) -> None:
        super().__init__()
        self.log, self.begun, self.go = log, begun, go

    async def disconnect(self, code: int) -> None:
        self.log.append(f"disconnect {code}")

    @action()
    async def watch(self, **kwargs: Any) -> None:
        """Wait for what is of use to the client alone."""
        self.begun.set()
        try:
            async with self.attended():
                self.log.append("watch")
                await asyncio.Event().wait()
        finally:
            self.log.append("unwatch")

    @action()
    async def write(self, **kwargs: Any) -> None:
        self.begun.set()
        await self.go.wait()
        self.log.append("written")

    @action()
    async def stay(self, **kwargs: Any) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.log.append("stayed")


class Socket(Client):
    """A socket of that consumer, and what it does."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.begun, self.go = asyncio.Event(), asyncio.Event()
        super().__init__(Consumer(self.log, self.begun, self.go))

    async def leave(self, code: int = 1001) -> None:
        await self.communicator.send_input({"type": "websocket.disconnect", "code": code})

    async def ended(self) -> None:
        await self.communicator.wait(timeout=60)


@pytest.fixture
async def socket(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Socket]:
    monkeypatch.setattr(incoming, "READ_AHEAD_DELAY", 0.0)
    socket = Socket()
    async with asyncio.timeout(60):
        assert await socket.connect()
        yield socket


async def test_what_serves_the_client_ends(socket: Socket) -> None:
    """What a client waits for ends when it leaves, and what it would wait for does not begin."""
    for _ in range(5):
        await socket.send(action="watch")
    await socket.begun.wait()
    await socket.leave()
    await socket.ended()
    assert socket.log == ["watch", *["unwatch"] * 5, "disconnect 1001"]


async def test_all_else_goes_on(socket: Socket) -> None:
    """A client may leave without waiting for what it has requested; all of it is done."""
    for name in ("write", "watch", "write"):
        await socket.send(action=name)
    await socket.begun.wait()
    await socket.leave()
    for _ in range(20):
        await asyncio.sleep(0)
    assert socket.log == []
    socket.go.set()
    await socket.ended()
    assert socket.log == ["written", "unwatch", "written", "disconnect 1001"]


@pytest.mark.parametrize(
    ("code", "bound"), [(1001, "LEAVING_GRACE"), (1006, "LEAVING_GRACE"), (1012, "RESTART_GRACE")]
)
async def test_not_for_ever(
    socket: Socket,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: int,
    bound: str,
) -> None:
    """A handler that does not end is cancelled some time after its client has left."""
    for each in ("LEAVING_GRACE", "RESTART_GRACE"):
        monkeypatch.setattr(client_presence, each, 0.0 if each == bound else 600.0)
    for name in ("stay", "write", "stay"):
        await socket.send(action=name)
    await socket.begun.wait()
    with caplog.at_level(logging.WARNING, "pgobserve"):
        await socket.leave(code)
        await socket.ended()
    assert socket.log == ["stayed", f"disconnect {code}"]
    assert "A handler of Consumer was cancelled" in caplog.text


async def test_cancelled_by_the_server(socket: Socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that cancels the socket's task meanwhile has it cancelled."""
    monkeypatch.setattr(client_presence, "LEAVING_GRACE", 600.0)
    await socket.send(action="stay")
    await socket.begun.wait()
    await socket.leave()
    for _ in range(20):
        await asyncio.sleep(0)
    task = socket.communicator.future
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert socket.log == ["stayed"]
