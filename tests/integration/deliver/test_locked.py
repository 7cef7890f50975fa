"""Locked tables and slow queries delay those that watch them, and nobody else."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.contrib.auth.models import Group, User
from django.db import connections
from django.db.models.expressions import RawSQL
from rest_framework import serializers

from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelListMixin
from pgobserve.runtime import runtime
from tests.installing import install
from tests.integration.conftest import parameters
from tests.integration.deliver.conftest import run_sql
from tests.integration.deliver.test_list import UPDATE, ItemListConsumer, ItemSerializer, subscribe
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.parametrize("transport", ["notify"], indirect=True)


def consumer(of: Any, shown: str) -> type[GenericAsyncAPIConsumer]:
    """Return a consumer of lists of a model."""

    class Serializer(serializers.ModelSerializer):
        class Meta:
            model = of
            fields = ["id", shown]

    class Consumer(ObserverModelListMixin, GenericAsyncAPIConsumer):
        queryset = of.objects.order_by("id")
        serializer_class = Serializer

    return Consumer


class CountingSerializer(ItemSerializer):
    """Queries another table for each row."""

    def to_representation(self, instance: Item) -> Any:
        return {**super().to_representation(instance), "users": User.objects.count()}


class CountingConsumer(ItemListConsumer):
    serializer_class = CountingSerializer
    observe_related: Any = ()


@pytest.fixture
def locker(items: list[Item]) -> Iterator[psycopg.Connection[Any]]:
    """Another session, whose transaction takes locks."""
    install("project.Item", "auth.User", "auth.Group")
    with psycopg.connect(**parameters()) as other:
        yield other
        other.rollback()


def lock(other: psycopg.Connection[Any], *tables: str) -> None:
    """Lock tables as ALTER TABLE does."""
    other.execute(f"LOCK TABLE {', '.join(tables)} IN ACCESS EXCLUSIVE MODE")


async def test_two_locked_tables(
    connect: Callable[..., Any], items: list[Item], locker: psycopg.Connection[Any]
) -> None:
    """Lists of other tables go on and start while two are locked, which are read once they are free."""
    users, late = [await connect(consumer(User, "username")) for _ in range(2)]
    locked = [await connect(ItemListConsumer), await connect(consumer(Group, "name"))]
    user = await User.objects.acreate(username="before")
    for each in (users, *locked):
        await subscribe(each)
    lock(locker, "project_item", "auth_group")
    (feed,) = runtime.current().feeds.values()
    feed._reread()  # both threads of the loader meet a lock
    newcomer = await connect(ItemListConsumer)
    await newcomer.send(action="subscribe_list", request_id=1)
    for name in ("during", "still"):
        await run_sql("UPDATE auth_user SET username = %s WHERE id = %s", name, user.pk)
        assert (await users.receive())["data"]["username"] == name
    assert [row["username"] for row in (await subscribe(late))["data"]["results"]] == ["still"]
    locker.execute(UPDATE, ["unlocked", items[0].pk])
    locker.commit()

    assert (await locked[0].receive())["data"]["name"] == "unlocked"
    frame = await newcomer.receive()
    assert (frame["response_status"], len(frame["data"]["results"])) == (201, 3)


async def test_slow_queries(
    connect: Callable[..., Any], items: list[Item], locker: psycopg.Connection[Any]
) -> None:
    """Lists of other tables start while queries of others take long."""
    sleep = "CASE WHEN EXISTS (SELECT FROM auth_group) THEN pg_sleep(100) END::text"
    for number in range(3):
        queryset = Item.objects.annotate(sleep=RawSQL(f"{number} || ({sleep})", ()))
        await subscribe(await connect(type("Slow", (ItemListConsumer,), {"queryset": queryset})))
    await Group.objects.acreate(name="slow")
    (feed,) = runtime.current().feeds.values()
    feed._reread()
    users = await connect(consumer(User, "username"))
    assert (await subscribe(users))["data"]["results"] == []
    user = await User.objects.acreate(username="new")
    assert (await users.receive())["data"] == {"id": user.pk, "username": "new"}


async def test_serializer_meets_a_lock(
    connect: Callable[..., Any], items: list[Item], locker: psycopg.Connection[Any]
) -> None:
    """A row whose serializer meets a lock is read again, without an error frame."""
    socket = await connect(CountingConsumer)
    await subscribe(socket)
    lock(locker, "auth_user")
    await run_sql(UPDATE, "new", items[0].pk)
    (feed,) = runtime.current().feeds.values()
    assert feed.loader is not None
    while not feed.loader.failing:
        await socket.communicator.receive_nothing(timeout=0.05)
    locker.rollback()

    frame = await socket.receive()
    assert (frame["response_status"], frame["data"]["name"]) == (200, "new")


class SlowSerializer(CountingSerializer):
    """Takes longer between two queries than a transaction may idle."""

    def to_representation(self, instance: Item) -> Any:
        time.sleep(0.3)
        return super().to_representation(instance)


class SlowConsumer(CountingConsumer):
    serializer_class = SlowSerializer


async def test_transaction_ended_by_the_server(
    connect: Callable[..., Any], items: list[Item], locker: psycopg.Connection[Any]
) -> None:
    """A list whose serializer outlasts idle_in_transaction_session_timeout is read again for newcomers."""
    name = connections["default"].settings_dict["NAME"]
    setting = f"ALTER DATABASE {name} {{}} idle_in_transaction_session_timeout"
    await run_sql(setting.format("SET") + " = '100ms'")
    try:
        socket = await connect(SlowConsumer)
        frame = await subscribe(socket)
        assert [row["name"] for row in frame["data"]["results"]] == ["a", "b", "c"]
        await run_sql(UPDATE, "new", items[0].pk)
        assert (await socket.receive())["data"]["name"] == "new"
    finally:
        await run_sql(setting.format("RESET"))


async def test_own_limits(connect: Callable[..., Any], items: list[Item]) -> None:
    """The loader waits a second for a lock, or less if the project says so."""
    await subscribe(await connect(ItemListConsumer))
    (feed,) = runtime.current().feeds.values()

    def shown(statement: str = "SELECT 1") -> Any:
        with connections["default"].cursor() as cursor:
            cursor.execute(statement)
            cursor.execute("SHOW lock_timeout")
            return cursor.fetchone()

    assert await feed.call(shown) == ("1s",)
    assert await feed.call(lambda: shown("SET lock_timeout = '10ms'")) == ("10ms",)
    assert await feed.call(shown) == ("1s",)
