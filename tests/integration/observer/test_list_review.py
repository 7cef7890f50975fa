"""Lists whose rows must not be mixed up, left out or forgotten, though much looks the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.contenttypes.models import ContentType
from django.contrib.contenttypes.prefetch import GenericPrefetch
from django.core.management import call_command
from rest_framework import serializers
from rest_framework.permissions import BasePermission

from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelListMixin
from tests.integration.observer.conftest import run_sql
from tests.integration.observer.test_list import (
    UPDATE,
    ItemListConsumer,
    ItemSerializer,
    subscribe,
)
from tests.integration.observer.test_related import run
from tests.library.models import Author, Book, Label, Publisher
from tests.library.serializers import shows
from tests.library.tables import ALL, library
from tests.project.models import Item, Membership

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.parametrize("transport", ["notify"], indirect=True)


@pytest.fixture
def items(observed: None) -> list[Item]:
    """Three rows, with their memberships' table observed, too."""
    call_command("pgobserve", "install", "project.Membership", verbosity=0)
    return [Item.objects.create(id=n, name=name, rank=n) for n, name in enumerate("abc", 1)]


@pytest.fixture
def shelf(transactional_db: None, transport: str) -> Iterator[list[Book]]:
    """Two books of two authors of one house."""
    with library():
        labels = [model._meta.label for model in ALL]
        call_command("pgobserve", "install", *labels, verbosity=0)
        house = Publisher.objects.create(name="house", slug="h")
        yield [
            Book.objects.create(
                title=title, author=Author.objects.create(name=title.upper(), publisher=house)
            )
            for title in "ab"
        ]


# Who shares with whom


class MembershipConsumer(ObserverModelListMixin, GenericAsyncAPIConsumer):
    serializer_class = shows(Membership, "id", name=serializers.CharField(source="item.name"))

    def get_queryset(self, **kwargs: Any) -> Any:
        scope: Any = self.scope
        return scope["item"].membership_set.all()


async def test_rows_of_a_related_manager(connect: Any, items: list[Item]) -> None:
    """Rows asked of the row that they refer to show it as it is, not as it was when asked."""
    await run_sql("INSERT INTO project_membership (\"user\", item_id) VALUES ('u', 1)")
    socket = await connect(MembershipConsumer, item=items[0])
    frame = await subscribe(socket)
    assert [row["name"] for row in frame["data"]["results"]] == ["a"]

    await run_sql(UPDATE, "new", 1)

    assert (await socket.receive())["data"]["name"] == "new"


class LabelConsumer(ObserverModelListMixin, GenericAsyncAPIConsumer):
    """Shows of what labels stick to what the user may see."""

    class Serializer(serializers.ModelSerializer[Label]):
        on = serializers.SerializerMethodField()

        class Meta:
            model = Label
            fields = ["id", "on"]

        def get_on(self, label: Label) -> str | None:
            return label.content_object.title if label.content_object else None

    serializer_class = Serializer

    def get_queryset(self, **kwargs: Any) -> Any:
        chosen = Book.objects.filter(title=self.scope["user"])
        return Label.objects.prefetch_related(GenericPrefetch("content_object", [chosen]))


async def test_generic_prefetch(connect: Any, shelf: list[Book]) -> None:
    """What a generic prefetch chooses for one user is not shown to another."""

    def stick() -> None:
        kind = ContentType.objects.get_for_model(Book)
        for book in shelf:
            Label.objects.create(content_type=kind, object_id=str(book.pk))

    await run(stick)
    seen = []
    sockets = []
    for user in "ab":
        socket = await connect(LabelConsumer, user=user)
        sockets.append(socket)
        frame = await subscribe(socket)
        seen.append([row["on"] for row in frame["data"]["results"] if row["on"]])

    assert seen == [["a"], ["b"]]


class DeclaredConsumer(ObserverModelListMixin, GenericAsyncAPIConsumer):
    queryset = Book.objects.all()
    serializer_class = shows(
        Book, "id", house=serializers.CharField(source="author.publisher.name")
    )
    observe_related = ["-author.publisher"]


class WholeConsumer(DeclaredConsumer):
    observe_related: Any = []


async def test_observe_related_of_another_class(connect: Any, shelf: list[Book]) -> None:
    """What one class leaves out is watched for another that shows the same rows."""
    other = await connect(DeclaredConsumer)
    await subscribe(other)
    socket = await connect(WholeConsumer)
    await subscribe(socket)

    await run(lambda: Publisher.objects.update(name="new"))

    assert (await socket.receive())["data"]["house"] == "new"


class PricedConsumer(ItemListConsumer):
    class Serializer(ItemSerializer):
        def to_representation(self, instance: Any) -> Any:
            return {**super().to_representation(instance), "in": self.context["currency"]}

    serializer_class = Serializer

    def get_serializer_context(self, currency: str = "", **kwargs: Any) -> Any:
        return {**super().get_serializer_context(**kwargs), "currency": currency}


async def test_two_ways_to_see_a_list(connect: Any, items: list[Item]) -> None:
    """Two subscriptions of a socket to the same rows get each what its message asked for."""
    socket = await connect(PricedConsumer)
    first = await subscribe(socket, 1, currency="EUR")
    second = await subscribe(socket, 2, currency="USD")
    assert [first["data"]["results"][0]["in"], second["data"]["results"][0]["in"]] == ["EUR", "USD"]

    await run_sql(UPDATE, "x", 1)
    told = [await socket.receive() for _ in range(2)]

    assert {f["request_id"]: f["data"]["in"] for f in told} == {1: "EUR", 2: "USD"}


# Permissions


class Open(BasePermission):
    """Refuses everything while closed."""

    closed = False

    def has_permission(self, request: Any, view: Any) -> bool:
        return not self.closed


class ClosedConsumer(ItemListConsumer):
    permission_classes = [Open]


@pytest.mark.parametrize("only", ["count", "keys", None])
async def test_permission_that_is_taken_away(
    connect: Any, items: list[Item], only: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may do nothing any more is told nothing of the list: no key, and not how long it is."""
    socket = await connect(ClosedConsumer)
    await subscribe(socket, only=only)
    monkeypatch.setattr(Open, "closed", True)

    await run_sql("INSERT INTO project_item (id, name, rank) VALUES (9, 'd', 4)")
    frame = await socket.receive()

    assert frame["response_status"] == 403
    assert frame["data"] == {"pk": None}


# Nothing is left out


class JoinedConsumer(ItemListConsumer):
    queryset = Item.objects.filter(membership__isnull=False).order_by("id")


async def test_limit_with_doubles(connect: Any, items: list[Item], settings: Any) -> None:
    """Rows that a join finds several times count once, and none is left out for it."""
    settings.PGOBSERVE = {"MAX_LIST_ROWS": 3}
    await run_sql(
        'INSERT INTO project_membership ("user", item_id) '
        "SELECT 'u' || n, i FROM generate_series(1, 5) n, generate_series(1, 3) i"
    )
    socket = await connect(JoinedConsumer)

    frame = await subscribe(socket)

    assert [row["id"] for row in frame["data"]["results"]] == [1, 2, 3]
