"""A WebSocket client that speaks in frames."""

from __future__ import annotations

import asyncio
import itertools
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import ClientConnection, connect

from tests.acceptance.server import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Client:
    """
    A connected socket.

    Attributes:
        frames: The text of everything that has come.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.frames: list[str] = []
        self._ids = itertools.count(1)

    async def send(self, message: str | bytes | object) -> None:
        """Send text or bytes as they are, anything else as JSON."""
        raw = message if isinstance(message, str | bytes) else json.dumps(message)
        await self.connection.send(raw)

    async def receive(self) -> dict[str, Any]:
        """Return the next frame."""
        async with asyncio.timeout(PATIENCE):
            text = await self.connection.recv()
        assert isinstance(text, str)
        self.frames.append(text)
        frame: dict[str, Any] = json.loads(text)
        return frame

    async def ask(self, action: str, **arguments: object) -> dict[str, Any]:
        """Ask for an action and return the next frame, which must be the answer."""
        request_id = arguments.setdefault("request_id", next(self._ids))
        await self.send({"action": action, **arguments})
        frame = await self.receive()
        assert (frame["action"], frame["request_id"]) == (action, request_id), frame
        return frame

    async def subscribe(self, pk: int) -> int:
        """Subscribe to a row and return the request's id."""
        request_id = next(self._ids)
        frame = await self.ask("subscribe_instance", pk=pk, request_id=request_id)
        assert frame["response_status"] == 201, frame
        return request_id


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[Client]:
    """Connect to a WebSocket for the length of a ``with`` block."""
    options = {"open_timeout": PATIENCE, "proxy": None, "ping_interval": None, **options}
    async with connect(url, **options) as connection:
        yield Client(connection)
