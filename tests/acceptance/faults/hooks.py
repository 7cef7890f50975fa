"""
Consumers whose hooks raise anything, or never return.

A row's name says what the hooks do that have to do with it. A client names the row as it subscribes.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, NoReturn

from django.db import OperationalError, connection

from pgobserve.observer.generics import ObserverModelListMixin
from pgobserve.permissions import BasePermission
from tests.acceptance.faults.consumers import ItemConsumer, ItemSerializer
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Callable


class Mute(BaseException):
    """Can't even be logged without care."""

    def __str__(self) -> str:
        raise Mute


def _raising(error: type[BaseException]) -> Callable[[], NoReturn]:
    def misbehave() -> NoReturn:
        raise error

    return misbehave


def _close() -> None:
    connection.close()
    raise OperationalError("The database is away.")


def _loop() -> None:
    while True:
        pass


#: By name, for rows and in reports.
RAISED: dict[str, Callable[[], object]] = {
    error.__name__: _raising(error)
    for error in (
        *(asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration),
        *(RecursionError, MemoryError, OperationalError, Mute),
    )
}
CLOSED: dict[str, Callable[[], object]] = {"closed": _close}
HELD: dict[str, Callable[[], object]] = {"endless": _loop, "sleep": lambda: time.sleep(600)}
ALL = {**HELD, **CLOSED, **RAISED}


def misbehave(name: str) -> None:
    """Do what a name says."""
    if name in ALL:
        ALL[name]()


async def misbehave_in_loop(name: str) -> None:
    """Do so in the event loop, which nothing may hold."""
    if name in HELD:
        await asyncio.Event().wait()
    elif name in RAISED:
        RAISED[name]()


class BadSerializer(ItemSerializer):
    def to_representation(self, instance: Item) -> Any:
        misbehave(instance.name)
        return super().to_representation(instance)


class BadSerializerConsumer(ObserverModelListMixin, ItemConsumer):
    serializer_class = BadSerializer


class BadQuerysetConsumer(ItemConsumer):
    def get_queryset(self, row: int = 0, **kwargs: Any) -> Any:
        with connection.cursor() as cursor:
            cursor.execute("SELECT name FROM project_item WHERE id = %s", [row])
            (name,) = cursor.fetchone()
        misbehave(name)
        return super().get_queryset(**kwargs)


class BadPermission(BasePermission):
    async def has_permission(self, scope: Any, consumer: Any, action: str, **kwargs: Any) -> bool:
        return True

    def has_object_permission(
        self, scope: Any, consumer: Any, action: str, instance: Item, **kwargs: Any
    ) -> bool:
        misbehave(instance.name)
        return True


class BadPermissionConsumer(ItemConsumer):
    permission_classes = (BadPermission,)


class BadAsyncPermission(BasePermission):
    async def has_permission(self, scope: Any, consumer: Any, action: str, **kwargs: Any) -> bool:
        await misbehave_in_loop((await Item.objects.aget(pk=kwargs["pk"])).name)
        return True


class BadAsyncPermissionConsumer(ItemConsumer):
    permission_classes = (BadAsyncPermission,)


class BadReplyConsumer(ItemConsumer):
    """Its own way to reply fails."""

    async def reply(self, action: Any, data: Any = None, **kwargs: Any) -> None:
        await misbehave_in_loop(data["name"] if isinstance(data, dict) else "")
        await super().reply(action, data, **kwargs)
