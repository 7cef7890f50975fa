"""Permissions: ours, DRF's, and their compositions."""

from __future__ import annotations

import asyncio
import threading
from inspect import isawaitable
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from rest_framework import permissions as drf

from pgobserve._consumer.permission_call import PermissionCase, check, check_async
from pgobserve.consumers import AsyncAPIConsumer
from pgobserve.decorators import action
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.permissions import (
    AllowAny,
    BasePermission,
    IsAuthenticated,
    WrappedDRFPermission,
    adapt,
    checks_objects,
)
from tests.sockets import Client, connected

USER = SimpleNamespace(pk=1, is_authenticated=True, is_staff=False)
STAFF = SimpleNamespace(pk=2, is_authenticated=True, is_staff=True)
CONSUMER: Any = SimpleNamespace()


class AsyncYes(BasePermission):
    async def has_permission(self, scope: Any, consumer: Any, action: str, **kwargs: Any) -> bool:
        return True


class AsyncNo(BasePermission):
    async def has_permission(self, scope: Any, consumer: Any, action: str, **kwargs: Any) -> bool:
        return False

    async def can_connect(self, scope: Any, consumer: Any, message: Any = None) -> bool:
        return False


class SyncYes(BasePermission):
    def has_permission(self, scope: Any, consumer: Any, action: str, **kwargs: Any) -> bool:
        assert threading.current_thread() is not threading.main_thread()
        return True


class SyncNo(BasePermission):
    def has_permission(self, scope: Any, consumer: Any, action: str, **kwargs: Any) -> bool:
        assert threading.current_thread() is not threading.main_thread()
        return False


class DrfYes(drf.BasePermission):
    def has_permission(self, request: Any, view: Any) -> bool:
        assert threading.current_thread() is not threading.main_thread()
        return True


class DrfNo(drf.BasePermission):
    message = "Not you."
    code = "not_you"

    def has_permission(self, request: Any, view: Any) -> bool:
        return False

    def has_object_permission(self, request: Any, view: Any, obj: Any) -> bool:
        return False


async def allowed(make: Any, question: Any = "has_permission", **case: Any) -> bool:
    given = {"scope": {}, "consumer": CONSUMER, "action": "list"} | case
    return await check_async(adapt(make()), question, PermissionCase(**given))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (AsyncYes & AsyncYes, True),
        (AsyncYes & AsyncNo, False),
        (AsyncYes & SyncNo, False),
        (SyncYes & AsyncYes, True),
        (SyncYes & SyncYes, True),
        (AsyncNo | AsyncYes, True),
        (SyncNo | AsyncYes, True),
        (AsyncNo | SyncYes, True),
        (AsyncNo | SyncNo, False),
        (~AsyncNo, True),
        (~SyncYes, False),
        (~(AsyncYes & SyncNo), True),
        (AsyncYes & DrfYes, True),
        (DrfYes & AsyncYes, True),
        (DrfYes & AsyncNo, False),
        (DrfNo | AsyncYes, True),
        (AsyncNo | DrfNo, False),
        (DrfYes & DrfNo, False),
        (~DrfNo & AsyncYes, True),
        ((DrfNo | DrfYes) & SyncYes, True),
        ((DrfYes & SyncYes) | AsyncNo, True),
        (SyncNo | (DrfYes & AsyncYes & SyncYes), True),
        ((DrfNo | AsyncNo) | (SyncNo | ~SyncYes), False),
    ],
)
async def test_composition(expression: Any, expected: bool) -> None:
    """Permissions of every kind compose on either side of an operator."""
    assert await allowed(expression) is expected


async def test_composition_of_can_connect() -> None:
    """Compositions decide on connecting, too."""
    assert await allowed(AsyncYes & AllowAny, "can_connect")
    assert not await allowed(AsyncYes & AsyncNo, "can_connect")
    assert await allowed(AsyncNo | AllowAny, "can_connect")
    assert await allowed(~AsyncNo, "can_connect")
    assert not await allowed(DrfNo, "can_connect")


async def test_composition_can_be_awaited() -> None:
    """Compositions and DRF's permissions have DCRF's asynchronous methods."""
    for permission in (
        (AsyncYes & DrfYes)(),
        (AsyncNo | SyncYes)(),
        WrappedDRFPermission(DrfYes()),
    ):
        assert await permission.has_permission({}, CONSUMER, "list") is True
        assert await permission.can_connect({}, CONSUMER) is True


async def test_second_operand_is_asked_only_if_needed() -> None:
    """The second operand is not asked when the first decides."""

    class Never(BasePermission):
        async def has_permission(
            self, scope: Any, consumer: Any, action: str, **kwargs: Any
        ) -> bool:
            raise AssertionError

    assert not await allowed(AsyncNo & Never)
    assert await allowed(SyncYes | Never)


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ({}, False),
        ({"user": None}, False),
        ({"user": AnonymousUser()}, False),
        ({"user": SimpleNamespace(pk=None, is_authenticated=True)}, False),
        ({"user": USER}, True),
    ],
)
async def test_is_authenticated(scope: dict[str, Any], expected: bool) -> None:
    """Only a user that is saved and logged in is authenticated."""
    assert await allowed(IsAuthenticated, scope=scope) is expected


async def test_base_permission_refuses() -> None:
    """A permission that says nothing refuses actions and lets connect, as DCRF's does."""
    assert not await allowed(BasePermission)
    assert await allowed(BasePermission, "can_connect")


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("create", "PUT"),
        ("update", "PATCH"),
        ("list", "GET"),
        ("retrieve", "GET"),
        ("delete", "DELETE"),
        ("patch", "PATCH"),
        ("zork", "ZORK"),
    ],
)
async def test_drf_permission_sees_a_request(name: str, method: str) -> None:
    """A permission of DRF sees the action's method, the user, the headers and what was sent."""
    seen: list[Any] = []

    class Looking(drf.BasePermission):
        def has_permission(self, request: Any, view: Any) -> bool:
            seen.append((request.method, request.user, request.headers["Authorization"], view))
            seen.append((request.query_params["a"], request.data, request.META["authorization"]))
            return True

    scope = {"user": USER, "headers": [(b"authorization", b"Token x")]}
    kwargs = {"query": {"a": 1}, "data": {"b": 2}}
    assert await allowed(Looking, scope=scope, action=name, kwargs=kwargs)
    assert seen == [(method, USER, "Token x", CONSUMER), ("1", {"b": 2}, "Token x")]


async def test_drf_permission_on_connect_sees_head() -> None:
    """When the socket opens, a permission of DRF sees a HEAD request."""
    seen: list[Any] = []

    class Looking(drf.BasePermission):
        def has_permission(self, request: Any, view: Any) -> bool:
            seen.append((request.method, request.user.is_anonymous, request.user.pk))
            return True

    assert await allowed(Looking, "can_connect", action="connect")
    assert seen == [("HEAD", True, None)]


async def test_drf_is_authenticated_refuses_the_connection() -> None:
    """DRF's IsAuthenticated refuses an anonymous socket; ours refuses its actions."""

    class Theirs(AsyncAPIConsumer):
        permission_classes = (drf.IsAuthenticated,)

    class Ours(AsyncAPIConsumer):
        permission_classes = (IsAuthenticated,)

        @action()
        async def ping(self, **kwargs: Any) -> tuple[None, int]:
            return None, 200

    assert not await Client(Theirs.as_asgi()).connect()
    async with connected(Theirs.as_asgi(), user=USER):
        pass
    async with connected(Ours.as_asgi()) as client:
        assert (await client.ask("ping"))["response_status"] == 403


async def test_message_of_a_permission_is_the_error() -> None:
    """A permission's own message is what the client reads."""

    class Guarded(AsyncAPIConsumer):
        permission_classes = (DrfNoButConnect,)

    async with connected(Guarded.as_asgi()) as client:
        assert (await client.ask("list"))["errors"] == ["Not you."]


class DrfNoButConnect(DrfNo):
    def has_permission(self, request: Any, view: Any) -> bool:
        return bool(request.method == "HEAD")


LIST = PermissionCase({}, CONSUMER, "list")


def test_synchronous_permissions_answer_in_the_calling_thread() -> None:
    """``check`` answers synchronous permissions at once, in the thread that it is called in."""
    given: list[Any] = []

    def work() -> None:
        given.extend(
            check(adapt(make()), "has_permission", LIST)
            for make in (SyncYes, SyncNo, DrfYes, SyncYes & DrfNo, ~SyncNo)
        )

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert given == [True, False, True, False, True]


async def test_asynchronous_permissions_give_an_awaitable() -> None:
    """``check`` gives an awaitable when the permission is asynchronous."""
    given = check((AsyncYes & SyncNo)(), "has_permission", LIST)
    assert isawaitable(given)
    assert await given is False


class Owner(BasePermission):
    async def has_permission(self, scope: Any, consumer: Any, action: str, **kwargs: Any) -> bool:
        return action != "hide"

    def has_object_permission(
        self, scope: Any, consumer: Any, action: str, instance: Any, **kwargs: Any
    ) -> bool:
        return bool(instance == scope["owns"])


@pytest.mark.parametrize(
    ("make", "instance", "expected"),
    [
        (AllowAny, "b", True),
        (Owner, "a", True),
        (Owner, "b", False),
        (Owner & AllowAny, "b", False),
        (Owner & DrfNo, "a", False),
        (Owner | AllowAny, "b", True),
        (~Owner, "b", True),
        (DrfNo, "a", False),
        (DrfYes, "a", True),
    ],
)
async def test_object_permission(make: Any, instance: str, expected: bool) -> None:
    """Permissions and compositions judge objects."""
    permission = adapt(make())
    case = PermissionCase({"owns": "a"}, CONSUMER, "list", {}, instance)
    given = await asyncio.to_thread(check, permission, "has_object_permission", case)
    assert (await given if isawaitable(given) else given) is expected


def test_operand_that_refuses_the_action_has_no_say_about_the_object() -> None:
    """As in DRF, an operand of ``|`` that refuses the action can't allow its object."""
    permission = adapt((DrfObjectYes | DrfNo)())
    case = PermissionCase({}, CONSUMER, "list", {}, "a")
    assert check(permission, "has_object_permission", case) is False


class DrfObjectYes(drf.BasePermission):
    def has_permission(self, request: Any, view: Any) -> bool:
        return False

    def has_object_permission(self, request: Any, view: Any, obj: Any) -> bool:
        return True


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (AllowAny, False),
        (AsyncYes & SyncNo, False),
        (DrfYes, False),
        (Owner, True),
        (DrfNo, True),
        (AllowAny | ~Owner, True),
    ],
)
def test_checks_objects(make: Any, expected: bool) -> None:
    """A permission that has nothing to say about objects is known as such."""
    assert checks_objects(adapt(make())) is expected


async def test_check_object_permissions_waits_for_asynchronous_ones() -> None:
    """An asynchronous object permission is asked from the thread that looks an object up."""

    class AsyncOwner(BasePermission):
        async def has_permission(
            self, scope: Any, consumer: Any, action: str, **kwargs: Any
        ) -> bool:
            return True

        async def has_object_permission(
            self, scope: Any, consumer: Any, action: str, instance: Any, **kwargs: Any
        ) -> bool:
            return bool(instance == scope["owns"] and action == "look")

    class Consumer(GenericAsyncAPIConsumer):
        async def get_permissions(self, action: str, **kwargs: Any) -> list[Any]:
            return [AsyncOwner()]

        @action()
        def look(self, at: str, **kwargs: Any) -> tuple[str, int]:
            self.check_object_permissions(at, **kwargs)
            return at, 200

    async with connected(Consumer.as_asgi(), owns="a") as client:
        assert (await client.ask("look", at="a"))["response_status"] == 200
        assert (await client.ask("look", at="b"))["response_status"] == 403
