"""A client that keeps the rows of a list, goes away and comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.deliver.conftest import Socket


class Replica:
    """
    The rows of a list as a client has them.

    Attributes:
        rows: By key.
        token: Of the last frame that had one.
        told: Action and key of each frame since it came (back).
        resets: How often it was given the list anew.
    """

    def __init__(self, connect: Callable[..., Any], consumer: Any, **query: Any) -> None:
        self._connect = connect
        self._consumer = consumer
        self._scope: dict[str, Any] = query.pop("scope", {})
        self._query = query
        self._socket: Socket | None = None
        self.rows: dict[Any, Any] = {}
        self.token: str | None = None
        self.told: list[tuple[str, Any]] = []
        self.resets = 0
        self._resetting = False

    @property
    def socket(self) -> Socket:
        assert self._socket is not None
        return self._socket

    async def come(self, **content: Any) -> Replica:
        """Subscribe over a new socket; return when the list is there."""
        self._socket = await self._connect(self._consumer, **self._scope)
        frame = await self.socket.ask("subscribe_list", request_id=1, **self._query, **content)
        assert frame["response_status"] == 201, frame
        assert "token" not in content or frame["data"] == {"results": []}
        self.told = []
        self._take_all(frame)
        while self.token is None:
            self._take_all(await self.socket.receive())
        return self

    async def come_back(self, *, keys: bool = True) -> Replica:
        """Subscribe with the token, and with the keys unless it should not say."""
        said = {"keys": list(self.rows)} if keys else {}
        return await self.come(token=self.token, **said)

    async def leave(self) -> None:
        """Close the socket."""
        await self.socket.close()

    async def settle(self) -> None:
        """Take all frames that were caused until now."""
        while not await self.socket.has_nothing():
            while not await self.socket.communicator.receive_nothing(timeout=0.01, interval=0.002):
                self.take(await self.socket.receive())

    def take(self, frame: Any) -> None:
        """Take a frame as a client's code does."""
        action = frame["action"]
        self.token = frame.get("token", self.token)
        if action == "reset":
            assert frame["response_status"] == 205
            if not self._resetting:
                self.rows = {}
                self.resets += 1
            self._resetting = "token" not in frame
            self._take_all(frame)
            return
        key = _key(frame["data"])
        self.told.append((action, key))
        if action == "delete":
            self.rows.pop(key, None)
        else:
            assert action in {"create", "update"}, frame
            self.rows[key] = frame["data"]

    def _take_all(self, frame: Any) -> None:
        self.token = frame.get("token", self.token)
        for row in frame["data"]["results"]:
            self.rows[_key(row)] = row


def _key(data: Any) -> Any:
    key = data["id"] if "id" in data else data["pk"]
    return tuple(key) if isinstance(key, list) else key
