"""What is read ahead while a handler takes long."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from pgobserve._consumer import incoming
from pgobserve._consumer.incoming import Incoming

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LEAVES = {"type": "websocket.disconnect", "code": 1001}


def text(content: str) -> dict[str, Any]:
    return {"type": "websocket.receive", "text": content}


async def turns() -> None:
    """Let the event loop take some turns: all that can be read is read."""
    for _ in range(20):
        await asyncio.sleep(0)


class Server:
    """What has come from the client."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[dict[str, Any] | Exception] = asyncio.Queue()
        self.left = asyncio.Event()
        self.incoming = Incoming(self.receive, lambda _: self.left.set())

    async def receive(self) -> dict[str, Any]:
        message = await self.queue.get()
        if isinstance(message, Exception):
            raise message
        return message

    def put(self, *messages: dict[str, Any] | Exception) -> None:
        for message in messages:
            self.queue.put_nowait(message)


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setattr(incoming, "READ_AHEAD_DELAY", 0.0)
    server = Server()
    async with asyncio.timeout(60):
        yield server
        await server.incoming.aclose()


async def test_leaving_is_noticed(server: Server) -> None:
    """While a handler runs, a client that leaves is noticed behind all that it has sent."""
    server.put(*[text(str(n)) for n in range(5)], LEAVES)
    first = await server.incoming.receive()
    with server.incoming.handling():
        await server.left.wait()
    rest = [await server.incoming.receive() for _ in range(5)]
    assert [first, *rest] == [*[text(str(n)) for n in range(5)], LEAVES]


async def test_nothing_is_read_between_handlers(server: Server) -> None:
    """Without a handler only what is wanted is read: the server holds the client back."""
    server.put(text("1"), text("2"))
    await server.incoming.receive()
    with server.incoming.handling():
        pass
    await asyncio.sleep(0)
    assert server.queue.qsize() == 1


async def test_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more is read ahead than so many characters, and all of it comes in the end."""
    monkeypatch.setattr(incoming, "MOST", 3 * (incoming.MESSAGE + 1))
    sent = [text(str(n)) for n in range(8)]
    server.put(*sent)
    got = []
    while len(got) < 8:
        got.append(await server.incoming.receive())
        with server.incoming.handling():
            await turns()
            assert 8 - len(got) - server.queue.qsize() <= 3
    assert got == sent


async def test_read_after_the_handler(server: Server) -> None:
    """What comes when the handler has ended is received, and so is what comes in the next one."""
    server.put(text("1"))
    await server.incoming.receive()
    with server.incoming.handling():
        await turns()
    receiving = asyncio.create_task(server.incoming.receive())
    await asyncio.sleep(0)
    with server.incoming.handling():  # of another message
        server.put(text("2"))
        assert await receiving == text("2")
        server.put(text("3"), LEAVES)
        await server.left.wait()
    assert await server.incoming.receive() == text("3")
    assert await server.incoming.receive() == LEAVES


async def test_handler_begins_during_a_read(server: Server) -> None:
    """A handler of another message that began while the next one was awaited changes nothing."""
    receiving = asyncio.create_task(server.incoming.receive())
    await asyncio.sleep(0)
    with server.incoming.handling():
        await turns()
        server.put(text("1"), text("2"), LEAVES)
        await server.left.wait()
    assert await receiving == text("1")
    assert await server.incoming.receive() == text("2")
    assert await server.incoming.receive() == LEAVES


async def test_cancelled_read(server: Server) -> None:
    """A read that was cancelled loses nothing."""
    server.put(text("1"))
    await server.incoming.receive()
    with server.incoming.handling():
        await turns()
    receiving = asyncio.create_task(server.incoming.receive())
    await asyncio.sleep(0)
    receiving.cancel()
    await asyncio.gather(receiving, return_exceptions=True)
    server.put(text("2"))
    assert await server.incoming.receive() == text("2")


async def test_error_of_the_server(server: Server) -> None:
    """What the server raises is raised after what it had received before."""
    server.put(text("1"), text("2"), RuntimeError("gone"))
    await server.incoming.receive()
    with server.incoming.handling():
        await turns()
    assert await server.incoming.receive() == text("2")
    with pytest.raises(RuntimeError, match="gone"):
        await server.incoming.receive()
