"""Who may see a row is decided on every frame, however often its queryset is built."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db.models import F
from django.db.models.functions import Now
from rest_framework import filters

from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelInstanceMixin
from pgobserve.runtime import runtime
from tests.integration.deliver.conftest import run_sql, settled
from tests.integration.deliver.test_instance import ItemSerializer
from tests.project.models import Item, Membership

RENAME = "UPDATE project_item SET name = %s"


class Base(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    serializer_class = ItemSerializer
    builds = 0


class ByRank(Base):
    """Shows rows of rank 1."""

    def get_queryset(self, **kwargs: Any) -> Any:
        type(self).builds += 1
        return Item.objects.filter(rank=1)


async def test_leaving_and_coming_back(connect: Any, item: Item) -> None:
    """A row that leaves the queryset is a delete without its new content; back, it is a create."""
    socket = await connect(ByRank)
    await socket.subscribe(item.pk)
    await run_sql("UPDATE project_item SET rank = 2, name = 'secret'")
    left = await socket.receive()
    await run_sql("UPDATE project_item SET name = 'more secret'")
    assert await socket.has_nothing()
    await run_sql("UPDATE project_item SET rank = 1")
    back = await socket.receive()

    assert (left["action"], left["data"], left["response_status"]) == (
        "delete",
        {"pk": item.pk},
        204,
    )
    assert (back["action"], back["data"]["name"]) == ("create", "more secret")


async def test_row_outside_the_queryset(connect: Any, item: Item) -> None:
    """A row that the client may not see is answered like one that is not there."""
    await run_sql("UPDATE project_item SET rank = 2")
    socket = await connect(ByRank)
    answer = await socket.subscribe(item.pk)
    await run_sql("UPDATE project_item SET rank = 1")

    assert (answer["response_status"], answer["errors"], answer["data"]) == (
        404,
        ["Not found"],
        None,
    )
    assert await socket.has_nothing()


async def test_plain_queryset_is_compiled_once(connect: Any, item: Item, monkeypatch: Any) -> None:
    """A class that overrides nothing has one compiled queryset, whatever happens."""
    built: list[Any] = []
    original = GenericAsyncAPIConsumer.get_serializer_class

    class Plain(Base):
        queryset = Item.objects.all()

    def counting(self: Any, **kwargs: Any) -> Any:
        built.append(self)
        return original(self, **kwargs)

    monkeypatch.setattr(GenericAsyncAPIConsumer, "get_serializer_class", counting)
    for _ in range(3):
        socket = await connect(Plain)
        await socket.subscribe(item.pk)
    await run_sql(RENAME, "two")
    await socket.receive()

    assert len(built) == 1


async def test_overridden_queryset_is_kept(connect: Any, item: Item) -> None:
    """A queryset that compiles the same twice is built at the subscription, not for each change."""
    socket = await connect(ByRank)
    await socket.subscribe(item.pk)
    ByRank.builds = 0
    for name in ("a", "b"):
        await run_sql(RENAME, name)
        await socket.receive()

    assert ByRank.builds == 0


async def test_overridden_queryset_ages(connect: Any, item: Item, settings: Any) -> None:
    """Once older than QUERYSET_TTL it is built anew."""
    settings.PGOBSERVE = {"QUERYSET_TTL": 0}
    socket = await connect(ByRank)
    await socket.subscribe(item.pk)
    ByRank.builds = 0
    await run_sql(RENAME, "a")
    await socket.receive()

    assert ByRank.builds == 1


async def test_eager_look_up(connect: Any, item: Item) -> None:
    """A membership that get_queryset reads while it is built, revoked, hides the row at once."""

    class Members(Base):
        def get_queryset(self, **kwargs: Any) -> Any:
            allowed = list(
                Membership.objects.filter(user=self.scope["user"].username).values_list(
                    "item", flat=True
                )
            )
            return Item.objects.filter(pk__in=allowed)

    await Membership.objects.acreate(user="alice", item=item)
    socket = await connect(Members, user=User(username="alice"))
    assert (await socket.subscribe(item.pk))["response_status"] == 201
    await run_sql("DELETE FROM project_membership")
    await run_sql(RENAME, "secret")
    left = await socket.receive()

    assert (left["action"], left["data"]) == ("delete", {"pk": item.pk})


async def test_filter_on_the_clock(connect: Any, item: Item) -> None:
    """A filter by Python's clock compiles differently each time, so it is built for each batch."""

    class Clocked(Base):
        seconds = itertools.count()

        def get_queryset(self, **kwargs: Any) -> Any:
            return Item.objects.filter(rank__gte=-next(self.seconds))

    socket = await connect(Clocked)
    await socket.subscribe(item.pk)
    for name in ("two", "three"):
        before = next(Clocked.seconds)
        await run_sql(RENAME, name)
        await socket.receive()
        assert next(Clocked.seconds) == before + 2


async def test_filter_in_the_database_by_its_clock(connect: Any, item: Item) -> None:
    """An expression that the database evaluates is evaluated for each load."""

    class Clocked(Base):
        def get_queryset(self, **kwargs: Any) -> Any:
            return Item.objects.annotate(now=Now()).filter(
                now__isnull=False, rank__lt=F("rank") + 1
            )

    socket = await connect(Clocked)
    await socket.subscribe(item.pk)
    await run_sql(RENAME, "100 % 'quoted' \\ one")

    assert (await socket.receive())["data"]["name"] == "100 % 'quoted' \\ one"


async def test_arguments_reach_the_queryset(connect: Any, item: Item) -> None:
    """The keys of the message reach get_queryset and filter_queryset, at each build."""
    seen: list[Any] = []

    class Arguments(Base):
        def get_queryset(self, **kwargs: Any) -> Any:
            seen.append(kwargs)
            return Item.objects.filter(rank=kwargs["rank"])

        def filter_queryset(self, queryset: Any, **kwargs: Any) -> Any:
            return queryset.filter(name__contains=kwargs["part"])

    socket = await connect(Arguments)
    await socket.subscribe(item.pk, 5, rank=1, part="n")
    await run_sql(RENAME, "xxx")

    assert (await socket.receive())["action"] == "delete"
    assert seen[-1]["request_id"] == 5
    assert seen[-1]["pk"] == item.pk


async def test_filter_backends(connect: Any, item: Item) -> None:
    """REST framework's filter backends are fed from the message's query."""

    class Searched(Base):
        queryset = Item.objects.all()
        filter_backends = [filters.SearchFilter]
        search_fields = ["name"]

    socket = await connect(Searched)
    found = await socket.subscribe(item.pk, 1, query={"search": "one"})
    absent = await socket.subscribe(item.pk, 2, query={"search": "two"})
    await run_sql(RENAME, "two")

    assert (found["response_status"], absent["response_status"]) == (201, 404)
    assert (await socket.receive())["action"] == "delete"


async def test_raising_queryset(connect: Any, item: Item, caplog: Any) -> None:
    """A get_queryset that raises for one user tells him so; the others are served."""
    broken: set[str] = set()

    class Raising(Base):
        def get_queryset(self, **kwargs: Any) -> Any:
            list(Membership.objects.all()[:1])  # asks the database, so it is built for each batch
            if self.scope["user"].username in broken:
                raise RuntimeError("internals")
            return Item.objects.all()

    alice, bob = [await connect(Raising, user=User(username=n)) for n in ("alice", "bob")]
    for socket in (alice, bob):
        await socket.subscribe(item.pk)
    broken.add("bob")
    await run_sql(RENAME, "two")

    assert (await alice.receive())["data"]["name"] == "two"
    answer = await bob.receive()
    assert (answer["response_status"], answer["data"]) == (500, None)
    assert "internals" in caplog.text


async def test_anonymous_sees_nothing(connect: Any, item: Item) -> None:
    """none() is a queryset as well."""

    class Nothing(Base):
        def get_queryset(self, **kwargs: Any) -> Any:
            return Item.objects.none()

    socket = await connect(Nothing)

    assert (await socket.subscribe(item.pk))["response_status"] == 404


@pytest.mark.parametrize("users", [1, 50])
async def test_many_users_one_statement(connect: Any, item: Item, users: int) -> None:
    """Users with a queryset each are answered by one statement, each by his own rows."""

    class OfUser(Base):
        def get_queryset(self, **kwargs: Any) -> Any:
            return Item.objects.filter(rank__lte=int(self.scope["user"].username))

    sockets = []
    for number in range(users):
        socket = await connect(OfUser, user=User(username=str(number + 1)))
        await socket.subscribe(item.pk)
        sockets.append(socket)
    await settled()
    batches = runtime.current().feeds["default"].loader.state.batches  # type: ignore[union-attr]
    await run_sql("UPDATE project_item SET rank = %s, name = 'new'", users)
    frames = [await socket.receive() for socket in sockets]

    assert [f["action"] for f in frames] == ["delete"] * (users - 1) + ["update"]
    assert runtime.current().feeds["default"].loader.state.batches == batches + 1  # type: ignore[union-attr]
