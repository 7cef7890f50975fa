"""From a frame to an action and back."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import json
import logging
import uuid
from typing import Any

import pytest
from channels.exceptions import StopConsumer
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.http import Http404
from django.utils.translation import gettext_lazy
from rest_framework.exceptions import NotAuthenticated, Throttled, ValidationError
from rest_framework.throttling import BaseThrottle, SimpleRateThrottle

from pgobserve.consumers import AsyncAPIConsumer
from pgobserve.decorators import action
from pgobserve.permissions import BasePermission
from tests.sockets import Client, connected, reply


class Consumer(AsyncAPIConsumer):
    """Answers, refuses and fails in every way."""

    @action()
    async def echo(self, request_id: Any, action: str, **kwargs: Any) -> tuple[Any, int]:
        return kwargs, 200

    @action()
    def sync_echo(self, **kwargs: Any) -> tuple[Any, int]:
        return kwargs, 202

    @action()
    async def quiet(self, **kwargs: Any) -> list[int]:
        return [1]

    @action(name="other-name")
    async def own_name(self, **kwargs: Any) -> tuple[str, int]:
        return "named", 200

    @action()
    async def add(self, left: int, right: int = 1) -> tuple[int, int]:
        return left + right, 200

    @action()
    async def fail(self, kind: str, **kwargs: Any) -> None:
        raise {
            "404": Http404("which"),
            "403": DjangoPermissionDenied(),
            "400": ValidationError({"name": ["No."]}),
            "429": Throttled(),
            "type": TypeError("unexpected keyword argument 'secret'"),
            "runtime": RuntimeError("secret"),
        }[kind]

    @action()
    async def rich(self, **kwargs: Any) -> tuple[Any, int]:
        return {
            "uuid": uuid.UUID(int=1),
            "decimal": decimal.Decimal("1.50"),
            "moment": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
            "lazy": gettext_lazy("Yes"),
            "set": {1},
        }, 200

    @action()
    async def unrenderable(self, **kwargs: Any) -> tuple[Any, int]:
        return object(), 200

    @action()
    async def infinite(self, **kwargs: Any) -> tuple[Any, int]:
        return float("inf"), 200

    class NoAction:
        action = True

    @action()
    async def malformed(self, **kwargs: Any) -> tuple[Any, ...]:
        return ("one",)

    async def not_an_action(self, **kwargs: Any) -> tuple[str, int]:
        return "secret", 200


async def test_reply_has_five_keys_and_echoes() -> None:
    """A reply has exactly five keys and the action and request id of its message."""
    async with connected(Consumer.as_asgi()) as client:
        assert await client.ask("echo", request_id=1, pk=3) == reply(
            "echo", {"pk": 3}, request_id=1
        )


@pytest.mark.parametrize("request_id", [0, 1.5, "a", None, True, [1], {"a": 1}, "\ud800"])
async def test_any_request_id_comes_back(request_id: object) -> None:
    """A request id may be any JSON value."""
    async with connected(Consumer.as_asgi()) as client:
        assert (await client.ask("echo", request_id=request_id))["request_id"] == request_id


@pytest.mark.parametrize("levels", [21, 500, 900, 940, 960])
async def test_deep_request_id_is_400(levels: int) -> None:
    """A request id that is nested so deeply that it might not come back is 400."""
    async with connected(Consumer.as_asgi()) as client:
        await client.send_text(f'{{"action": "echo", "request_id": {"[" * levels}{"]" * levels}}}')
        assert (await client.frame())["response_status"] == 400
        deep = json.loads("[" * 20 + "]" * 20)
        assert (await client.ask("echo", request_id=deep))["request_id"] == deep


async def test_request_id_is_optional() -> None:
    """Without a request id the reply has null."""
    async with connected(Consumer.as_asgi()) as client:
        assert await client.ask("echo") == reply("echo", {})


async def test_synchronous_action_gets_action_and_request_id() -> None:
    """A synchronous action is called with every key, action and request id included."""
    async with connected(Consumer.as_asgi()) as client:
        assert await client.ask("sync_echo", request_id=1, pk=2) == reply(
            "sync_echo", {"action": "sync_echo", "request_id": 1, "pk": 2}, status=202, request_id=1
        )


async def test_no_tuple_no_reply() -> None:
    """An action that returns no tuple sends no reply."""
    async with connected(Consumer.as_asgi()) as client:
        await client.send(action="quiet", request_id=1)
        assert (await client.ask("echo", request_id=2))["request_id"] == 2


async def test_named_action_loses_its_method_name() -> None:
    """An action with a name is called by it, and not by its method's name."""
    async with connected(Consumer.as_asgi()) as client:
        assert (await client.ask("other-name"))["data"] == "named"
        assert (await client.ask("own_name"))["response_status"] == 405


@pytest.mark.parametrize("name", ["zork", "not_an_action", "NoAction", "reply", "__init__", ""])
async def test_what_is_no_action_is_405(name: str) -> None:
    """An unknown action, or a method that is none, is 405."""
    async with connected(Consumer.as_asgi()) as client:
        assert await client.ask(name, request_id=1) == reply(
            name, errors=[f'Method "{name}" not allowed.'], status=405, request_id=1
        )


async def test_missing_action_is_405() -> None:
    """A message without an action is 405, with DCRF's sentence."""
    async with connected(Consumer.as_asgi()) as client:
        assert await client.ask(request_id=7) == reply(
            None, errors=["Unable to find action in message body."], status=405, request_id=7
        )


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "This is not JSON."),
        ("{", "This is not JSON."),
        ("NaN", "This is not JSON."),
        ('{"action": "echo", "request_id": Infinity}', "This is not JSON."),
        ('{"action": "echo", "request_id": 1e999}', "This is not JSON."),
        ("[" * 100_000, "This is not JSON."),
        ("1" * 5_000, "This is not JSON."),
        ("[]", "Send a JSON object."),
        ("5", "Send a JSON object."),
        ("null", "Send a JSON object."),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_what_is_no_object_is_400(text: str, error: str) -> None:
    """A text frame that is no JSON object is 400 and the socket lives."""
    async with connected(Consumer.as_asgi()) as client:
        await client.send_text(text)
        assert await client.frame() == reply(None, errors=[error], status=400)
        assert (await client.ask("echo"))["response_status"] == 200


async def test_binary_frame_is_400() -> None:
    """A binary frame is 400 and the socket lives."""
    async with connected(Consumer.as_asgi()) as client:
        await client.send_bytes(b"\x00\xff")
        assert (await client.frame())["response_status"] == 400
        assert (await client.ask("echo"))["response_status"] == 200


@pytest.mark.parametrize("name", [None, 5, True, ["echo"], {"echo": 1}])
async def test_action_that_is_no_text_is_400(name: object) -> None:
    """An action that is no string is 400, hashable or not."""
    async with connected(Consumer.as_asgi()) as client:
        await client.send_text(json.dumps({"action": name, "request_id": 1}))
        assert await client.frame() == reply(
            None, errors=['"action" must be a string.'], status=400, request_id=1
        )


@pytest.mark.parametrize("key", ["self", "scope", "consumer"])
@pytest.mark.parametrize("name", ["echo", "sync_echo", "zork"])
async def test_key_that_is_an_argument_of_ours_is_400(key: str, name: str) -> None:
    """A key with the name of an argument of ours is 400 and the socket lives."""
    async with connected(Consumer.as_asgi()) as client:
        assert await client.ask(name, request_id=1, **{key: 1}) == reply(
            name,
            errors=[f'"{key}" is a reserved name and can\'t be a key here.'],
            status=400,
            request_id=1,
        )
        assert (await client.ask("echo"))["response_status"] == 200


@pytest.mark.parametrize(
    "key", ["action_kwargs", "method", "permission", "question", "case", "cls", "args", "kwargs"]
)
async def test_other_key_reaches_the_action(key: str) -> None:
    """A key that only our own code uses as a name is the action's."""
    async with connected(Consumer.as_asgi()) as client:
        assert (await client.ask("echo", **{key: 1}))["data"] == {key: 1}


async def test_missing_argument_is_named() -> None:
    """An argument that the action requires is asked for by name."""
    async with connected(Consumer.as_asgi()) as client:
        assert await client.ask("add", request_id=1, right=1) == reply(
            "add", errors=['"left" is required.'], status=400, request_id=1
        )


async def test_unknown_argument_is_named() -> None:
    """An argument that the action does not take is named."""
    async with connected(Consumer.as_asgi()) as client:
        assert await client.ask("add", left=1, middle=2) == reply(
            "add", errors=['"middle" is not an argument of this action.'], status=400
        )


async def test_action_need_not_take_request_id() -> None:
    """An action that takes neither request id nor action is called without them."""
    async with connected(Consumer.as_asgi()) as client:
        assert await client.ask("add", request_id=1, left=1) == reply("add", 2, request_id=1)


@pytest.mark.parametrize(
    ("kind", "status", "errors"),
    [
        ("404", 404, ["Not found"]),
        ("403", 403, ["You do not have permission to perform this action."]),
        ("400", 400, [{"name": ["No."]}]),
        ("429", 429, ["Request was throttled."]),
    ],
)
async def test_known_exception_has_its_status(kind: str, status: int, errors: list[Any]) -> None:
    """An exception of DRF's or Django's is answered with its status and detail."""
    async with connected(Consumer.as_asgi()) as client:
        assert await client.ask("fail", request_id=1, kind=kind) == reply(
            "fail", errors=errors, status=status, request_id=1
        )


@pytest.mark.parametrize("kind", ["type", "runtime"])
async def test_unexpected_exception_is_500_and_logged(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected exception is logged with its traceback; the client sees no internals."""
    async with connected(Consumer.as_asgi()) as client:
        assert await client.ask("fail", request_id=1, kind=kind) == reply(
            "fail", errors=["Internal server error."], status=500, request_id=1
        )
        assert (await client.ask("echo"))["response_status"] == 200
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert "secret" in str(record.exc_info[1])


async def test_cancelled_work_is_500() -> None:
    """An action that awaits something that was cancelled is 500; the socket lives."""

    class Cancelled(Consumer):
        @action()
        async def wait(self, **kwargs: Any) -> None:
            await self.cancelled()

        @action(detached=True)
        async def wait_detached(self, **kwargs: Any) -> None:
            await self.cancelled()

        async def cancelled(self) -> None:
            future: asyncio.Future[None] = asyncio.Future()
            future.cancel()
            await future

    async with connected(Cancelled.as_asgi()) as client:
        for name in ("wait", "wait_detached"):
            assert await client.ask(name, request_id=1) == reply(
                name, errors=["Internal server error."], status=500, request_id=1
            )
        assert (await client.ask("echo"))["response_status"] == 200


@pytest.mark.parametrize("name", ["unrenderable", "infinite", "malformed"])
async def test_reply_that_can_not_be_sent_is_500(name: str) -> None:
    """What an action returned and JSON can't render is 500 and the socket lives."""
    async with connected(Consumer.as_asgi()) as client:
        assert (await client.ask(name, request_id=1)) == reply(
            name, errors=["Internal server error."], status=500, request_id=1
        )
        assert (await client.ask("echo"))["response_status"] == 200


async def test_reply_renders_what_drf_renders() -> None:
    """Dates, decimals, UUIDs, sets and lazy strings are sent as DRF renders them."""
    async with connected(Consumer.as_asgi()) as client:
        assert (await client.ask("rich"))["data"] == {
            "uuid": "00000000-0000-0000-0000-000000000001",
            "decimal": 1.5,
            "moment": "2026-01-02T03:04:05Z",
            "lazy": "Yes",
            "set": [1],
        }


async def test_stop_consumer_still_stops() -> None:
    """An action that raises ``StopConsumer`` ends the consumer, as Channels has it."""

    class Stopping(AsyncAPIConsumer):
        @action()
        async def stop(self, **kwargs: Any) -> None:
            raise StopConsumer

    client = Client(Stopping.as_asgi())
    await client.connect()
    await client.send(action="stop")
    await client.communicator.wait(timeout=60)


async def test_overridden_action_name() -> None:
    """``get_action_name`` decides what names an action."""

    class Typed(Consumer):
        async def get_action_name(
            self, content: dict[str, Any], **kwargs: Any
        ) -> tuple[Any, dict[str, Any]]:
            return content.pop("type"), content

    async with connected(Typed.as_asgi()) as client:
        assert await client.ask(type="echo", pk=1) == reply("echo", {"pk": 1})
        assert (await client.ask(kind="echo"))["response_status"] == 405
        assert (await client.ask(type="echo", action="echo"))["response_status"] == 400


async def test_failing_action_name_is_500() -> None:
    """A ``get_action_name`` that fails is 500 and the socket lives."""

    class Failing(Consumer):
        async def get_action_name(
            self, content: dict[str, Any], **kwargs: Any
        ) -> tuple[Any, dict[str, Any]]:
            return content["one"] / 0, content

    async with connected(Failing.as_asgi()) as client:
        assert (await client.ask(one=1, request_id=3)) == reply(
            None, errors=["Internal server error."], status=500, request_id=3
        )


async def test_override_may_answer_an_exception() -> None:
    """``handle_exception`` may be overridden and falls back to ours."""

    class Handling(Consumer):
        async def handle_exception(
            self, exc: Exception, action: str | None, request_id: Any
        ) -> None:
            if isinstance(exc, RuntimeError):
                await self.reply(action, errors=["mine"], status=418, request_id=request_id)
            else:
                await super().handle_exception(exc, action, request_id)

    async with connected(Handling.as_asgi()) as client:
        assert (await client.ask("fail", kind="runtime"))["response_status"] == 418
        assert (await client.ask("fail", kind="404"))["response_status"] == 404


async def test_override_that_raises_is_500() -> None:
    """A ``handle_exception`` that raises, as DCRF's does, is answered with 500."""

    class Raising(Consumer):
        async def handle_exception(
            self, exc: Exception, action: str | None, request_id: Any
        ) -> None:
            raise exc

    async with connected(Raising.as_asgi()) as client:
        assert (await client.ask("fail", kind="runtime", request_id=1)) == reply(
            None, errors=["Internal server error."], status=500, request_id=1
        )
        assert (await client.ask("echo"))["response_status"] == 200


class Denying(BasePermission):
    """Refuses, and remembers what it was asked."""

    asked: list[dict[str, Any]] = []

    async def has_permission(self, scope: Any, consumer: Any, action: str, **kwargs: Any) -> bool:
        self.asked.append({"action": action, **kwargs})
        return action == "echo"


async def test_permission_is_asked_first_and_without_request_id() -> None:
    """A refused action is 403, an unknown one too; permissions see all keys but the request id."""

    class Guarded(Consumer):
        permission_classes = (Denying,)

    Denying.asked = []
    async with connected(Guarded.as_asgi()) as client:
        denied = ["You do not have permission to perform this action."]
        assert await client.ask("add", request_id=1, pk=2) == reply(
            "add", errors=denied, status=403, request_id=1
        )
        assert await client.ask("zork") == reply("zork", errors=denied, status=403)
        assert (await client.ask("echo", pk=3))["response_status"] == 200
    assert Denying.asked == [
        {"action": "add", "pk": 2},
        {"action": "zork"},
        {"action": "echo", "pk": 3},
    ]


async def test_refused_connection_is_closed() -> None:
    """A permission that refuses the connection closes it before it is accepted."""

    class Closed(BasePermission):
        def can_connect(self, scope: Any, consumer: Any, message: Any = None) -> bool:  # type: ignore[override]
            return bool(message["type"] != "websocket.connect")

    class Guarded(Consumer):
        permission_classes = (Closed,)

    assert not await Client(Guarded.as_asgi()).connect()


@pytest.mark.parametrize("error", [NotAuthenticated(), DjangoPermissionDenied()])
async def test_refusal_raised_on_connect_closes(error: Exception) -> None:
    """A refusal raised by ``connect`` closes the socket."""

    class Refusing(Consumer):
        async def connect(self) -> None:
            raise error

    assert not await Client(Refusing.as_asgi()).connect()


async def test_throttle_is_429() -> None:
    """An action beyond the rate is 429 with the time to wait."""

    class Twice(SimpleRateThrottle):
        rate = "2/day"
        scope = uuid.uuid4().hex

        def get_cache_key(self, request: Any, view: Any) -> str:
            return f"{self.scope}-{request.META['REMOTE_ADDR']}"

    class Throttled(Consumer):
        throttle_classes = (Twice,)

    async with connected(Throttled.as_asgi(), client=["10.0.0.1", 5]) as client:
        statuses = [(await client.ask("echo"))["response_status"] for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert "Expected available in" in (await client.ask("echo", request_id=1))["errors"][0]
    async with connected(Throttled.as_asgi(), client=["10.0.0.2", 5]) as client:
        assert (await client.ask("echo"))["response_status"] == 200


async def test_throttle_that_knows_no_time() -> None:
    """A throttle that can't tell how long to wait is 429, too."""

    class Never(BaseThrottle):
        def allow_request(self, request: Any, view: Any) -> bool:
            return False

    class Throttled(Consumer):
        throttle_classes = (Never,)

    async with connected(Throttled.as_asgi()) as client:
        assert await client.ask("echo") == reply(
            "echo", errors=["Request was throttled."], status=429
        )


async def test_settings_give_the_defaults(settings: Any) -> None:
    """A consumer without permissions of its own has those of the setting, whenever it is set."""
    settings.DJANGO_CHANNELS_REST_API = {
        "DEFAULT_PERMISSION_CLASSES": ["pgobserve.permissions.IsAuthenticated"]
    }
    async with connected(Consumer.as_asgi()) as client:
        assert (await client.ask("echo"))["response_status"] == 403


def test_subclass_may_withdraw_an_action() -> None:
    """A subclass that overrides an action without the decorator withdraws it."""

    class Less(Consumer):
        async def echo(self, **kwargs: Any) -> None:  # type: ignore[override]
            pass

    assert "echo" in Consumer.available_actions
    assert "echo" not in Less.available_actions


async def test_messages_are_taken_one_by_one() -> None:
    """An action ends before the next message is looked at."""
    entered, leave = asyncio.Event(), asyncio.Event()

    class Slow(Consumer):
        @action()
        async def slow(self, **kwargs: Any) -> tuple[None, int]:
            entered.set()
            await leave.wait()
            return None, 200

    async with connected(Slow.as_asgi()) as client:
        await client.send(action="slow", request_id=1)
        await client.send(action="echo", request_id=2)
        await entered.wait()
        leave.set()
        assert [(await client.frame())["request_id"] for _ in range(2)] == [1, 2]
