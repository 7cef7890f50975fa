"""Observers of Django's signals."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from channels.layers import get_channel_layer
from django.dispatch import Signal

from pgobserve.consumers import AsyncAPIConsumer
from pgobserve.decorators import action
from pgobserve.event_handlers.signal_observer import Observer, observer
from tests.sockets import Client, connected, reply

moved = Signal()
plain = Signal()


@pytest.fixture(autouse=True)
def layer(settings: Any) -> Any:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    return get_channel_layer()


class Consumer(AsyncAPIConsumer):
    @observer(moved, sender="ship")
    async def on_move(self, message: Any, observer: Any = None, **kwargs: Any) -> None:
        assert isinstance(observer, Observer)
        await self.reply("moved", data={"message": message, **kwargs})

    @on_move.serializer
    def on_move(self, signal: Any, sender: Any, to: str, **kwargs: Any) -> Any:
        return {"to": to}

    @on_move.groups_for_signal
    def on_move(self, message: Any, sender: Any, to: str, **kwargs: Any) -> Any:
        yield f"to-{to}"

    @on_move.groups_for_consumer
    def on_move(self, to: str, consumer: Any = None, **kwargs: Any) -> Any:
        yield f"to-{to}"

    @observer(plain)
    async def on_plain(self, message: Any, group: str, message_type: str, **kwargs: Any) -> None:
        await self.reply("plain", data=[message, message_type, kwargs["subscribing_request_ids"]])

    @action()
    async def subscribe(self, request_id: Any, to: str, **kwargs: Any) -> tuple[Any, int]:
        return await self.on_move.subscribe(to, request_id=request_id), 201

    @action()
    async def subscribe_unbound(self, request_id: Any, to: str, **kwargs: Any) -> tuple[Any, int]:
        return await type(self).on_move.subscribe(self, to=to, request_id=request_id), 201

    @action()
    async def unsubscribe(self, to: str, name: Any = None, **kwargs: Any) -> tuple[Any, int]:
        return await self.on_move.unsubscribe(to, request_id=name), 204

    @action()
    async def subscribe_plain(self, **kwargs: Any) -> tuple[Any, int]:
        await self.on_plain.subscribe()
        return None, 201

    @action()
    async def unsubscribe_plain(self, **kwargs: Any) -> tuple[Any, int]:
        await self.on_plain.unsubscribe()
        return None, 204


async def send(signal: Signal, **kwargs: Any) -> None:
    """Send as synchronous code does."""
    await asyncio.to_thread(signal.send, **kwargs)


async def test_signal_reaches_its_group() -> None:
    """A subscriber gets what the serializer made of the signals of his group, and no others."""
    async with connected(Consumer.as_asgi()) as client:
        groups = (await client.ask("subscribe", request_id=1, to="Oslo"))["data"]
        assert len(groups) == 1
        assert len(groups[0]) < 100
        await send(moved, sender="ship", to="Rome")
        await send(moved, sender="bike", to="Oslo")
        await send(moved, sender="ship", to="Oslo")
        assert await client.frame() == reply(
            "moved",
            {
                "message": {"to": "Oslo"},
                "message_type": "on.move",
                "subscribing_request_ids": [1],
                "group": groups[0],
            },
        )


async def test_signal_sent_in_an_event_loop() -> None:
    """A signal may be sent by asynchronous code, too."""
    async with connected(Consumer.as_asgi()) as client:
        await client.ask("subscribe", request_id=1, to="Oslo")
        moved.send(sender="ship", to="Oslo")
        assert (await client.frame())["action"] == "moved"


@pytest.mark.parametrize("name", ["subscribe", "subscribe_unbound"])
async def test_request_ids(name: str) -> None:
    """A message comes once, with all request ids; one that is withdrawn is named no longer."""
    async with connected(Consumer.as_asgi()) as client:
        for request_id in ("a", {"b": 1}, "a", "c"):
            await client.ask(name, request_id=request_id, to="Oslo")
        await send(moved, sender="ship", to="Oslo")
        assert (await client.frame())["data"]["subscribing_request_ids"] == ["a", {"b": 1}, "c"]
        await client.ask("unsubscribe", to="Oslo", name="a")
        await send(moved, sender="ship", to="Oslo")
        assert (await client.frame())["data"]["subscribing_request_ids"] == [{"b": 1}, "c"]


async def test_last_request_id_leaves_the_group(layer: Any) -> None:
    """When the last request id is withdrawn, or all are, the group is left."""
    async with connected(Consumer.as_asgi()) as client:
        await client.ask("subscribe", request_id="a", to="Oslo")
        await client.ask("unsubscribe", to="Oslo", name="other")
        assert len(layer.groups) == 1
        await client.ask("unsubscribe", to="Oslo", name="a")
        assert not layer.groups
        await client.ask("subscribe", request_id="a", to="Oslo")
        await client.ask("subscribe", request_id="b", to="Oslo")
        await client.ask("unsubscribe", to="Oslo")
        assert not layer.groups


async def test_without_groups_and_request_id(layer: Any) -> None:
    """Without groups there is one, and a subscription without a request id can be undone."""
    async with connected(Consumer.as_asgi()) as client:
        await client.ask("subscribe_plain")
        await send(plain, sender=None)
        assert (await client.frame())["data"] == [{}, "on.plain", []]
        await client.ask("unsubscribe_plain")
        assert not layer.groups


async def test_consumers_of_one_module_do_not_share() -> None:
    """Two consumers with a method of the same name in one module get each message once."""

    def make() -> Any:
        class One(AsyncAPIConsumer):
            @observer(plain)
            async def on_plain(self, message: Any, **kwargs: Any) -> None:
                await self.reply("one")

            async def accept(self, **kwargs: Any) -> None:
                await self.on_plain.subscribe()
                await super().accept(**kwargs)

            @action()
            async def ping(self, **kwargs: Any) -> tuple[None, int]:
                return None, 200

        class Two(One):
            @observer(plain)
            async def on_plain(self, message: Any, **kwargs: Any) -> None:
                await self.reply("two")

        return One, Two

    one, two = make()
    async with connected(one.as_asgi()) as first, connected(two.as_asgi()) as second:
        await send(plain, sender=None)
        assert (await first.frame())["action"] == "one"
        assert (await second.frame())["action"] == "two"
        assert (await first.ask("ping"))["action"] == "ping"
        assert (await second.ask("ping"))["action"] == "ping"


def test_observer_ends_with_its_class() -> None:
    """A consumer class that is gone no longer receives."""
    signal = Signal()

    def make() -> None:
        class Gone(AsyncAPIConsumer):
            @observer(signal)
            async def on_signal(self, message: Any, **kwargs: Any) -> None: ...

        assert len(signal.send(None)) == 1

    make()
    gc.collect()
    assert signal.send(None) == []


def test_failing_serializer_is_not_the_senders_problem(caplog: pytest.LogCaptureFixture) -> None:
    """A serializer that raises is logged; the sender goes on."""
    signal = Signal()

    class Failing(AsyncAPIConsumer):
        @observer(signal)
        async def on_signal(self, message: Any, **kwargs: Any) -> None: ...

        @on_signal.serializer
        def on_signal(self, sender: Any, data: Any, **kwargs: Any) -> None: ...

    signal.send("me")
    assert "Failing.on_signal could not send" in caplog.text


async def test_without_a_channel_layer(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Without a channel layer a signal is sent as if nobody listened, and subscribing says why."""
    settings.CHANNEL_LAYERS = {}
    plain.send(sender=None)
    async with connected(Consumer.as_asgi()) as client:
        assert (await client.ask("subscribe_plain"))["response_status"] == 500
    assert "set CHANNEL_LAYERS" in caplog.text


async def test_class_access_gives_the_observer() -> None:
    """On the class there is the observer, on a consumer one that knows it."""
    assert isinstance(Consumer.on_move, Observer)
    assert Consumer.on_move.signal is moved
    assert Consumer().on_move.signal is moved
    assert not await Client(Refusing.as_asgi()).connect()


class Refusing(Consumer):
    async def connect(self) -> None:
        await self.close()
