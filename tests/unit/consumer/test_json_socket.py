"""The life of a socket."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from channels.layers import get_channel_layer

from pgobserve._consumer.json_socket import SocketHooks
from pgobserve.consumers import AsyncAPIConsumer
from pgobserve.decorators import action
from tests.sockets import Client, connected, reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Consumer(AsyncAPIConsumer):
    """Writes down what happens to it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.log: list[str] = kwargs.get("log", [])

    async def disconnect(self, code: int) -> None:
        self.log.append("disconnect")

    async def closed(self) -> None:
        self.log.append("closed")
        await super().closed()

    @action()
    async def who(self, **kwargs: Any) -> tuple[int, int]:
        return id(self), 200

    @action()
    async def join(self, group: str, **kwargs: Any) -> tuple[list[str], int]:
        await self.add_group(group)
        await self.add_group(group)
        return sorted(self.groups), 200

    @action()
    async def leave(self, group: str, **kwargs: Any) -> tuple[list[str], int]:
        await self.remove_group(group)
        await self.remove_group(group)
        return sorted(self.groups), 200

    async def told(self, message: dict[str, Any]) -> None:
        if message.get("fail"):
            raise RuntimeError("secret")
        if message.get("cancelled"):
            raise asyncio.CancelledError
        await self.reply("told", data=message["text"])


@pytest.fixture
def layer(settings: Any) -> Any:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    return get_channel_layer()


async def test_closed_once_after_disconnect() -> None:
    """``closed`` is called once, after ``disconnect``."""
    log: list[str] = []
    async with connected(Consumer.as_asgi(log=log)):
        pass
    assert log == ["disconnect", "closed"]


async def test_closed_when_the_server_cancels() -> None:
    """``closed`` is called when the server cancels the call, without a ``disconnect``."""
    log: list[str] = []
    started = asyncio.Event()

    async def receive() -> dict[str, Any]:
        started.set()
        return await asyncio.Future()

    async def send(message: Any) -> None: ...

    call = asyncio.create_task(
        Consumer.as_asgi(log=log)({"type": "websocket", "headers": []}, receive, send)
    )
    await started.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert log == ["closed"]


async def test_closed_when_connecting_fails() -> None:
    """``closed`` is called when ``connect`` raises, and the server hears of it."""
    log: list[str] = []

    class Failing(Consumer):
        async def connect(self) -> None:
            raise RuntimeError("no")

    client = Client(Failing.as_asgi(log=log))
    await client.communicator.send_input({"type": "websocket.connect"})
    with pytest.raises(RuntimeError, match="no"):
        await client.communicator.wait(timeout=60)
    assert log == ["closed"]


async def test_instance_as_application_serves_each_socket_alone() -> None:
    """One instance given as the application serves many sockets, each with its own consumer."""
    log: list[str] = []
    application = Consumer(log=log)
    async with connected(application) as alice, connected(application) as bob:
        first, second = (await alice.ask("who"))["data"], (await bob.ask("who"))["data"]
        assert first == id(application)
        assert second != first
        assert (await alice.ask("who"))["data"] == first
    assert log == ["disconnect", "closed"] * 2


async def test_serving_surrounds_the_reply() -> None:
    """``serving`` is entered before a message is dispatched and left after its reply."""
    sent: list[str] = []

    class Serving(Consumer):
        @asynccontextmanager
        async def serving(self) -> AsyncIterator[None]:
            sent.append("enter")
            yield
            sent.append("leave")

        async def send_frame(self, text: str) -> None:
            sent.append("frame")
            await super().send_frame(text)

    async with connected(Serving.as_asgi()) as client:
        await client.ask("who")
        await client.send_text("nothing")
        await client.frame()
    assert sent == ["enter", "frame", "leave"] * 2


@pytest.mark.parametrize("mixin_first", [True, False])
async def test_hooks_of_a_mixin_on_either_side(mixin_first: bool) -> None:
    """A mixin's hooks are called wherever it stands among the bases."""
    log: list[str] = []

    class Mixin(SocketHooks):
        @asynccontextmanager
        async def serving(self) -> AsyncIterator[None]:
            log.append("serving")
            async with super().serving():
                yield

        async def closed(self) -> None:
            log.append("mixin")
            await super().closed()

    bases = (Mixin, Consumer) if mixin_first else (Consumer, Mixin)
    application: Any = type("Mixed", bases, {})
    async with connected(application.as_asgi(log=log)) as client:
        await client.ask("who")
    assert sorted(log) == ["closed", "disconnect", "mixin", "serving"]


async def test_client_that_left_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """A reply to a client that is gone is dropped without an error in the log."""
    log: list[str] = []
    messages: list[dict[str, Any]] = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": '{"action": "who"}'},
        {"type": "websocket.disconnect", "code": 1006},
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if messages else await asyncio.Future()

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "websocket.send":
            raise ConnectionResetError

    await Consumer.as_asgi(log=log)({"type": "websocket", "headers": []}, receive, send)
    assert log == ["disconnect", "closed"]
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


class Departing(AsyncAPIConsumer):
    """Answers after its client has left, closes by itself, and takes leave."""

    left: asyncio.Event

    def _left(self, message: dict[str, Any]) -> None:
        super()._left(message)
        self.left.set()

    @action()
    async def late(self, **kwargs: Any) -> tuple[None, int]:
        self.left = asyncio.Event()
        await self.left.wait()
        return None, 200

    @action()
    async def early(self, **kwargs: Any) -> tuple[None, int]:
        return None, 200

    @action()
    async def shut(self, **kwargs: Any) -> tuple[None, int]:
        self.left = asyncio.Event()
        await self.close()
        return None, 200

    async def disconnect(self, code: int) -> None:
        await self.send_json("good-bye")


async def serve(consumer: Any, *actions: str, error: Exception, closes: bool = True) -> list[str]:
    """
    Serve a client that requests actions and leaves; return the types of what was sent.

    Args:
        consumer: The class.
        actions: The actions.
        error: Raised by the server for what is sent once the connection is closed.
        closes: Whether a close of the consumer's own closes it as well.
    """
    texts = [f'{{"action": "{name}"}}' for name in actions]
    messages: list[dict[str, Any]] = [
        {"type": "websocket.connect"},
        *({"type": "websocket.receive", "text": text} for text in texts),
        {"type": "websocket.disconnect", "code": 1006},
    ]
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if messages else await asyncio.Future()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message["type"])
        if not messages or (closes and "websocket.close" in sent[:-1]):
            raise error

    async with asyncio.timeout(60):
        await consumer.as_asgi()({"type": "websocket", "headers": []}, receive, send)
    return sent


@pytest.mark.parametrize(
    "error", [RuntimeError("Unexpected ASGI message"), ValueError(), OSError()]
)
@pytest.mark.parametrize("name", ["late", "shut"])
async def test_send_after_the_end_is_no_error(
    caplog: pytest.LogCaptureFixture, name: str, error: Exception
) -> None:
    """Whatever a server raises for a closed connection, nothing is logged, and the socket ends."""
    sent = await serve(Departing, name, error=error)

    assert sent[-2:] == ["websocket.send", "websocket.send"]
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


async def test_error_of_the_server_is_one(caplog: pytest.LogCaptureFixture) -> None:
    """What a server raises while the client is there is logged."""

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "websocket.send":
            raise RuntimeError("a defect")

    messages = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": '{"action": "early"}'},
    ]
    done = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        done.set()
        return await asyncio.Future()

    served = asyncio.create_task(
        Departing.as_asgi()({"type": "websocket", "headers": []}, receive, send)
    )
    await done.wait()
    served.cancel()
    await asyncio.gather(served, return_exceptions=True)

    assert "a defect" in caplog.text


async def test_json_may_be_encoded_otherwise() -> None:
    """A consumer may bring its own JSON."""

    class Shouting(Consumer):
        @classmethod
        async def encode_json(cls, content: Any) -> str:
            return (await super().encode_json(content)).replace('"who"', '"WHO"')

    async with connected(Shouting.as_asgi()) as client:
        assert (await client.ask("who"))["action"] == "WHO"


async def test_group_without_a_layer_is_500(caplog: pytest.LogCaptureFixture) -> None:
    """Joining a group without a channel layer says in the log what to set; the socket lives."""
    async with connected(Consumer.as_asgi()) as client:
        assert (await client.ask("join", group="a"))["response_status"] == 500
        assert (await client.ask("leave", group="a"))["response_status"] == 200
    assert "set CHANNEL_LAYERS" in caplog.text


async def test_groups_of_the_layer(layer: Any) -> None:
    """A group is joined once, its messages arrive, and it is left when the socket closes."""
    async with connected(Consumer.as_asgi()) as client:
        assert (await client.ask("join", group="a"))["data"] == ["a"]
        assert (await client.ask("join", group="b"))["data"] == ["a", "b"]
        await layer.group_send("a", {"type": "told", "text": "hello"})
        assert await client.frame() == reply("told", "hello")
        assert (await client.ask("leave", group="b"))["data"] == ["a"]
        assert set(layer.groups) == {"a"}
    assert not layer.groups


async def test_groups_are_left_once(layer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that closes leaves each group once."""
    left: list[str] = []

    async def discard(group: str, channel: str) -> None:
        left.append(group)

    monkeypatch.setattr(layer, "group_discard", discard)
    async with connected(Consumer.as_asgi()) as client:
        await client.ask("join", group="a")
    assert left == ["a"]


async def test_failing_handler_of_the_layer(layer: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A channel-layer handler that raises, or does not exist, is logged and the socket lives."""
    async with connected(Consumer.as_asgi()) as client:
        await client.ask("join", group="a")
        await layer.group_send("a", {"type": "told", "fail": True})
        await layer.group_send("a", {"type": "told", "cancelled": True})
        await layer.group_send("a", {"type": "unheard"})
        await layer.group_send("a", {"type": "told", "text": "still here"})
        assert (await client.frame())["data"] == "still here"
    assert caplog.text.count("The handler of told in") == 2
    assert "The handler of unheard in" in caplog.text


async def test_groups_are_left_when_the_call_is_cancelled(layer: Any) -> None:
    """A socket whose call is cancelled leaves its groups."""
    client = Client(Consumer.as_asgi())
    await client.connect()
    await client.ask("join", group="a")
    client.communicator.stop()
    with pytest.raises(asyncio.CancelledError):
        await client.communicator.future
    assert not layer.groups
