"""Consumers in this process, on a real database with triggers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.db import connection, connections

from pgobserve.runtime import runtime
from pgobserve.wire import PAYLOAD_VERSION, TRANSPORTS
from tests.installing import install
from tests.project.models import Item
from tests.sockets import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


class Socket:
    """A client: sends what it is told to, and receives frame by frame."""

    def __init__(self, application: Any, **scope: Any) -> None:
        self.communicator = WebsocketCommunicator(application, "/ws/")
        self.communicator.scope.update(scope)

    async def open(self) -> None:
        connected, _ = await self.communicator.connect(timeout=TIMEOUT)
        assert connected

    async def send(self, /, **content: Any) -> None:
        await self.communicator.send_json_to(content)

    async def receive(self) -> Any:
        return await self.communicator.receive_json_from(timeout=TIMEOUT)

    async def ask(self, action: str, /, **content: Any) -> Any:
        await self.send(action=action, **content)
        return await self.receive()

    async def subscribe(self, pk: Any, request_id: Any = 1, **content: Any) -> Any:
        return await self.ask("subscribe_instance", pk=pk, request_id=request_id, **content)

    async def has_nothing(self) -> bool:
        """Tell whether all that was caused so far sent no frame: a round trip of the feed's."""
        await settled()
        return await self.communicator.receive_nothing(timeout=0.05)

    async def close(self) -> None:
        await self.communicator.disconnect(timeout=TIMEOUT)


async def settled() -> None:
    """Wait until the feed has heard and handled everything that is committed by now."""
    for feed in runtime.current().feeds.values():
        if feed.listener is None or not feed.listener.state.live:
            continue
        # A mark of its own: any other notification may have been sent before what is waited for.
        name, received = uuid.uuid4().hex, asyncio.Event()
        feed._intake._signals = {
            **feed._intake._signals,
            name: lambda _, received=received: received.set(),
        }
        await asyncio.to_thread(_notify, name)
        async with asyncio.timeout(TIMEOUT):
            await received.wait()
            if feed.reader is not None and feed._event_subscriptions.cursor is not None:
                # One read may have begun before this was called.
                reads = feed.reader.state.reads
                while feed.reader.state.reads < reads + 2:
                    feed.reader.wake()
                    await asyncio.sleep(0.005)
            while feed.hub.busy:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


def _notify(name: str) -> None:
    mark = {"v": PAYLOAD_VERSION, "t": name, "o": "I", "x": "0", "k": []}
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify('pgobserve', %s)", [json.dumps(mark)])
    connection.close()


@pytest.fixture(autouse=True)
def only_own_events(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let model observers of other test modules, which stay alive, ask for no outbox here."""
    if not {"evented", "notified"} & {*request.fixturenames}:
        monkeypatch.setattr("pgobserve.subscribe.feeds.evented_models", list)
        monkeypatch.setattr("pgobserve.install.targets.evented_models", list)


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest, settings: Any) -> str:
    """How changes travel; what is promised is the same."""
    transport: str = request.param
    settings.PGOBSERVE = {"TRANSPORT": transport}
    return transport


@pytest.fixture
def labels() -> tuple[str, ...]:
    """The models that `observed` installs triggers for."""
    return "project.Item", "auth.User"


@pytest.fixture
def observed(transactional_db: None, transport: str, labels: tuple[str, ...]) -> Iterator[None]:
    """Triggers on the tables that the tests watch."""
    install(*labels)
    yield
    if transport == "outbox":
        execute("DROP SCHEMA pgobserve CASCADE")


@pytest.fixture
def item(observed: None) -> Item:
    """A row."""
    return Item.objects.create(name="one", rank=1)


@pytest.fixture
def items(observed: None) -> list[Item]:
    """Three rows."""
    return [Item.objects.create(name=name, rank=rank) for rank, name in enumerate("abc")]


@pytest.fixture
async def connect(transactional_db: None) -> AsyncIterator[Callable[..., Any]]:
    """Return a function that opens a socket on a consumer class; all are closed at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_socket(consumer: Any, **scope: Any) -> Socket:
            socket = Socket(consumer.as_asgi(), **scope)
            await socket.open()
            stack.push_async_callback(socket.close)
            return socket

        yield open_socket
    await runtime.current().aclose()
    # The ORM's asynchronous methods run in a thread that keeps its connection.
    await sync_to_async(connections.close_all)()


def execute(sql: str, *params: Any) -> None:
    """Run SQL as a program would that knows nothing of Django."""
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
    connection.close()


async def run_sql(sql: str, *params: Any) -> None:
    """Run SQL in a thread."""
    await asyncio.to_thread(execute, sql, *params)
