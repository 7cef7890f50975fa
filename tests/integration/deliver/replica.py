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
        rows: By their primary key, or another one that a row shows.
        etags: By key, as frames have it.
        told: Action and key of each frame since it came (back).
    """

    def __init__(self, connect: Callable[..., Any], consumer: Any, **query: Any) -> None:
        self._connect = connect
        self._consumer = consumer
        self._scope: dict[str, Any] = query.pop("scope", {})
        self._query = query
        self._socket: Socket | None = None
        self.rows: dict[Any, Any] = {}
        self.etags: dict[str, str] = {}
        self.told: list[tuple[str, Any]] = []

    @property
    def socket(self) -> Socket:
        assert self._socket is not None
        return self._socket

    async def come(self, **content: Any) -> Replica:
        """Subscribe over a new socket; return when the list is there."""
        self._socket = await self._connect(self._consumer, **self._scope)
        frame = await self.socket.ask("subscribe_list", request_id=1, **self._query, **content)
        assert frame["response_status"] == 201, frame
        self.told = []
        if "have" in content:
            assert frame["data"] is None
            assert not {"keys", "etags", "more"} & frame.keys()
            return self
        self._take_all(frame)
        while frame.get("more"):
            frame = await self.socket.receive()
            self._take_all(frame)
        return self

    async def come_back(self) -> Replica:
        """Subscribe with all that it holds."""
        return await self.come(have=self.etags)

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
        action, key = frame["action"], _key(frame["data"])
        self.told.append((action, key))
        if action == "delete":
            assert "etag" not in frame
            self.rows.pop(key, None)
            self.etags.pop(frame["key"], None)
        else:
            assert action in {"create", "update"}, frame
            assert (action == "update") == (frame["key"] in self.etags), frame
            assert self.etags.get(frame["key"]) != frame["etag"], "a frame without news"
            self.rows[key] = frame["data"]
            self.etags[frame["key"]] = frame["etag"]

    def _take_all(self, frame: Any) -> None:
        results, keys, etags = frame["data"]["results"], frame["keys"], frame["etags"]
        assert len(results) == len(keys) == len(etags)
        self.rows |= {_key(row): row for row in results}
        self.etags |= dict(zip(keys, etags, strict=True))


def _key(data: Any) -> Any:
    key = data["id"] if "id" in data else data["pk"]
    return tuple(key) if isinstance(key, list) else key
