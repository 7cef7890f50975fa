"""The decorators ``action`` and ``detached``."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from rest_framework.exceptions import ValidationError

from pgobserve.consumers import AsyncAPIConsumer
from pgobserve.decorators import action, detached
from tests.sockets import Client, connected, reply


class Consumer(AsyncAPIConsumer):
    """Has work that takes until it is told to end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.go = asyncio.Event()
        self.cancelled: list[Any] = kwargs.get("cancelled", [])

    @action(detached=True)
    async def work(self, request_id: Any, fail: bool = False, **kwargs: Any) -> tuple[Any, int]:
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.append(request_id)
            raise
        if fail:
            raise ValidationError("No.")
        return "done", 200

    @action(detached=True)
    async def breaks(self, **kwargs: Any) -> tuple[Any, int]:
        raise RuntimeError("secret")

    @detached
    async def background(self, text: str) -> None:
        await self.go.wait()
        await self.reply("background", data=text)

    @detached
    async def background_breaks(self) -> None:
        raise RuntimeError("secret")

    @action()
    async def start(self, **kwargs: Any) -> tuple[None, int]:
        await self.background("hello")
        return None, 200

    @action()
    async def start_breaking(self, **kwargs: Any) -> tuple[None, int]:
        await self.background_breaks()
        return None, 200

    @action()
    async def release(self, **kwargs: Any) -> tuple[None, int]:
        self.go.set()
        return None, 200

    @action()
    async def running(self, **kwargs: Any) -> tuple[dict[str, int], int]:
        return {name: len(tasks) for name, tasks in self.detached_tasks.items()}, 200


async def test_detached_action_lets_others_through() -> None:
    """While a detached action runs, other messages are answered; its reply comes when it ends."""
    async with connected(Consumer.as_asgi()) as client:
        await client.send(action="work", request_id=1)
        assert (await client.ask("running"))["data"] == {"work": 1}
        assert await client.ask("release", request_id=2) == reply("release", request_id=2)
        assert await client.frame() == reply("work", "done", request_id=1)
        assert (await client.ask("running"))["data"] == {}


async def test_detached_action_may_fail() -> None:
    """An exception of a detached action is answered with its action and request id."""
    async with connected(Consumer.as_asgi()) as client:
        await client.send(action="work", request_id=1, fail=True)
        await client.ask("release")
        assert await client.frame() == reply("work", errors=["No."], status=400, request_id=1)
        assert await client.ask("breaks", request_id=2) == reply(
            "breaks", errors=["Internal server error."], status=500, request_id=2
        )


async def test_detached_action_checks_arguments_first() -> None:
    """What does not fit the signature is refused before anything is started."""

    class Strict(Consumer):
        @action(detached=True)
        async def needs(self, what: str, **kwargs: Any) -> tuple[str, int]:
            return what, 200

    async with connected(Strict.as_asgi()) as client:
        assert (await client.ask("needs"))["errors"] == ['"what" is required.']
        assert (await client.ask("needs", what="it"))["data"] == "it"


@pytest.mark.parametrize("how", ["disconnect", "cancel"])
async def test_all_detached_tasks_end_with_the_socket(how: str) -> None:
    """When the socket ends, in whatever way, every detached task is cancelled."""
    cancelled: list[Any] = []
    client = Client(Consumer.as_asgi(cancelled=cancelled))
    await client.connect()
    for number in range(4):
        await client.send(action="work", request_id=number)
    assert (await client.ask("running"))["data"] == {"work": 4}
    if how == "disconnect":
        await client.disconnect()
    else:
        client.communicator.stop()
        with pytest.raises(asyncio.CancelledError):
            await client.communicator.future
    assert sorted(cancelled) == [0, 1, 2, 3]


async def test_detached_action_may_cancel_its_like() -> None:
    """A detached action that cancels all of its name is not waited for by itself."""

    class Only(AsyncAPIConsumer):
        @action(detached=True)
        async def only(self, first: bool = False, **kwargs: Any) -> tuple[str, int]:
            if first:
                await asyncio.Future()
            await self.cancel_detached("only")
            return "last", 200

    async with connected(Only.as_asgi()) as client:
        await client.send(action="only", first=True)
        assert (await client.ask("only"))["data"] == "last"


async def test_detached_method() -> None:
    """A detached method that is no action runs beside the socket and may send."""
    async with connected(Consumer.as_asgi()) as client:
        assert await client.ask("start") == reply("start")
        assert (await client.ask("running"))["data"] == {"background": 1}
        await client.ask("release")
        assert await client.frame() == reply("background", "hello")


async def test_detached_method_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """An exception in a detached method is logged with its traceback; the socket lives."""
    async with connected(Consumer.as_asgi()) as client:
        assert (await client.ask("start_breaking"))["response_status"] == 200
        assert (await client.ask("running"))["data"] == {}
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert record.exc_info is not None


def test_asynchronous_action_is_not_atomic() -> None:
    """An asynchronous action can't be atomic."""
    with pytest.raises(ValueError, match="only synchronous actions can be atomic"):

        @action(atomic=True)
        async def method(self: object) -> None: ...


def test_synchronous_action_is_not_detached() -> None:
    """A synchronous action can't be detached."""
    with pytest.raises(ValueError, match="only asynchronous actions can be detached"):

        @action(detached=True)
        def method(self: object) -> None: ...


def test_synchronous_method_is_not_detached() -> None:
    """A synchronous method can't be detached."""
    with pytest.raises(ValueError, match="only asynchronous methods can be detached"):

        @detached  # type: ignore[arg-type]
        def method(self: object) -> None: ...


def test_action_keeps_the_method() -> None:
    """What is decorated keeps its name, its documentation and the decorator's arguments."""

    @action(name="other", extra=1)
    def method(self: object) -> None:
        """Do it."""

    assert (method.__name__, method.__doc__) == ("method", "Do it.")
    assert method.kwargs == {"name": "other", "extra": 1}  # type: ignore[attr-defined]
