"""Frames that wait for a slow socket are checked again, or read anew, when they have become old."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelInstanceMixin, ObserverModelListMixin
from pgobserve.permissions import BasePermission
from tests.integration.deliver.conftest import run_sql, settled
from tests.integration.deliver.test_list import ItemSerializer
from tests.project.models import Item


@pytest.fixture
def transport(settings: Any) -> str:
    """Nothing here depends on how changes travel."""
    settings.PGOBSERVE = {"TRANSPORT": "notify"}
    return "notify"


class Switch(BasePermission):
    """Allows what is switched on."""

    actions = True
    rows = True

    def has_permission(self, scope: Any, consumer: Any, action: str, **kwargs: Any) -> bool:  # type: ignore[override]
        return self.actions

    def has_object_permission(
        self, scope: Any, consumer: Any, action: str, instance: Any, **kwargs: Any
    ) -> bool:
        return self.rows or instance.name == "open"


class Consumer(ObserverModelListMixin, ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    """Sends the frames of changes through a gate."""

    queryset = Item.objects.order_by("id")
    serializer_class = ItemSerializer
    permission_classes = [Switch]
    opened: asyncio.Event
    waiting: asyncio.Event

    async def send_json(self, content: Any, close: bool = False) -> None:
        if content["action"] in ("create", "update", "delete"):
            self.waiting.set()
            await self.opened.wait()
        await super().send_json(content, close)


class Gate:
    """A socket that takes no frames for a while, and a clock that goes on meanwhile."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket

    async def close(self) -> None:
        Consumer.opened, Consumer.waiting = asyncio.Event(), asyncio.Event()

    async def open(self, later: float) -> None:
        """Let frames through, some seconds later as the queue counts."""
        send_queue = Consumer.last.subscriptions.send_queue  # type: ignore[attr-defined]
        send_queue._clock = lambda: time.monotonic() + later
        Consumer.opened.set()


@pytest.fixture
async def gate(connect: Any, items: list[Item], monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Return a closed gate before a socket that has rows and lists."""
    monkeypatch.setattr(Switch, "actions", True)
    monkeypatch.setattr(Switch, "rows", True)

    class Last(Consumer):
        async def websocket_connect(self, message: Any) -> None:
            Consumer.last = self  # type: ignore[attr-defined]
            await super().websocket_connect(message)

    made = Gate(await connect(Last))
    await made.close()
    return made


async def subscribe(socket: Any, items: list[Item], kind: str) -> None:
    """Subscribe to all rows, each by itself or as a list."""
    if kind == "list":
        assert (await socket.ask("subscribe_list", request_id=1))["response_status"] == 201
    else:
        for item in items:
            assert (await socket.subscribe(item.pk, 1))["response_status"] == 201


@pytest.mark.parametrize("kind", ["list", "rows"])
async def test_action_revoked(gate: Gate, items: list[Item], kind: str) -> None:
    """Of frames that wait while a permission is withdrawn, those that are too old show nothing."""
    await subscribe(gate.socket, items, kind)
    await run_sql("UPDATE project_item SET name = 'waiting'")
    await Consumer.waiting.wait()
    await settled()
    Switch.actions = False
    await gate.open(10)
    frames = [await gate.socket.receive() for _ in items]

    assert [frame["response_status"] for frame in frames] == [200, 403, 403]
    assert await gate.socket.has_nothing()


@pytest.mark.parametrize("kind", ["list", "rows"])
async def test_rows_revoked(gate: Gate, items: list[Item], kind: str) -> None:
    """So do those of rows that are hidden meanwhile: they are deletes, or nothing at all."""
    await subscribe(gate.socket, items, kind)
    await run_sql("UPDATE project_item SET name = 'waiting'")
    await Consumer.waiting.wait()
    await run_sql("INSERT INTO project_item (id, name, rank) VALUES (900, 'new', 9)")
    await settled()
    Switch.rows = False
    await gate.open(10)
    frames = [await gate.socket.receive() for _ in items]

    assert [frame["action"] for frame in frames] == ["update", "delete", "delete"]
    assert await gate.socket.has_nothing()
    await run_sql("UPDATE project_item SET name = 'open' WHERE id = 900")
    if kind == "list":
        assert (await gate.socket.receive())["action"] == "create"


@pytest.mark.parametrize("kind", ["list", "rows"])
@pytest.mark.parametrize("later", [0, 10])
async def test_nothing_revoked(gate: Gate, items: list[Item], kind: str, later: float) -> None:
    """Frames that waited arrive, once each, and as the rows are by then."""
    await subscribe(gate.socket, items, kind)
    await run_sql("UPDATE project_item SET name = 'waiting'")
    await Consumer.waiting.wait()
    await settled()
    await gate.open(later)
    frames = [await gate.socket.receive() for _ in items]

    assert sorted(frame["data"]["id"] for frame in frames) == [item.pk for item in items]
    assert {(frame["action"], frame["data"]["name"]) for frame in frames} == {("update", "waiting")}
    assert await gate.socket.has_nothing()
    await run_sql("UPDATE project_item SET name = 'last'")
    frames = [await gate.socket.receive() for _ in items]
    assert {frame["data"]["name"] for frame in frames} == {"last"}


async def test_count_revoked(gate: Gate, items: list[Item]) -> None:
    """A number of rows that waits is counted anew."""
    await gate.socket.ask("subscribe_list", request_id=1, only="count")
    await gate.socket.ask("subscribe_list", request_id=2, only="count")
    await run_sql("INSERT INTO project_item (id, name, rank) VALUES (900, 'open', 9)")
    await Consumer.waiting.wait()
    await settled()
    Switch.rows = False
    await gate.open(10)
    frames = [await gate.socket.receive() for _ in "12"]

    assert [frame["data"]["count"] for frame in frames] == [4, 1]
