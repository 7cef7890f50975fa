"""A socket that compares what the feed sends it with what its own ``list`` and ``retrieve`` say."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from channels.testing import WebsocketCommunicator

from tests.integration.oracle.context import by_scope

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Sequence

    from tests.integration.oracle.kind import Kind

CHANGES = ("create", "update", "delete")

#: A test that waits this long has failed.
TIMEOUT = 60


class Differs(AssertionError):
    """The feed sent something else than ``list`` and ``retrieve`` say."""


@dataclass(frozen=True)
class State:
    """
    What a socket's own actions say at one moment.

    Attributes:
        status: Of ``list``.
        rows: Of ``list``, by key.
        single: What ``retrieve`` shows, by key; rows that it refuses are left out.
    """

    status: int
    rows: dict[Any, Any]
    single: dict[Any, Any]


@dataclass
class Replica:
    """
    What the frames of one subscription have told so far.

    Attributes:
        key: Of the watched row; None if it is a list.
        only: ``"keys"`` or ``"count"``, if the client wants nothing else of a list.
        rows: By key, as a client has them now.
        frames: Since they were last compared.
        fresh: It has begun since then.
    """

    key: Any = None
    only: str | None = None
    rows: dict[Any, Any] = field(default_factory=dict)
    frames: list[Any] = field(default_factory=list)
    fresh: bool = True

    def take(self, frame: Any) -> None:
        """Apply a frame as a client does."""
        self.frames.append(frame)
        data, action = frame["data"], frame["action"]
        if frame["errors"]:
            return
        if action == "delete":
            self.rows.pop(data["pk"], None)
        elif action in {"create", "update"}:
            self.rows |= rows_of(data)
        else:
            self.rows = rows_of(data)

    def truth(self, state: State) -> dict[Any, Any]:
        """Return what it should have in a state."""
        if self.only == "keys":
            return {key: {"pk": key} for key in state.rows}
        if self.only == "count":
            return {"count": {"count": len(state.rows)}}
        if self.key is None:
            return state.rows
        return {key: row for key, row in state.single.items() if key == self.key}

    def wrong(self, frame: Any, states: Sequence[State], *, mixes: bool) -> bool:
        """Tell whether a frame says what was true in none of the states."""
        truths = [self.truth(state) for state in states]
        data, action = frame["data"], frame["action"]
        if frame["errors"]:
            return all(state.status == 200 for state in states)
        if action == "delete":
            return all(data["pk"] in truth for truth in truths)
        told = rows_of(data)
        if mixes and not leaves(told) - leaves(truths):
            return False
        if action in {"create", "update"}:
            # Items of dictionaries that hold dictionaries can't be compared as sets.
            return not any(truth == {**truth, **told} for truth in truths)
        return told not in truths


def rows_of(data: Any) -> dict[Any, Any]:
    """Return the rows of a frame, by key."""
    if "count" in data:
        return {"count": data}
    rows = data.get("results", [data])
    return {row["id"] if "id" in row else row["pk"]: row for row in rows}


def leaves(value: Any) -> set[Any]:
    """Return the texts and numbers in a structure."""
    if isinstance(value, dict):
        return leaves([*value.values()])
    if isinstance(value, list):
        return set().union(*map(leaves, value))
    return {value}


class Socket:
    """
    A client of one consumer.

    Attributes:
        replicas: Its subscriptions, by request id.
        draw: What is random about it.
        wished: A row that it is about to subscribe to.
        states: What its own actions said since the last comparison; the first is from before.
    """

    def __init__(
        self, kind: Kind, scope: dict[str, Any], asked: dict[str, Any], draw: random.Random
    ) -> None:
        self.kind = kind
        self.draw = draw
        self.name = f"{kind.name} of {scope['user']}, {scope.get('language')}, {asked}"
        self.replicas: dict[str, Replica] = {}
        self.states: list[State] = []
        self.wished: Any = None
        self._asked = asked
        self._answers: dict[str, asyncio.Future[Any]] = {}
        self._numbers = itertools.count()
        self._communicator = WebsocketCommunicator(by_scope(self._serve), "/")
        self._communicator.scope.update(scope)
        self._reader: asyncio.Task[None] | None = None

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        self.consumer: Any = self.kind.consumer()
        await self.consumer(scope, receive, send)

    async def open(self) -> None:
        """Connect."""
        connected, _ = await self._communicator.connect(timeout=TIMEOUT)
        assert connected
        self._reader = asyncio.create_task(self._read())

    async def aclose(self) -> None:
        """Disconnect."""
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        await self._communicator.disconnect(timeout=TIMEOUT)

    async def ask(self, action: str, request_id: str | None = None, **content: Any) -> Any:
        """Send a request and return the reply."""
        request_id = request_id or f"asked {next(self._numbers)}"
        answer = self._answers[request_id] = asyncio.get_running_loop().create_future()
        message = {"action": action, "request_id": request_id, **self._asked, **content}
        await self._communicator.send_json_to(message)
        assert self._reader is not None
        async with asyncio.timeout(TIMEOUT):
            await asyncio.wait([answer, self._reader], return_when="FIRST_COMPLETED")
        if self._reader.done():
            self._reader.result()
        return answer.result()

    async def _read(self) -> None:
        while True:
            message = await self._communicator.output_queue.get()
            frame = json.loads(message["text"])
            request_id = frame["request_id"]
            if frame["action"] in CHANGES:
                if request_id in self.replicas:
                    self.replicas[request_id].take(frame)
                continue
            if frame["response_status"] == 201:
                self.replicas[request_id].take(frame)
            self._answers.pop(request_id).set_result(frame)

    async def subscribe(self, key: Any = None, only: str | None = None) -> Any:
        """Subscribe to a row, with its data in the reply, or to what ``list`` shows."""
        request_id = f"subscription {next(self._numbers)}"
        replica = self.replicas[request_id] = Replica(key, only)
        if key is None:
            answer = await self.ask("subscribe_list", request_id, only=only)
        else:
            answer = await self.ask("subscribe_instance", request_id, pk=key, snapshot=True)
        if answer["response_status"] != 201:
            if answer["response_status"] not in {403, 404} or replica.frames:
                raise Differs(f"{self.name}: {answer}, then {replica.frames}")
            del self.replicas[request_id]
        return answer

    async def unsubscribe(self, request_id: str) -> None:
        """End a subscription."""
        replica = self.replicas[request_id]
        if replica.key is None:
            await self.ask("unsubscribe_list", request_id)
        else:
            await self.ask("unsubscribe_instance", request_id, pk=replica.key)
        del self.replicas[request_id]

    async def wish(self, key: Any) -> None:
        """Look at a row that is about to be subscribed to."""
        self.wished = key
        self.states[-1].single.update(await self._retrieve([key]))

    async def _retrieve(self, keys: Iterable[Any]) -> dict[Any, Any]:
        answers = [await self.ask("retrieve", pk=key) for key in keys]
        return {a["data"]["id"]: a["data"] for a in answers if a["response_status"] == 200}

    async def look(self, keys: Sequence[Any]) -> None:
        """Note what the socket's own actions say now; ``keys`` are those of all rows."""
        watched = {self.wished, *(r.key for r in self.replicas.values())} - {None}
        single = await self._retrieve(keys if self.kind.judges else watched)
        if self.kind.judges:
            self.states.append(State(200, single, single))
            return
        answer = await self.ask("list")
        assert answer["response_status"] in {200, 403}, answer
        rows = answer["data"] if answer["response_status"] == 200 else []
        self.states.append(State(answer["response_status"], {r["id"]: r for r in rows}, single))

    async def rest(self) -> None:
        """Wait until all that the feed has for the socket is sent and read."""
        subscriptions = self.consumer.subscriptions
        await subscriptions.writer.settle()
        while len(subscriptions.send_queue):
            await asyncio.sleep(0)
            await subscriptions.writer.settle()
        while self._communicator.output_queue.qsize():  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def compare(self) -> None:
        """
        Compare what the feed has sent with the states.

        Raises:
            Differs: Something else was sent, or not all of it.
        """
        for request_id, replica in [*self.replicas.items()]:
            # Several queries of one read may see a change or not.
            any_state = replica.fresh or self.kind.mixes
            states = self.states if any_state else self.states[1:]
            for frame in replica.frames:
                if replica.wrong(frame, states, mixes=self.kind.mixes):
                    truths = [replica.truth(state) for state in states]
                    raise Differs(f"{self.name}: the feed sent\n  {frame}\n{_told(truths)}")
            last = replica.truth(self.states[-1])
            replica.frames, replica.fresh = [], False
            if any(state.status != 200 for state in self.states):
                await self.unsubscribe(request_id)
            elif replica.rows != last:
                raise Differs(f"{self.name}: left with\n  {replica.rows}\n{_told([last])}")
        del self.states[:-1]


def _told(truths: list[Any]) -> str:
    lines = dict.fromkeys(map(str, truths))
    return "where its own actions say\n  " + "\n  ".join(lines)
