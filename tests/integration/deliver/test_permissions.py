"""Permissions are asked on every frame; a refusal comes without data."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from rest_framework import permissions as drf
from rest_framework.exceptions import PermissionDenied

from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelInstanceMixin
from pgobserve.permissions import BasePermission, IsAuthenticated
from tests.integration.deliver.conftest import run_sql
from tests.integration.deliver.test_instance import ItemSerializer
from tests.project.models import Item

RENAME = "UPDATE project_item SET name = %s"
allowed: set[str] = set()
asked: list[Any] = []
threads: set[str] = set()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    allowed.clear()
    asked.clear()
    threads.clear()


class SyncPermission(BasePermission):
    """Looks at a switch, synchronously."""

    def has_permission(self, scope: Any, consumer: Any, action: str, **kwargs: Any) -> bool:  # type: ignore[override]
        asked.append((action, kwargs.get("pk")))
        threads.add(threading.current_thread().name)
        return str(scope["user"]) in allowed


class AsyncPermission(BasePermission):
    """Looks at a switch, asynchronously."""

    async def has_permission(self, scope: Any, consumer: Any, action: str, **kwargs: Any) -> bool:
        await asyncio.sleep(0)
        asked.append((action, kwargs.get("pk")))
        return str(scope["user"]) in allowed


class DRFPermission(drf.BasePermission):
    """REST framework's kind."""

    message = "Not you."

    def has_permission(self, request: Any, view: Any) -> bool:
        asked.append((view.__class__.__name__, request.user))
        return str(request.user) in allowed


class ObjectPermission(drf.BasePermission):
    """Refuses rows of rank 2."""

    def has_object_permission(self, request: Any, view: Any, obj: Any) -> bool:
        return bool(obj.rank != 2)


class AsyncObjectPermission(BasePermission):
    """Refuses rows of rank 2, asynchronously."""

    async def has_permission(self, scope: Any, consumer: Any, action: str, **kwargs: Any) -> bool:
        return True

    async def has_object_permission(  # type: ignore[override]
        self, scope: Any, consumer: Any, action: str, instance: Any, **kwargs: Any
    ) -> bool:
        await asyncio.sleep(0)
        return bool(instance.rank != 2)


class Base(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    queryset = Item.objects.all()
    serializer_class = ItemSerializer


class OverriddenCheck(Base):
    """Has its own way to check."""

    async def check_permissions(self, action: str, **kwargs: Any) -> None:
        if str(self.scope["user"]) not in allowed:
            raise PermissionDenied


def guarded(*classes: Any) -> Any:
    """Return a consumer class with these permissions."""
    return type("Guarded", (Base,), {"permission_classes": classes})


CONSUMERS = {
    "sync": guarded(SyncPermission),
    "async": guarded(AsyncPermission),
    "drf": guarded(DRFPermission),
    "mixed": guarded(DRFPermission & AsyncPermission),
    "two": guarded(SyncPermission, AsyncPermission),
    "overridden": OverriddenCheck,
}


@pytest.mark.parametrize("kind", CONSUMERS)
async def test_denied_frame_has_no_data(connect: Any, item: Item, kind: str) -> None:
    """A permission withdrawn is exactly one 403 frame for a change; given again, data follow."""
    allowed.update({"alice", "bob"})
    alice, bob = [
        await connect(CONSUMERS[kind], user=User(username=name)) for name in ("alice", "bob")
    ]
    for socket in (alice, bob):
        assert (await socket.subscribe(item.pk, 3))["response_status"] == 201
    allowed.discard("bob")
    await run_sql(RENAME, "secret")
    shown, denied = await alice.receive(), await bob.receive()
    assert await bob.has_nothing()
    allowed.add("bob")
    await run_sql(RENAME, "open")

    assert shown["data"]["name"] == "secret"
    assert (denied["response_status"], denied["data"], denied["request_id"]) == (403, None, 3)
    assert denied["errors"]
    assert "secret" not in str(denied)
    assert (await bob.receive())["data"]["name"] == "open"


async def test_denied_delete(connect: Any, item: Item) -> None:
    """A subscriber learns that its row is gone, whatever its permissions say of the row by then."""
    allowed.add("bob")
    socket = await connect(CONSUMERS["sync"], user=User(username="bob"))
    await socket.subscribe(item.pk)
    allowed.clear()
    await run_sql("DELETE FROM project_item")

    frame = await socket.receive()
    assert (frame["action"], frame["response_status"]) == ("delete", 204)
    assert frame["data"] == {"pk": item.pk}


async def test_same_state_again_after_a_refusal(connect: Any, item: Item) -> None:
    """After a refusal the next state is sent even if it is what the client had before it."""
    allowed.add("bob")
    socket = await connect(CONSUMERS["sync"], user=User(username="bob"))
    await socket.subscribe(item.pk)
    allowed.clear()
    await run_sql(RENAME, "two")
    assert (await socket.receive())["response_status"] == 403
    allowed.add("bob")
    await run_sql(RENAME, "one")

    assert (await socket.receive())["data"]["name"] == "one"


async def test_sync_permissions_share_a_hop(connect: Any, item: Item) -> None:
    """Synchronous permissions of all sockets are asked in the thread that read the row."""
    allowed.update(map(str, range(20)))
    sockets = [
        await connect(CONSUMERS["sync"], user=User(username=str(number))) for number in range(20)
    ]
    for socket in sockets:
        await socket.subscribe(item.pk)
    threads.clear()
    await run_sql(RENAME, "two")
    for socket in sockets:
        await socket.receive()

    assert len(threads) == 1
    assert next(iter(threads)).startswith("pgobserve-loader")


async def test_denied_subscription(connect: Any, item: Item) -> None:
    """A subscription that is refused is answered with 403, and nothing follows."""
    socket = await connect(guarded(IsAuthenticated), user=AnonymousUser())
    answer = await socket.subscribe(item.pk)
    await run_sql(RENAME, "two")

    assert answer["response_status"] == 403
    assert await socket.has_nothing()


@pytest.mark.parametrize("permission", [ObjectPermission, AsyncObjectPermission])
async def test_object_permission(connect: Any, item: Item, permission: Any) -> None:
    """A row that may no longer be seen is a delete without its content; seen again, a create."""
    socket = await connect(guarded(permission), user=User(username="bob"))
    await socket.subscribe(item.pk)
    await run_sql("UPDATE project_item SET rank = 2, name = 'secret'")
    gone = await socket.receive()
    await run_sql("UPDATE project_item SET rank = 3")
    back = await socket.receive()

    assert (gone["action"], gone["data"]) == ("delete", {"pk": item.pk})
    assert (back["action"], back["data"]["name"]) == ("create", "secret")


async def test_object_permission_at_the_subscription(connect: Any, item: Item) -> None:
    """A row that may not be seen is answered as one that is not there, and nothing follows."""
    await run_sql("UPDATE project_item SET rank = 2")
    socket = await connect(guarded(ObjectPermission), user=User(username="bob"))
    answer = await socket.subscribe(item.pk, snapshot=True)
    await run_sql("UPDATE project_item SET rank = 3")
    missing = await socket.subscribe(item.pk + 99, snapshot=True)

    assert (answer["response_status"], answer["data"]) == (404, None)
    assert answer == missing
    assert await socket.has_nothing()


async def test_raising_permission(connect: Any, item: Item, caplog: Any) -> None:
    """A permission that raises refuses; the log says why and the client does not learn it."""

    class Raising(BasePermission):
        def has_permission(self, scope: Any, consumer: Any, action: str, **kwargs: Any) -> bool:  # type: ignore[override]
            if action == "update":
                raise RuntimeError("internals")
            return True

    socket = await connect(guarded(Raising), user=User(username="bob"))
    await socket.subscribe(item.pk)
    await run_sql(RENAME, "secret")
    answer = await socket.receive()

    assert (answer["response_status"], answer["data"]) == (500, None)
    assert "internals" not in str(answer)
    assert "internals" in caplog.text


async def test_object_permission_judges_the_row_itself(connect: Any, item: Item) -> None:
    """A serializer that changes what it is given does not change what is judged."""

    class Masking(ItemSerializer):
        def to_representation(self, instance: Item) -> Any:
            instance.rank = 2
            return super().to_representation(instance)

    consumer = type("Masked", (guarded(ObjectPermission),), {"serializer_class": Masking})
    socket = await connect(consumer, user=User(username="bob"))
    assert (await socket.subscribe(item.pk))["response_status"] == 201
    await run_sql(RENAME, "two")

    assert (await socket.receive())["action"] == "update"
