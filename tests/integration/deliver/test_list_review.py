"""Lists whose rows must not be mixed up, left out or forgotten, though much looks the same."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.contenttypes.models import ContentType
from django.contrib.contenttypes.prefetch import GenericPrefetch
from django.db import transaction
from django.db.models import Prefetch
from rest_framework import serializers
from rest_framework.filters import SearchFilter
from rest_framework.permissions import BasePermission

from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelInstanceMixin, ObserverModelListMixin
from pgobserve.read import row_reader
from pgobserve.runtime import runtime
from pgobserve.sql import reverse_lookup
from tests.bookshelf.models import Author, Book, Label, Publisher, Tag
from tests.bookshelf.serializers import shows
from tests.bookshelf.tables import ALL, library
from tests.installing import install
from tests.integration.deliver.conftest import run_sql
from tests.integration.deliver.test_list import (
    UPDATE,
    ItemListConsumer,
    ItemSerializer,
    RankedConsumer,
    subscribe,
)
from tests.integration.deliver.test_related import run
from tests.project.models import Item, Membership

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.parametrize("transport", ["notify"], indirect=True)


@pytest.fixture
def labels() -> tuple[str, ...]:
    """The memberships' table is observed, too."""
    return "project.Item", "auth.User", "project.Membership"


@pytest.fixture
def items(observed: None) -> list[Item]:
    """Three rows."""
    return [Item.objects.create(id=n, name=name, rank=n) for n, name in enumerate("abc", 1)]


@pytest.fixture
def shelf(transactional_db: None, transport: str) -> Iterator[list[Book]]:
    """Two books of two authors of one house."""
    with library():
        labels = [model._meta.label for model in ALL]
        install(*labels, "library.Book_tags")
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


class PrefetchedConsumer(ItemListConsumer):
    class Serializer(serializers.ModelSerializer[Item]):
        names = serializers.SerializerMethodField()

        class Meta:
            model = Item
            fields = ["id", "names"]

        def get_names(self, item: Item) -> list[str]:
            return [each.item.name for each in item.membership_set.all()]

    serializer_class = Serializer

    def get_queryset(self, **kwargs: Any) -> Any:
        scope: Any = self.scope
        of_it = scope["item"].membership_set.all()
        return Item.objects.prefetch_related(Prefetch("membership_set", of_it))


async def test_prefetch_of_a_related_manager(connect: Any, items: list[Item]) -> None:
    """So do rows that are prefetched."""
    await run_sql("INSERT INTO project_membership (\"user\", item_id) VALUES ('u', 1)")
    socket = await connect(PrefetchedConsumer, item=items[0])
    await subscribe(socket)

    await run_sql(UPDATE, "new", 1)

    assert (await socket.receive())["data"] == {"id": 1, "names": ["new"]}


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


class BespokeConsumer(ObserverModelListMixin, GenericAsyncAPIConsumer):
    """Makes serializers in a way of its own, of another class than it declares."""

    queryset = Book.objects.all()
    serializer_class = shows(Book, "id")

    def get_serializer(self, action_kwargs: Any = None, *args: Any, **kwargs: Any) -> Any:
        return shows(Book, "id", name=serializers.CharField(source="author.name"))(*args, **kwargs)


class StaffConsumer(ObserverModelListMixin, GenericAsyncAPIConsumer):
    """Shows some clients more than others."""

    class Serializer(serializers.ModelSerializer[Book]):
        class Meta:
            model = Book
            fields = ["id"]

        def get_fields(self) -> Any:
            found = super().get_fields()
            if self.context and self.context["scope"]["user"] == "staff":
                found["name"] = serializers.CharField(source="author.name")
            return found

    queryset = Book.objects.all()
    serializer_class = Serializer


@pytest.mark.parametrize("consumer", [BespokeConsumer, StaffConsumer])
async def test_fields_of_some(connect: Any, shelf: list[Book], consumer: Any) -> None:
    """What only some clients are shown of other tables is watched for them."""
    for user in ("guest", "staff"):
        socket = await connect(consumer, user=user)
        await subscribe(socket)

    await run(lambda: Author.objects.filter(name="A").update(name="new"))

    assert (await socket.receive())["data"] == {"id": shelf[0].pk, "name": "new"}


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


# One that fails does not end the others' feed


async def test_way_back_that_takes_too_long(
    connect: Any, shelf: list[Book], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it can't be told in time which rows a change concerns, all are read, and nothing ends."""
    calls: list[str] = []
    told = reverse_lookup.resolve

    def resolve(path: Any, values: Any, connection: Any, **kwargs: Any) -> Any:
        calls.append(path.table)
        if len(calls) == 1:
            with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
                cursor.execute("SET LOCAL statement_timeout = 1")
                cursor.execute("SELECT pg_sleep(10)")
        return told(path, values, connection, **kwargs)

    monkeypatch.setattr(row_reader, "resolve", resolve)
    socket = await connect(WholeConsumer)
    await subscribe(socket)
    task = runtime.current().feeds["default"]._task

    await run(lambda: Publisher.objects.update(name="new"))
    assert [(await socket.receive())["data"]["house"] for _ in shelf] == ["new", "new"]
    await run(lambda: Publisher.objects.update(name="newer"))
    assert [(await socket.receive())["data"]["house"] for _ in shelf] == ["newer", "newer"]

    assert runtime.current().feeds["default"]._task is task
    assert len(calls) == 2


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


class SearchedConsumer(ItemListConsumer):
    filter_backends = [SearchFilter]
    search_fields = ["name"]


async def test_endless_query(connect: Any, items: list[Item]) -> None:
    """A query that would burden all others is refused, and the socket lives."""
    socket = await connect(SearchedConsumer)
    words = " ".join(f"a{number}" for number in range(20_000))
    frame = await socket.ask("subscribe_list", request_id=1, query={"search": words})

    assert frame["response_status"] == 413
    assert frame["errors"] == ['"query" may have 8192 characters. Filter by less.']
    assert (await subscribe(socket, query={"search": "a"}))["data"]["results"]


class TaggedConsumer(ObserverModelInstanceMixin, ObserverModelListMixin, GenericAsyncAPIConsumer):
    """Shows of tags what can't be seen."""

    class Serializer(serializers.ModelSerializer[Book]):
        number = serializers.SerializerMethodField()

        class Meta:
            model = Book
            fields = ["id", "number"]

        def get_number(self, book: Book) -> int:
            tags: Any = getattr(book, "_".join(["tags"]))
            return int(tags.count())

    serializer_class = Serializer
    observer_many_to_many_relationships = True

    def get_queryset(self, **kwargs: Any) -> Any:
        scope: Any = self.scope
        return Book.objects.filter(rank__gte=scope["least"][0])


async def test_tables_that_are_wanted(connect: Any, shelf: list[Book], settings: Any) -> None:
    """Tables that a consumer wants watched are, also when its queryset has become another one."""
    settings.PGOBSERVE = {"QUERYSET_TTL": 0}
    least = [0]
    socket = await connect(TaggedConsumer, least=least)
    assert len((await subscribe(socket))["data"]["results"]) == 2
    least[0] = -1
    await run(lambda: Book.objects.create(rank=-1))
    assert (await socket.receive())["action"] == "create"

    await run(lambda: shelf[0].tags.add(Tag.objects.create(name="red")))

    assert (await socket.receive())["data"] == {"id": shelf[0].pk, "number": 1}


# What has ended has ended


class SlowConsumer(RankedConsumer):
    """Takes its time for updates."""

    slow: asyncio.Event
    began: asyncio.Event

    async def send_json(self, content: Any, close: bool = False) -> None:
        if content["action"] == "update":
            self.began.set()
            await self.slow.wait()
        await super().send_json(content, close)


@pytest.mark.parametrize("ends", ["unsubscribe_list", "subscribe_list"])
async def test_frame_on_its_way(
    connect: Any, items: list[Item], monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """A frame of a list that is being sent comes before the reply that ends or replaces it."""
    monkeypatch.setattr(SlowConsumer, "slow", asyncio.Event(), raising=False)
    monkeypatch.setattr(SlowConsumer, "began", asyncio.Event(), raising=False)
    socket = await connect(SlowConsumer)
    await subscribe(socket)
    await run_sql(UPDATE, "x", 1)
    await SlowConsumer.began.wait()

    await socket.send(action=ends, request_id=1, rank=99)
    overtaken = not await socket.communicator.receive_nothing(timeout=0.2)
    SlowConsumer.slow.set()

    assert not overtaken
    assert [(await socket.receive())["action"] for _ in range(2)] == ["update", ends]
    assert await socket.has_nothing()
