"""Hooks run in the socket's own Python context, and nothing that they activate reaches another."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db.models import DateTimeField, Value
from django.db.models.functions import TruncDay
from django.utils import timezone, translation
from rest_framework import serializers

from pgobserve import mixins
from pgobserve.decorators import action
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelInstanceMixin, ObserverModelListMixin
from pgobserve.permissions import BasePermission
from tests.integration.deliver.conftest import run_sql
from tests.project.models import Item

tenant: ContextVar[str | None] = ContextVar("tenant", default=None)

BOTH = (
    ObserverModelListMixin,
    ObserverModelInstanceMixin,
    mixins.ListModelMixin,
    GenericAsyncAPIConsumer,
)


class Middleware:
    """Sets what the scope names, for the socket's task."""

    def __init__(self, consumer: Any) -> None:
        self._inner = consumer.as_asgi()

    def as_asgi(self) -> Any:
        return self._call

    async def _call(self, scope: Any, receive: Any, send: Any) -> None:
        tenant.set(scope.get("tenant"))
        if "language" in scope:
            translation.activate(scope["language"])
        if "zone" in scope:
            timezone.activate(scope["zone"])
        await self._inner(scope, receive, send)


rendered: list[Any] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    rendered.clear()


class Seen(serializers.ModelSerializer):
    """Shows what it sees of its context."""

    seen = serializers.SerializerMethodField()

    class Meta:
        model = Item
        fields = ["id", "name", "seen"]

    def get_seen(self, item: Item) -> list[Any]:
        rendered.append(item.pk)
        zone = str(timezone.get_current_timezone())
        return [tenant.get(), translation.get_language(), zone]


class Plain(*BOTH):  # type: ignore[misc]
    queryset = Item.objects.order_by("id")
    serializer_class = Seen


class OfTenant(Plain):
    """Rows by a context variable, as a manager for tenants chooses them."""

    def get_queryset(self, **kwargs: Any) -> Any:
        return super().get_queryset(**kwargs).filter(name__startswith=tenant.get() or "")


class Activating(Plain):
    """Activates where the queryset is made."""

    def get_queryset(self, **kwargs: Any) -> Any:
        translation.activate(self.scope["user"])
        timezone.activate("Asia/Tokyo")
        tenant.set("activated")
        return super().get_queryset(**kwargs)


class Overriding(Seen):
    """Leaves a language activated for each row."""

    def get_seen(self, item: Item) -> list[Any]:
        before = super().get_seen(item)
        translation.activate("de")
        return before


class ActivatingInSerializer(Plain):
    serializer_class = Overriding


class Zoned(serializers.ModelSerializer):
    hour = serializers.DateTimeField()

    class Meta:
        model = Item
        fields = ["id", "hour"]


class InZone(Plain):
    """A value that Django computes for the active time zone, compiled once for the class."""

    serializer_class = Zoned
    queryset = Item.objects.order_by("id").annotate(
        hour=TruncDay(Value(datetime(2024, 1, 1, 22, 30, tzinfo=UTC), DateTimeField()))
    )


@pytest.mark.parametrize("consumer", [Plain, OfTenant])
async def test_as_list_shows(connect: Any, item: Item, consumer: Any) -> None:
    """A subscription shows what `list` shows on the same socket: variables, language, time zone."""
    for of_socket in (
        {"tenant": "o", "language": "de", "zone": "Asia/Tokyo"},
        {"tenant": "n", "language": "fr"},
        {},
    ):
        socket = await connect(Middleware(consumer), **of_socket)
        listed = (await socket.ask("list", request_id=1))["data"]
        subscribed = (await socket.ask("subscribe_list", request_id=2))["data"]["results"]
        assert subscribed == listed
        if listed:
            await run_sql("UPDATE project_item SET name = name || '!'")
            frame = await socket.receive()
            listed = (await socket.ask("list", request_id=3))["data"]
            assert [frame["data"]] == listed


async def test_rows_of_a_tenant(connect: Any, items: list[Item]) -> None:
    """Each socket's rows are those of the tenant in its own context, in every later frame as well."""
    sockets = [await connect(Middleware(OfTenant), tenant=name) for name in ("a", "b", "a")]
    for socket in sockets:
        await socket.ask("subscribe_list", request_id=1)

    await run_sql("UPDATE project_item SET rank = rank + 1, name = name || '!'")

    for name, socket in zip("aba", sockets, strict=True):
        frame = await socket.receive()
        assert frame["data"]["name"] == f"{name}!"
        assert frame["data"]["seen"][0] == name
        assert await socket.has_nothing()


async def test_a_row_of_another_tenant(connect: Any, items: list[Item]) -> None:
    """A row that `retrieve` does not find in the socket's context is not there for a subscription."""
    socket = await connect(Middleware(OfTenant), tenant="a")

    answer = await socket.subscribe(items[1].pk)

    assert answer["response_status"] == 404


async def test_languages(connect: Any, item: Item) -> None:
    """Each socket has its rows in its own language and time zone, also from a class's own queryset."""
    german = await connect(Middleware(Plain), language="de", zone="Asia/Tokyo")
    french = await connect(Middleware(Plain), language="fr", zone="UTC")
    for socket in (german, french):
        await socket.ask("subscribe_list", request_id=1)
        await socket.subscribe(item.pk, 2)

    await run_sql("UPDATE project_item SET name = 'two'")

    for socket, seen in ((german, ["de", "Asia/Tokyo"]), (french, ["fr", "UTC"])):
        for _ in range(2):
            assert (await socket.receive())["data"]["seen"][1:] == seen
        assert await socket.has_nothing()


@pytest.mark.parametrize("consumer", [Activating, ActivatingInSerializer])
async def test_what_a_hook_activates_ends_with_it(
    connect: Any, item: Item, settings: Any, consumer: Any
) -> None:
    """A hook that activates a language says nothing to the next socket, nor to the next frame."""
    settings.PGOBSERVE = {"LOADER_THREADS": 1}
    activating = await connect(Middleware(consumer), user="de")
    await activating.ask("subscribe_list", request_id=1)
    plain = await connect(Middleware(Plain))
    listed = (await plain.ask("list", request_id=1))["data"]

    assert (await plain.ask("subscribe_list", request_id=2))["data"]["results"] == listed
    for _ in range(2):
        await run_sql("UPDATE project_item SET rank = rank + 1, name = name || '!'")
        assert (await plain.receive())["data"]["seen"] == listed[0]["seen"]
        frame = await activating.receive()
        expected = (
            ["activated", "de", "Asia/Tokyo"] if consumer is Activating else listed[0]["seen"]
        )
        assert frame["data"]["seen"] == expected


async def test_a_queryset_for_the_time_zone(connect: Any, item: Item) -> None:
    """What is compiled for one socket's time zone is never read for another's."""
    for zone in ("Asia/Kolkata", "America/New_York", "Asia/Kolkata"):
        socket = await connect(Middleware(InZone), zone=zone)
        listed = (await socket.ask("list", request_id=1))["data"]
        subscribed = (await socket.ask("subscribe_list", request_id=2))["data"]["results"]
        assert subscribed == listed


class Allowed(BasePermission):
    """Asks a context variable, in a thread."""

    def has_permission(self, scope: Any, consumer: Any, action: str, **kwargs: Any) -> bool:
        return tenant.get() == scope["tenant"]

    def has_object_permission(
        self, scope: Any, consumer: Any, action: str, instance: Any, **kwargs: Any
    ) -> bool:
        timezone.activate("Asia/Tokyo")
        return tenant.get() == scope["tenant"] and translation.get_language() == scope["language"]


class AllowedInLoop(Allowed):
    """Asks it in the event loop."""

    async def has_permission(  # type: ignore[override]
        self, scope: Any, consumer: Any, action: str, **kwargs: Any
    ) -> bool:
        await asyncio.sleep(0)
        return tenant.get() == scope["tenant"]


@pytest.mark.parametrize("permission", [Allowed, AllowedInLoop])
async def test_permissions(connect: Any, item: Item, permission: Any) -> None:
    """Permissions are asked in the context of the socket that they decide on."""

    class Guarded(Plain):
        permission_classes = [permission]

    sockets = [
        await connect(Middleware(Guarded), tenant=name, language=language)
        for name, language in (("a", "de"), ("b", "fr"))
    ]
    for socket in sockets:
        assert (await socket.ask("subscribe_list", request_id=1))["response_status"] == 201
        assert (await socket.subscribe(item.pk, 2))["response_status"] == 201

    await run_sql("UPDATE project_item SET name = 'two'")

    for name, socket in zip("ab", sockets, strict=True):
        for _ in range(2):
            frame = await socket.receive()
            assert (frame["action"], frame["data"]["seen"][0]) == ("update", name)


async def test_reads_by_itself(connect: Any, item: Item) -> None:
    """A consumer that reads rows by itself does so in its own socket's context."""

    class Own(Plain):
        @action()
        async def retrieve(self, **kwargs: Any) -> Any:
            return {"seen": tenant.get(), "language": translation.get_language()}, 200

    first = await connect(Middleware(Own), tenant="a", language="de")
    second = await connect(Middleware(Own), tenant="b", language="fr")
    for socket in (first, second):
        await socket.subscribe(item.pk)

    await run_sql("UPDATE project_item SET name = 'two'")

    assert (await first.receive())["data"] == {"seen": "a", "language": "de"}
    assert (await second.receive())["data"] == {"seen": "b", "language": "fr"}


@pytest.mark.parametrize("of_socket", [{}, {"tenant": "a", "language": "de"}])
async def test_equal_contexts_share(
    connect: Any, item: Item, of_socket: Any, django_assert_num_queries: Any
) -> None:
    """Sockets whose contexts have equal values share one query and one serialization."""
    sockets = [await connect(Middleware(Plain), **of_socket) for _ in range(3)]
    for socket in sockets:
        await socket.ask("subscribe_list", request_id=1)
    rendered.clear()

    await run_sql("UPDATE project_item SET name = 'two'")
    for socket in sockets:
        await socket.receive()

    assert rendered == [item.pk]
