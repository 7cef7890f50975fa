"""Clients that know of a table only what their frames said."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import ClientConnection, connect

from tests.acceptance.faults.world import CHANGE_ALL, ROWS, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from tests.acceptance.faults.world import Server, Table, World

PATIENCE = 90


class Replica:
    """
    A socket, and the rows that it watches as its frames tell them.

    Attributes:
        rows: The rows by key; None where the row is not there.
        etags: Of the rows, by key; empty text where the row is not there.
        failed: Keys whose last frame was an error.
        strange: Frames that nobody asked for.
        refused: All frames with errors.
        told: How many events came for each key.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.rows: dict[int, dict[str, Any] | None] = {}
        self.etags: dict[int, str] = {}
        self.failed: dict[int, Any] = {}
        self.refused: list[Any] = []
        self.strange: list[Any] = []
        self.told: Counter[int] = Counter()
        self._asked: dict[Any, asyncio.Future[Any]] = {}
        self._news = asyncio.Event()
        self._resumed = False

    @property
    def subscriptions(self) -> int:
        """How many there are."""
        return len(self.rows)

    def sees(self, row: dict[str, Any]) -> bool:
        """Tell whether a row is watched."""
        return row["id"] in self.rows

    async def follow(self) -> None:
        """Read frames until the connection ends."""
        async for text in self.connection:
            self._take(json.loads(text))
            self._news.set()

    def _take(self, frame: dict[str, Any]) -> None:
        asked = self._asked.pop((frame["action"], json.dumps(frame["request_id"])), None)
        key = frame["request_id"]
        if asked is not None:
            if frame["action"] == "subscribe_instance" and frame["data"] is not None:
                self.rows[key], self.etags[key] = frame["data"], frame.get("etag", "")
            asked.set_result(frame)
        elif key not in self.rows or frame["action"] not in {"create", "update", "delete"}:
            self.strange.append(frame)
        else:
            self._event(key, frame)

    def _event(self, key: int, frame: dict[str, Any]) -> None:
        self.told[key] += 1
        unsure = self.failed.pop(key, None) is not None
        if frame["errors"]:
            self.failed[key] = frame
            self.refused.append(frame)
        elif frame["action"] == "delete":
            assert frame["data"] == {"pk": key}, frame
            self.rows[key], self.etags[key] = None, ""
        else:
            assert frame["data"]["id"] == key, frame
            if self._resumed and frame["etag"] == self.etags[key] and not unsure:
                self.strange.append(frame)
            self.rows[key], self.etags[key] = frame["data"], frame.get("etag", "")

    def request(self, action: str, request_id: Any, **arguments: Any) -> asyncio.Future[Any]:
        """Send a request; return what will be the answer."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked[action, json.dumps(request_id)] = answer
        content = {"action": action, "request_id": request_id, **arguments}
        self._sending = asyncio.ensure_future(self.connection.send(json.dumps(content)))
        return answer

    async def ask(self, action: str, request_id: Any, **arguments: Any) -> Any:
        """Send a request and return the answer."""
        async with asyncio.timeout(PATIENCE):
            return await self.request(action, request_id, **arguments)

    async def subscribe(self, keys: Iterable[int], **arguments: Any) -> None:
        """Subscribe to rows; the request's id is the key."""
        arguments.setdefault("snapshot", True)
        answers = [await self.ask("subscribe_instance", key, pk=key, **arguments) for key in keys]
        assert all(answer["response_status"] == 201 for answer in answers), answers

    async def resume(self, before: Replica) -> None:
        """Go on where another socket ended."""
        self.rows, self.etags, self._resumed = dict(before.rows), dict(before.etags), True
        # What could not be shown when the socket broke is sent again, as it is.
        self.failed = dict(before.failed)
        for key, etag in before.etags.items():
            answer = await self.ask("subscribe_instance", key, pk=key, etag=etag)
            assert answer["response_status"] == 201, answer

    async def sync(self) -> None:
        """Ask for something: what was sent before the answer has come when the answer comes."""
        await self.ask("unsubscribe_instance", -1, pk=-1)

    def vanish(self) -> None:
        """End the connection by a reset: neither a close frame nor a FIN."""
        transport = self.connection.transport
        reset = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        transport.abort()

    def leave(self) -> None:
        """Ask for something and say good-bye at once, without waiting for the answer."""
        for content in self._last_requests():
            self.connection.protocol.send_text(json.dumps(content).encode())
        self.connection.protocol.send_close(1000)
        self.connection.send_data()

    def _last_requests(self) -> list[dict[str, Any]]:
        return [
            {"action": "subscribe_instance", "pk": key, "request_id": -key} for key in self.rows
        ]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until frames have made a condition true."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._news.clear()
                await self._news.wait()

    def missed(self, table: Table) -> set[int]:
        """Return the rows of which a client that comes back receives a frame."""
        return {key for key, row in self.rows.items() if row != table.get(key)}

    def stale(self, table: Table) -> dict[int, Any]:
        """Return what differs from the table."""
        return {
            key: (row, table.get(key))
            for key, row in self.rows.items()
            if row != table.get(key) or key in self.failed
        }


class ListReplica(Replica):
    """
    A socket, and the rows of a list as its frames tell them.

    Each frame must fit what it is about: nothing is created twice, or changed or deleted that is
    not there.

    Attributes:
        odd: The list has the rows of an odd rank only.
        held: Etags by key, as frames have them.
    """

    def __init__(self, connection: ClientConnection, *, odd: bool) -> None:
        super().__init__(connection)
        self.odd = odd
        self.held: dict[str, str] = {}

    @property
    def subscriptions(self) -> int:
        """One."""
        return 1

    def sees(self, row: dict[str, Any]) -> bool:
        """Tell whether a row is on the list."""
        return not self.odd or row["rank"] % 2 == 1

    def _take(self, frame: dict[str, Any]) -> None:
        if frame["request_id"] == "list" and frame["action"] != "subscribe_list":
            self._change(frame)
        else:
            super()._take(frame)

    def _change(self, frame: dict[str, Any]) -> None:
        action, data = frame["action"], frame["data"]
        key = data["pk"] if frame["errors"] or action == "delete" else data["id"]
        assert frame["key"] == str(key), frame
        self.told[key] += 1
        unsure = self.failed.pop(key, None) is not None
        if frame["errors"]:
            self.failed[key] = frame
            self.refused.append(frame)
            return
        silent = self.rows.get(key) == data and not unsure
        if (key in self.rows) == (action == "create") or silent:
            self.strange.append(frame)
        if action == "delete":
            self.rows.pop(key, None)
            self.held.pop(frame["key"], None)
        else:
            self.rows[key], self.held[frame["key"]] = data, frame["etag"]

    async def subscribe(self, keys: Iterable[int] = (), **arguments: Any) -> None:
        """Subscribe to the list, whatever its keys are."""
        answer = await self._subscribe(**arguments)
        self.rows = {row["id"]: row for row in answer["data"]["results"]}
        self.held = dict(zip(answer["keys"], answer["etags"], strict=True))

    async def _subscribe(self, **arguments: Any) -> Any:
        answer = await self.ask("subscribe_list", "list", odd=self.odd, **arguments)
        assert answer["response_status"] == 201, answer
        return answer

    async def resume(self, before: Replica) -> None:
        """Go on where another socket ended."""
        assert isinstance(before, ListReplica)
        self.odd, self.rows, self.held = before.odd, dict(before.rows), dict(before.held)
        # What could not be shown when the socket broke is sent again, as it is.
        self.failed = dict(before.failed)
        assert (await self._subscribe(have=self.held))["data"] is None

    async def sync(self) -> None:
        """Ask for something."""
        await self.ask("unsubscribe_list", -1)

    def _last_requests(self) -> list[dict[str, Any]]:
        return [{"action": "subscribe_list", "request_id": number} for number in range(5)]

    def missed(self, table: Table) -> set[int]:
        """Return the rows of which a client that comes back receives a frame."""
        return {*self.stale(table)}

    def stale(self, table: Table) -> dict[int, Any]:
        """Return what differs from the table."""
        truth = {key: row for key, row in table.items() if key < 500 and self.sees(row)}
        return {
            key: (self.rows.get(key), truth.get(key))
            for key in {*self.rows, *truth}
            if self.rows.get(key) != truth.get(key) or key in self.failed
        }


@contextlib.asynccontextmanager
async def replica(
    url: str, kind: Callable[[ClientConnection], Replica] = Replica, **options: Any
) -> AsyncIterator[Replica]:
    """Open a socket that is read all the time."""
    options = {"open_timeout": PATIENCE, "proxy": None, "ping_interval": None, **options}
    async with connect(url, **options) as connection:
        made = kind(connection)
        task = asyncio.create_task(made.follow())
        try:
            yield made
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class Fleet:
    """
    Many replicas at one server.

    Args:
        world: The database.
        server: The server.
        replicas: The sockets.
        watcher: A socket that tells the feed's state.
    """

    def __init__(
        self, world: World, server: Server, replicas: list[Replica], watcher: Replica
    ) -> None:
        self.world = world
        self.server = server
        self.replicas = replicas
        self._watcher = watcher

    async def state(self) -> Any:
        """Return the state of the server's feed."""
        return (await self._watcher.ask("state", 0))["data"]

    async def equals_the_table(self) -> None:
        """Wait until all replicas equal the table, and stay so with nothing under way."""
        table = await self.world.table()
        for _ in range(2):
            for each in self.replicas:
                await self._equals(each, table)
            await eventually(self._rests)
            await self._sync()

    async def _equals(self, each: Replica, table: Table) -> None:
        try:
            await each.until(lambda: not each.stale(table))
        except TimeoutError:
            stale = {number: r.stale(table) for number, r in enumerate(self.replicas)}
            count = sum(map(len, stale.values()))
            few = next((list(s.items())[:3] for s in stale.values() if s), [])
            state = await self.state()
            raise AssertionError(
                f"{count} rows are stale, e.g. {few}; the feed is {state}"
            ) from None
        assert not each.strange, each.strange[:3]

    async def _rests(self) -> bool:
        state = await self.state()
        return state["listener"]["live"] and not state["busy"]

    async def _sync(self) -> None:
        await asyncio.gather(*(each.sync() for each in self.replicas))

    async def has_frames(self) -> None:
        """Wait until everyone has been told of some changes."""
        for each in self.replicas:
            before = each.told.total()
            await each.until(lambda: each.told.total() > before + 5)  # noqa: B023 (awaited here)

    @contextlib.asynccontextmanager
    async def resumed(self) -> AsyncIterator[Fleet]:
        """Let the clients come back, over new sockets, with what they hold."""
        async with contextlib.AsyncExitStack() as stack:
            made = await stack.enter_async_context(fleet(self.world, self.server, 0))
            for old in self.replicas:
                lists = isinstance(old, ListReplica)
                url = self.server.url("lists/items/" if lists else "items/")
                kind = partial(ListReplica, odd=False) if lists else Replica
                new = await stack.enter_async_context(replica(url, kind))
                await new.resume(old)
                made.replicas.append(new)
            yield made

    def received_what_they_missed(self, before: Fleet, table: Table) -> None:
        """See that each client that came back got one frame of each row that differed, no other."""
        for old, new in zip(before.replicas, self.replicas, strict=True):
            assert new.told == Counter(old.missed(table))

    async def change_all(self) -> None:
        """Change every row, the last write of a test: nothing overwrites what is lost."""
        await self.world.execute(CHANGE_ALL)


@contextlib.asynccontextmanager
async def fleet(
    world: World, server: Server, sockets: int = 24, path: str = "items/"
) -> AsyncIterator[Fleet]:
    """
    Open sockets.

    Every other one watches half of the rows, another half each; those between have lists, of all
    rows or of some.
    """
    async with contextlib.AsyncExitStack() as stack:
        watcher = await stack.enter_async_context(replica(server.url("state/")))
        replicas = [
            await stack.enter_async_context(
                replica(server.url(f"lists/{path}"), partial(ListReplica, odd=number % 4 == 3))
                if number % 2 and path != "picky/"
                else replica(server.url(path))
            )
            for number in range(sockets)
        ]
        made = Fleet(world, server, replicas, watcher)
        await asyncio.gather(
            *(
                each.subscribe([key for key in range(1, ROWS + 1) if (key + number // 2) % 2])
                for number, each in enumerate(replicas)
            )
        )
        yield made
