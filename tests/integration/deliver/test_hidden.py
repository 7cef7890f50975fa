"""A row that a client may not see can't be told from one that is not there."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.db import OperationalError
from django.http import Http404
from rest_framework.exceptions import (
    MethodNotAllowed,
    NotAuthenticated,
    NotFound,
    PermissionDenied,
    Throttled,
)

from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelInstanceMixin, ObserverModelListMixin
from pgobserve.permissions import BasePermission
from tests.integration.deliver.conftest import run_sql
from tests.integration.deliver.test_list import ItemSerializer
from tests.project.models import Item

UPDATE = "UPDATE project_item SET name = %s WHERE id = %s"
rendered: list[str] = []


@pytest.fixture
def transport(settings: Any) -> str:
    """Nothing here depends on how changes travel."""
    settings.PGOBSERVE = {"TRANSPORT": "notify"}
    return "notify"


@pytest.fixture(autouse=True)
def _fresh() -> None:
    rendered.clear()


class Fragile(ItemSerializer):
    """Fails for rows named boom."""

    def to_representation(self, instance: Any) -> Any:
        rendered.append(instance.name)
        if instance.name.startswith("boom"):
            raise RuntimeError(instance.name)
        return super().to_representation(instance)


class Base(ObserverModelListMixin, ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    queryset = Item.objects.order_by("id")
    serializer_class = Fragile


class Hiding(BasePermission):
    """Hides rows of rank 1 in the way at hand."""

    error: Any = None

    async def has_permission(self, scope: Any, consumer: Any, action: str, **kwargs: Any) -> bool:
        return True

    def has_object_permission(
        self, scope: Any, consumer: Any, action: str, instance: Any, **kwargs: Any
    ) -> bool:
        if instance.rank == 1 and self.error is not None:
            # A copy: an exception keeps the frames of all who raised it.
            raise copy.copy(self.error)
        return bool(instance.rank != 1)


class Guarded(Base):
    permission_classes = [Hiding]


WAYS = [
    None,
    Http404(),
    NotFound("Gone."),
    PermissionDenied("Pay.", code="pay"),
    DjangoPermissionDenied(),
    NotAuthenticated(),
    MethodNotAllowed("PUT"),
    Throttled(5),
    RuntimeError("internals"),
    asyncio.CancelledError(),
    SystemExit(3),
    RecursionError(),
]


@pytest.fixture(params=WAYS, ids=lambda way: type(way).__name__)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """How a permission hides a row."""
    monkeypatch.setattr(Hiding, "error", request.param)
    return request.param


async def test_requests(connect: Any, items: list[Item], way: Any) -> None:
    """Each request for a hidden row has the very answer that one for a missing row has."""
    hidden, missing = items[1].pk, 999_999
    socket = await connect(Guarded)
    for pk, request_id in ((hidden, "a"), (missing, "b")):
        frames = [
            await socket.ask("retrieve", pk=pk, request_id=request_id),
            await socket.subscribe(pk, request_id),
            await socket.subscribe(pk, request_id, snapshot=True),
            await socket.ask("unsubscribe_instance", pk=pk, request_id=request_id),
        ]
        if pk == hidden:
            expected = frames
    for frame in (*expected, *frames):
        frame.pop("request_id")

    assert [frame["response_status"] for frame in frames] == [404, 404, 404, 204]
    assert expected == frames
    await run_sql(UPDATE, "x", hidden)
    assert await socket.has_nothing()


@pytest.mark.parametrize("only", [None, "keys", "count"])
async def test_lists(connect: Any, items: list[Item], way: Any, only: str | None) -> None:
    """Neither a hidden row nor its changes make a frame; it comes into sight as a new one."""
    hidden = items[1].pk
    socket = await connect(Guarded)
    listed = await socket.ask("subscribe_list", request_id=1, **({"only": only} if only else {}))
    await run_sql(UPDATE, "x", hidden)
    await run_sql("INSERT INTO project_item (id, name, rank) VALUES (900, 'new', 1)")
    await run_sql("DELETE FROM project_item WHERE id = 900")
    assert await socket.has_nothing()
    await run_sql("UPDATE project_item SET rank = 2 WHERE id = %s", hidden)
    seen = await socket.receive()

    if only == "count":
        assert (listed["data"], seen["data"]) == ({"count": 2}, {"count": 3})
    else:
        assert len(listed["data"]["results"]) == 2
        assert (seen["action"], seen["response_status"]) == ("create", 200)


async def test_row_that_comes_to_be_hidden(connect: Any, items: list[Item], way: Any) -> None:
    """A row that may be seen no more ends as one that is deleted, and is silent then."""
    first, second = items[0].pk, items[2].pk
    socket = await connect(Guarded)
    for pk in (first, second):
        await socket.subscribe(pk, "row")
    await run_sql("UPDATE project_item SET rank = 1, name = 'boom' WHERE id = %s", first)
    hidden = await socket.receive()
    await run_sql(UPDATE, "boom 2", first)
    await run_sql("DELETE FROM project_item WHERE id = %s", second)
    deleted = await socket.receive()

    assert hidden["data"] == {"pk": first}
    assert {**hidden, "data": None} == {**deleted, "data": None}
    assert await socket.has_nothing()


async def test_serializer_does_not_run(connect: Any, items: list[Item]) -> None:
    """A serializer that fails for a hidden row is not called: nothing of it shows."""
    hidden = items[1].pk
    await run_sql(UPDATE, "boom", hidden)
    socket = await connect(Guarded)
    listed = await socket.ask("subscribe_list", request_id=1)
    answer = await socket.subscribe(hidden, 2)
    missing = await socket.subscribe(999_999, 2)
    await run_sql(UPDATE, "boom 2", hidden)

    assert len(listed["data"]["results"]) == 2
    assert answer == missing
    assert await socket.has_nothing()
    assert not [name for name in rendered if name.startswith("boom")]


class Closing(BasePermission):
    """Allows to subscribe, and nothing afterwards: by a refusal, or by failing."""

    error: Any = None

    async def has_permission(self, scope: Any, consumer: Any, action: str, **kwargs: Any) -> bool:
        if action in ("create", "update") and self.error is not None:
            raise self.error
        return action not in ("create", "update")


@pytest.mark.parametrize("error", [None, RuntimeError("internals"), asyncio.CancelledError()])
async def test_failing_serializer_behind_a_refused_action(
    connect: Any, items: list[Item], error: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the action is refused, the failure of a serializer tells no key."""
    monkeypatch.setattr(Closing, "error", error)
    consumer = type("Consumer", (Base,), {"permission_classes": [Closing]})
    socket = await connect(consumer)
    await socket.ask("subscribe_list", request_id=1)
    await run_sql("INSERT INTO project_item (id, name, rank) VALUES (900, 'boom', 5)")
    frame = await socket.receive()

    assert frame["response_status"] == (403 if error is None else 500)
    assert frame["data"] == {"pk": None}


async def test_queryset_that_fails_names_no_row(connect: Any, items: list[Item]) -> None:
    """While a client's queryset can't be built, keys of rows that it lacks are not sent."""

    class Consumer(Base):
        fails = False

        def get_queryset(self, **kwargs: Any) -> Any:
            list(Item.objects.all()[:1])  # it asks the database: built for every change
            if self.fails:
                raise RuntimeError
            return super().get_queryset(**kwargs).filter(rank=0)

    socket = await connect(Consumer)
    await socket.ask("subscribe_list", request_id=1)
    Consumer.fails = True
    await run_sql(UPDATE, "x", items[1].pk)

    assert await socket.has_nothing()


class Unreachable(BasePermission):
    """Asks another database, which is away at times."""

    away = False

    async def has_permission(self, scope: Any, consumer: Any, action: str, **kwargs: Any) -> bool:
        return True

    def has_object_permission(
        self, scope: Any, consumer: Any, action: str, instance: Any, **kwargs: Any
    ) -> bool:
        if self.away and str(scope["user"]) == "anna":
            raise OperationalError("away")
        return True


async def test_permission_without_its_database(
    connect: Any, items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be checked is checked again; the others are served meanwhile."""
    consumer = type("Consumer", (Base,), {"permission_classes": [Unreachable]})
    anna, other = await connect(consumer, user="anna"), await connect(consumer, user="other")
    monkeypatch.setattr(Unreachable, "away", True)
    assert (await anna.subscribe(items[0].pk, 1))["response_status"] == 404
    assert (await anna.ask("subscribe_list", request_id=2))["data"]["results"] == []
    assert len((await other.ask("subscribe_list", request_id=2))["data"]["results"]) == 3
    await run_sql(UPDATE, "x", items[0].pk)
    assert (await other.receive())["data"]["name"] == "x"
    monkeypatch.setattr(Unreachable, "away", False)
    frames = [await anna.receive() for _ in items]

    assert sorted(frame["data"]["id"] for frame in frames) == [item.pk for item in items]
    assert {frame["action"] for frame in frames} == {"create"}
