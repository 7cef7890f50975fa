"""A client's end of a consumer, without a server."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from channels.testing import WebsocketCommunicator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: Not a measure of anything: a test that waits this long has failed.
TIMEOUT = 60


class Client:
    """Sends messages and reads frames."""

    def __init__(self, application: Any, path: str = "/", **scope: Any) -> None:
        self.communicator = WebsocketCommunicator(application, path)
        self.communicator.scope.update(scope)

    async def connect(self) -> bool:
        """Return whether the socket was accepted."""
        accepted, _ = await self.communicator.connect(timeout=TIMEOUT)
        return accepted

    async def send(self, /, **message: Any) -> None:
        """Send a message."""
        await self.send_text(json.dumps(message))

    async def send_text(self, text: str) -> None:
        """Send a text frame as it is."""
        await self.communicator.send_input({"type": "websocket.receive", "text": text})

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary frame."""
        await self.communicator.send_input({"type": "websocket.receive", "bytes": data})

    async def frame(self) -> dict[str, Any]:
        """Return the next frame."""
        return await self.communicator.receive_json_from(timeout=TIMEOUT)  # type: ignore[no-any-return]

    async def ask(self, action: str | None = None, /, **message: Any) -> dict[str, Any]:
        """Send a message and return the next frame."""
        await self.send(**({} if action is None else {"action": action}) | message)
        return await self.frame()

    async def disconnect(self) -> None:
        """Close the socket and wait until the consumer has ended."""
        await self.communicator.disconnect(timeout=TIMEOUT)


@asynccontextmanager
async def connected(application: Any, path: str = "/", **scope: Any) -> AsyncIterator[Client]:
    """Open a socket; ``scope`` adds to the connection's scope."""
    client = Client(application, path, **scope)
    assert await client.connect()
    try:
        yield client
    finally:
        await client.disconnect()


def reply(
    action: str | None,
    data: Any = None,
    *,
    errors: Any = (),
    status: int = 200,
    request_id: Any = None,
) -> dict[str, Any]:
    """Return the frame that has exactly these five keys."""
    return {
        "errors": list(errors),
        "data": data,
        "action": action,
        "response_status": status,
        "request_id": request_id,
    }
