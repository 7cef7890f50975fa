"""Which rows of a list a subscriber has: users, filters, permissions, rows that can't be shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import django_filters
import pytest
from django.contrib.auth.models import User
from django.db.models import Count, Exists, F, OuterRef, Value
from django.db.models.functions import Now
from django_filters.rest_framework import DjangoFilterBackend
from rest_framework import permissions
from rest_framework.filters import OrderingFilter, SearchFilter

from pgobserve.permissions import BasePermission
from pgobserve.runtime import runtime
from tests.integration.deliver.conftest import run_sql
from tests.integration.deliver.test_list import (
    UPDATE,
    ItemListConsumer,
    ItemSerializer,
    brief,
    subscribe,
)
from tests.project.models import Item, Membership

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.deliver.conftest import Socket

RANK = "UPDATE project_item SET rank = %s WHERE id = %s"


@pytest.fixture
def labels() -> tuple[str, ...]:
    """The memberships' table is observed, too."""
    return "project.Item", "auth.User", "project.Membership"


@pytest.fixture
def items(observed: None) -> list[Item]:
    """Three rows."""
    return [Item.objects.create(id=n, name=name, rank=n) for n, name in enumerate("abc", 1)]


def keys(frame: Any) -> list[Any]:
    """Return the keys of a list's rows."""
    return [row["id"] for row in frame["data"]["results"]]


async def told(socket: Socket, count: int = 1) -> list[tuple[str, Any]]:
    """Receive so many frames, and no more."""
    frames = [brief(await socket.receive()) for _ in range(count)]
    assert await socket.has_nothing()
    return sorted(frames)


# Users and filters


class OwnConsumer(ItemListConsumer):
    """Shows each user the rows of which he is a member."""

    def get_queryset(self, **kwargs: Any) -> Any:
        return Item.objects.filter(membership__user=self.scope["user"]).order_by("id")


class ExistsConsumer(ItemListConsumer):
    """The same by a subquery."""

    def get_queryset(self, **kwargs: Any) -> Any:
        own = Membership.objects.filter(item=OuterRef("pk"), user=self.scope["user"])
        return Item.objects.filter(Exists(own)).order_by("id")


@pytest.mark.parametrize("consumer", [OwnConsumer, ExistsConsumer])
async def test_revoked(connect: Any, items: list[Item], consumer: Any) -> None:
    """A membership that comes or goes makes rows come and go, for its user alone."""
    join = 'INSERT INTO project_membership ("user", item_id) VALUES (%s, %s)'
    await run_sql(join, "u", 1)
    await run_sql(join, "v", 1)
    socket, other = await connect(consumer, user="u"), await connect(consumer, user="v")
    assert keys(await subscribe(socket)) == keys(await subscribe(other)) == [1]

    await run_sql(join, "u", 2)
    assert await told(socket) == [("create", 2)]
    await run_sql("UPDATE project_membership SET \"user\" = 'v' WHERE item_id = 2")
    assert await told(socket) == [("delete", 2)]
    assert await told(other) == [("create", 2)]
    await run_sql("UPDATE project_membership SET item_id = 3 WHERE item_id = 2")
    assert await told(other, 2) == [("create", 3), ("delete", 2)]
    await run_sql("DELETE FROM project_membership WHERE \"user\" = 'u'")
    assert await told(socket) == [("delete", 1)]
    await run_sql("TRUNCATE project_membership")
    assert await told(other, 2) == [("delete", 1), ("delete", 3)]


async def test_joined_twice(connect: Any, items: list[Item]) -> None:
    """A row that a join finds twice is there once, and goes with the last of the two."""
    join = "INSERT INTO project_membership (\"user\", item_id) VALUES ('u', 1)"
    await run_sql(join)
    await run_sql(join)
    socket = await connect(OwnConsumer, user="u")
    assert keys(await subscribe(socket)) == [1]

    await run_sql(UPDATE, "x", 1)
    assert await told(socket) == [("update", 1)]
    await run_sql(
        "DELETE FROM project_membership WHERE id = (SELECT min(id) FROM project_membership)"
    )
    assert await socket.has_nothing()
    await run_sql("DELETE FROM project_membership")
    assert await told(socket) == [("delete", 1)]


class ItemFilter(django_filters.FilterSet):
    least = django_filters.NumberFilter(field_name="rank", lookup_expr="gte")

    class Meta:
        model = Item
        fields = ["name"]


class FilteredConsumer(ItemListConsumer):
    filter_backends = [DjangoFilterBackend, SearchFilter, OrderingFilter]
    filterset_class = ItemFilter
    search_fields = ["name"]


async def test_filter_backends(connect: Any, items: list[Item]) -> None:
    """django-filter and REST framework's own filters decide what comes and goes."""
    socket = await connect(FilteredConsumer)
    frame = await subscribe(socket, query={"least": "2", "ordering": "-rank"})
    assert keys(frame) == [3, 2]

    await run_sql(RANK, 7, 1)
    await run_sql(RANK, 0, 2)
    assert await told(socket, 2) == [("create", 1), ("delete", 2)]


async def test_bad_filter(connect: Any, items: list[Item]) -> None:
    """What a filter refuses is answered 400, and nothing is subscribed."""
    socket = await connect(FilteredConsumer)
    frame = await socket.ask("subscribe_list", request_id=1, query={"least": "much"})
    await run_sql(UPDATE, "x", 1)

    assert frame["response_status"] == 400, frame
    assert await socket.has_nothing()


# Annotations, and rows with less or more to them


class CountedConsumer(ItemListConsumer):
    """Shows rows with members, the most popular ones first."""

    queryset = (
        Item.objects.annotate(members=Count("membership"))
        .filter(members__gt=1)
        .order_by("-members")
    )


async def test_aggregated(connect: Any, items: list[Item]) -> None:
    """A row enters and leaves with the number of other rows that belong to it."""
    join = 'INSERT INTO project_membership ("user", item_id) VALUES (%s, %s)'
    for user in "uv":
        await run_sql(join, user, 1)
    socket = await connect(CountedConsumer)
    assert keys(await subscribe(socket)) == [1]

    await run_sql(join, "u", 2)
    assert await socket.has_nothing()
    await run_sql(join, "v", 2)
    assert await told(socket) == [("create", 2)]
    await run_sql("DELETE FROM project_membership WHERE \"user\" = 'u'")
    assert await told(socket, 2) == [("delete", 1), ("delete", 2)]


@pytest.mark.parametrize(
    "queryset",
    [
        Item.objects.only("name"),
        Item.objects.defer("rank"),
        Item.objects.distinct(),
        Item.objects.reverse(),
        Item.objects.order_by(F("rank").desc(nulls_last=True)),
        Item.objects.annotate(more=Value("50%")).filter(name__contains=""),
        Item.objects.exclude(name__contains="%"),
        Item.objects.filter(pk__in=Item.objects.filter(rank__gt=0)),
    ],
    ids=range(8),
)
async def test_querysets(connect: Any, items: list[Item], queryset: Any) -> None:
    """However a queryset is made, its rows are read in the same way one by one and together."""

    class Consumer(ItemListConsumer):
        def get_queryset(self, **kwargs: Any) -> Any:
            return queryset.all()

    socket = await connect(Consumer)
    assert sorted(keys(await subscribe(socket))) == [1, 2, 3]
    await run_sql(UPDATE, "x", 2)
    frame = await socket.receive()
    assert frame["data"] == {"id": 2, "name": "x", "rank": 2}
    await run_sql("DELETE FROM project_item WHERE id = 2")

    assert await told(socket) == [("delete", 2)]


async def test_none(connect: Any, items: list[Item]) -> None:
    """A list of nothing is empty and stays so."""

    class Consumer(ItemListConsumer):
        queryset = Item.objects.none()

    socket = await connect(Consumer)
    assert keys(await subscribe(socket)) == []
    await run_sql(UPDATE, "x", 2)

    assert await socket.has_nothing()


@pytest.mark.parametrize(
    "queryset",
    [
        Item.objects.all()[:2],
        Item.objects.values("id"),
        Item.objects.values_list("id"),
        Item.objects.all().union(Item.objects.all()),
        Item.objects.distinct("name"),
        [],
        None,
    ],
    ids=["sliced", "values", "values_list", "union", "distinct", "list", "nothing"],
)
async def test_refused(
    connect: Any, items: list[Item], queryset: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A queryset that can't be watched is the server's fault: its log says why; the socket lives."""

    class Consumer(ItemListConsumer):
        def get_queryset(self, **kwargs: Any) -> Any:
            return queryset

    socket = await connect(Consumer)
    frame = await socket.ask("subscribe_list", request_id=1)
    again = await socket.ask("unsubscribe_list", request_id=1)

    assert (frame["action"], frame["response_status"]) == ("subscribe_list", 500)
    assert frame["data"] is None
    assert "can't be watched" in frame["errors"][0]
    assert again["response_status"] == 204
    (said,) = [each for each in caplog.records if "can't be watched" in each.message]
    assert "queryset" in said.message
    assert said.exc_info is None


# Time


async def test_clock(connect: Any, items: list[Item]) -> None:
    """A queryset that compiles otherwise each time is looked at for each change."""

    class Consumer(ItemListConsumer):
        least = 0

        def get_queryset(self, **kwargs: Any) -> Any:
            type(self).least += 1
            return Item.objects.filter(rank__gte=0, id__gte=-type(self).least).annotate(at=Now())

    socket = await connect(Consumer)
    await subscribe(socket)
    for name in "xy":
        await run_sql(UPDATE, name, 1)
        assert await told(socket) == [("update", 1)]


async def test_ages(connect: Any, items: list[Item]) -> None:
    """A queryset that is another one when it has aged is told as a difference, once."""

    class Consumer(ItemListConsumer):
        least = 2

        def get_queryset(self, **kwargs: Any) -> Any:
            return Item.objects.filter(rank__gte=type(self).least)

    socket, other = await connect(Consumer), await connect(ItemListConsumer)
    assert sorted(keys(await subscribe(socket))) == [2, 3]
    await subscribe(other)
    Consumer.least = 1
    await run_sql(UPDATE, "x", 3)
    assert await told(socket) == [("update", 3)]
    for subscription in list(_subscriptions()):
        subscription.visibility._ttl = 0
    Consumer.least = 3
    await run_sql(UPDATE, "y", 1)

    assert await told(socket) == [("delete", 2)]
    Consumer.least = 0
    await run_sql(UPDATE, "z", 3)
    assert await told(socket, 3) == [("create", 1), ("create", 2), ("update", 3)]


def _subscriptions() -> Iterator[Any]:
    for feed in runtime.current().feeds.values():
        for watch in feed.hub._lists:
            yield watch.context


# Permissions


class Guarded(permissions.BasePermission):
    """Hides from a user the rows of a rank, which the serializer does not show."""

    hidden: dict[str, int] = {}

    def has_object_permission(self, request: Any, view: Any, obj: Any) -> bool:
        return obj.rank != self.hidden.get(str(request.user))


class NameSerializer(ItemSerializer):
    class Meta:
        model = Item
        fields = ["id", "name"]


class GuardedConsumer(ItemListConsumer):
    serializer_class = NameSerializer
    permission_classes = [Guarded]


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What is hidden from whom."""
    monkeypatch.setattr(Guarded, "hidden", {"u": 2})
    return Guarded.hidden


async def test_hidden(connect: Any, items: list[Item], guarded: dict[str, int]) -> None:
    """A row that a permission hides is not there for its user, and is for the others."""
    socket = await connect(GuardedConsumer, user=User(username="u"))
    other = await connect(GuardedConsumer, user=User(username="v"))
    assert keys(await subscribe(socket)) == [1, 3]
    assert keys(await subscribe(other)) == [1, 2, 3]
    await run_sql(UPDATE, "x", 2)

    assert await told(other) == [("update", 2)]
    assert await socket.has_nothing()


async def test_hidden_by_what_is_not_shown(
    connect: Any, items: list[Item], guarded: dict[str, int]
) -> None:
    """A row leaves and comes back by a column that is not shown."""
    socket = await connect(GuardedConsumer, user=User(username="u"))
    await subscribe(socket)
    await run_sql(RANK, 2, 1)
    assert await told(socket) == [("delete", 1)]
    await run_sql(RANK, 1, 1)

    assert await told(socket) == [("create", 1)]


async def test_changes_its_mind(connect: Any, items: list[Item], guarded: dict[str, int]) -> None:
    """A permission is asked anew whenever the row changes."""
    socket = await connect(GuardedConsumer, user=User(username="u"))
    await subscribe(socket)
    guarded["u"] = 3
    await run_sql(UPDATE, "x", 2)
    await run_sql(UPDATE, "x", 3)

    assert await told(socket, 2) == [("create", 2), ("delete", 3)]


async def test_counted(connect: Any, items: list[Item], guarded: dict[str, int]) -> None:
    """Rows that a permission hides are not counted."""
    socket = await connect(GuardedConsumer, user=User(username="u"))
    frame = await subscribe(socket, only="count")
    assert frame["data"] == {"count": 2}
    await run_sql(RANK, 1, 2)

    assert (await socket.receive())["data"] == {"count": 3}


class Nobody(BasePermission):
    """Lets nobody subscribe."""

    async def has_permission(self, scope: Any, consumer: Any, action: str, **kwargs: Any) -> bool:
        return action != "subscribe_list"


async def test_denied(connect: Any, items: list[Item]) -> None:
    """Who may not subscribe is told 403, and nothing after it."""

    class Consumer(ItemListConsumer):
        permission_classes = [Nobody]

    socket = await connect(Consumer)
    frame = await socket.ask("subscribe_list", request_id=1)
    await run_sql(UPDATE, "x", 1)

    assert frame["response_status"] == 403
    assert await socket.has_nothing()


# Rows that can't be shown


class FragileConsumer(ItemListConsumer):
    class Serializer(ItemSerializer):
        def to_representation(self, instance: Any) -> Any:
            if instance.name == "bad":
                raise RuntimeError("This row is bad.")
            return super().to_representation(instance)

    serializer_class = Serializer


async def test_fragile(connect: Any, items: list[Item]) -> None:
    """A row that can't be shown is told once; the others go on; mended it is an update."""
    socket = await connect(FragileConsumer)
    await subscribe(socket)
    await run_sql("UPDATE project_item SET name = CASE id WHEN 2 THEN 'bad' ELSE 'x' END")
    frames = [await socket.receive() for _ in range(3)]
    (failed,) = [frame for frame in frames if frame["errors"]]
    assert (failed["action"], failed["response_status"]) == ("update", 500)
    assert failed["data"] == {"pk": 2}
    assert "bad" not in str(failed["errors"])
    assert await socket.has_nothing()
    await run_sql(UPDATE, "good", 2)

    assert await told(socket) == [("update", 2)]


async def test_fragile_from_the_start(connect: Any, items: list[Item]) -> None:
    """A list with a row that can't be shown has the others; mended it is a create."""
    await run_sql(UPDATE, "bad", 2)
    socket = await connect(FragileConsumer)
    assert keys(await subscribe(socket)) == [1, 3]
    failed = await socket.receive()
    assert (failed["response_status"], failed["data"]) == (500, {"pk": 2})
    await run_sql(UPDATE, "good", 2)
    assert await told(socket) == [("create", 2)]
    await run_sql(UPDATE, "bad", 2)
    assert (await socket.receive())["errors"]
    await run_sql("DELETE FROM project_item WHERE id = 2")

    assert await told(socket) == [("delete", 2)]


class GreetingConsumer(ItemListConsumer):
    class Serializer(ItemSerializer):
        def to_representation(self, instance: Any) -> Any:
            user = self.context["scope"]["user"]
            return {**super().to_representation(instance), "name": f"{user}: {instance.name}"}

    serializer_class = Serializer


async def test_shown_to_the_user(connect: Any, items: list[Item]) -> None:
    """A serializer that looks at the user shows each what is his, in lists and later."""
    sockets = {user: await connect(GreetingConsumer, user=user) for user in "uv"}
    for user, socket in sockets.items():
        frame = await subscribe(socket)
        assert [row["name"] for row in frame["data"]["results"]] == [f"{user}: {n}" for n in "abc"]
    await run_sql(UPDATE, "x", 1)

    for user, socket in sockets.items():
        assert (await socket.receive())["data"]["name"] == f"{user}: x"
