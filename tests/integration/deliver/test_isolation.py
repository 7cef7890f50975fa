"""What two users see of one class of consumers: exactly what ``list`` and ``retrieve`` show each."""

from __future__ import annotations

from functools import partialmethod
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db.models import CharField, ExpressionWrapper, F, Manager, Q, QuerySet
from django.db.models.query import ModelIterable
from rest_framework import serializers
from rest_framework.filters import BaseFilterBackend

from pgobserve.decorators import action
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.mixins import ListModelMixin
from pgobserve.observer.generics import ObserverModelInstanceMixin, ObserverModelListMixin
from pgobserve.permissions import BasePermission
from tests.integration.deliver.conftest import run_sql
from tests.project.models import Item


@pytest.fixture
def transport(settings: Any) -> str:
    """Nothing here depends on how changes travel."""
    settings.PGOBSERVE = {"TRANSPORT": "notify"}
    return "notify"


class Public(serializers.ModelSerializer):
    class Meta:
        model = Item
        fields = ["id", "name"]


class Private(serializers.ModelSerializer):
    class Meta:
        model = Item
        fields = ["id", "name", "rank"]


class Base(
    ListModelMixin, ObserverModelListMixin, ObserverModelInstanceMixin, GenericAsyncAPIConsumer
):
    queryset = Item.objects.order_by("id")
    serializer_class: Any = Private


def is_staff(consumer: Any) -> bool:
    """Tell whether a socket is the one that sees more."""
    return str(consumer.scope["user"]) == "staff"


class SerializerProperty(Base):
    @property
    def serializer_class(self) -> Any:
        return Private if is_staff(self) else Public


class QuerysetProperty(Base):
    @property
    def queryset(self) -> Any:
        found = Item.objects.order_by("id")
        return found if is_staff(self) else found.filter(rank=0)


class Opening(Base):
    """Has hooks set on the one instance when a socket opens."""

    async def websocket_connect(self, message: Any) -> None:
        if not is_staff(self):
            self.set_up()
        await super().websocket_connect(message)

    def set_up(self) -> None:
        raise NotImplementedError


class OwnQueryset(Opening):
    def set_up(self) -> None:
        self.get_queryset = lambda **kwargs: Item.objects.filter(rank=0)  # type: ignore[method-assign]


class OwnFilter(Opening):
    def set_up(self) -> None:
        self.filter_queryset = lambda queryset, **kwargs: queryset.filter(rank=0)  # type: ignore[method-assign]


class OwnSerializerClass(Opening):
    def set_up(self) -> None:
        self.get_serializer_class = lambda **kwargs: Public  # type: ignore[method-assign]


class OwnSerializer(Opening):
    def set_up(self) -> None:
        def get_serializer(action_kwargs: Any = None, *args: Any, **kwargs: Any) -> Any:
            return Public(*args, **kwargs)

        self.get_serializer = get_serializer  # type: ignore[method-assign]


class OwnContext(Opening):
    class Shown(serializers.ModelSerializer):
        shown_to = serializers.SerializerMethodField()

        class Meta:
            model = Item
            fields = ["id", "name", "shown_to"]

        def get_shown_to(self, instance: Item) -> Any:
            return self.context.get("name", "nobody")

    serializer_class = Shown

    def set_up(self) -> None:
        self.get_serializer_context = lambda **kwargs: {"name": str(self.scope["user"])}  # type: ignore[method-assign]


class FewRanks(BaseFilterBackend):
    def filter_queryset(self, request: Any, queryset: Any, view: Any) -> Any:
        return queryset.filter(rank=0)


class OwnBackends(Opening):
    def set_up(self) -> None:
        self.filter_backends = [FewRanks]


class OwnLookUp(Base):
    """Has another serializer class by its own way to look attributes up."""

    def __getattribute__(self, name: str) -> Any:
        if name == "serializer_class" and not is_staff(self):
            return Public
        return super().__getattribute__(name)


class Hidden(type(Base)):  # type: ignore[misc]
    """A metaclass by which the class shows another queryset than its instances."""

    @property
    def queryset(cls) -> Any:
        return Item.objects.none()


class ByMetaclass(Base, metaclass=Hidden):
    def get_queryset(self, **kwargs: Any) -> Any:
        return Item.objects.filter(**({} if is_staff(self) else {"rank": 0})).order_by("id")


class Partial(Base):
    def _get_serializer(
        self, action_kwargs: Any = None, *args: Any, more: Any, **kwargs: Any
    ) -> Any:
        return (more if is_staff(self) else Public)(*args, **kwargs)

    get_serializer = partialmethod(_get_serializer, more=Private)  # type: ignore[assignment]


class Rewritten(Base):
    """Writes what the user may see into one class that all share."""

    class Shown(serializers.ModelSerializer):
        with_rank = False

        class Meta:
            model = Item
            fields = ["id", "name", "rank"]

        def to_representation(self, instance: Item) -> Any:
            shown = super().to_representation(instance)
            return shown if self.with_rank else {**shown, "rank": None}

    def get_serializer_class(self, **kwargs: Any) -> Any:
        self.Shown.with_rank = is_staff(self)
        return self.Shown


class OwnRows(QuerySet[Item]):
    """Asks for a user when it is copied."""

    user: Any = None

    def _clone(self) -> Any:
        made: Any = super()._clone()  # type: ignore[misc]
        made.user = self.user
        return made


class Masking(OwnRows):
    """Changes rows after they were read."""

    def _fetch_all(self) -> None:
        super()._fetch_all()  # type: ignore[misc]
        for row in self._result_cache or ():
            if self.user != "staff":
                row.name = "*" * len(row.name)


class Dropping(OwnRows):
    """Leaves rows out after they were read."""

    def _fetch_all(self) -> None:
        super()._fetch_all()  # type: ignore[misc]
        self._result_cache = [
            r for r in self._result_cache or () if self.user == "staff" or not r.rank
        ]


def by_rows(rows: type[OwnRows]) -> Any:
    """Return a consumer whose querysets know the user, in Python."""

    class ByRows(Base):
        def get_queryset(self, **kwargs: Any) -> Any:
            queryset = rows(Item).order_by("id")
            user = self.scope["user"]
            queryset.user = user if rows is Counted else str(user)
            return queryset

    ByRows.__name__ = rows.__name__
    return ByRows


class MaskingIterable(ModelIterable):
    """Changes rows while they are made."""

    def __iter__(self) -> Any:
        for row in super().__iter__():
            if self.queryset.user != "staff":  # type: ignore[attr-defined]
                row.name = "*" * len(row.name)
            yield row


class Iterating(OwnRows):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._iterable_class = MaskingIterable


class Counted(Dropping):
    """Leaves rows out for a user that it knows as an object."""

    def _fetch_all(self) -> None:
        self.user = str(self.user)
        super()._fetch_all()


class Masked(CharField):
    """Values that are masked for some users; where they are read from does not show it."""

    def __init__(self, shown: bool) -> None:
        super().__init__()
        self.shown = shown

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return value if self.shown else "*" * len(value)


class Annotated(Base):
    class Shown(serializers.ModelSerializer):
        masked = serializers.CharField()

        class Meta:
            model = Item
            fields = ["id", "name", "masked"]

    serializer_class = Shown

    def get_queryset(self, **kwargs: Any) -> Any:
        masked = ExpressionWrapper(F("name"), output_field=Masked(is_staff(self)))
        return super().get_queryset(**kwargs).annotate(masked=masked)


class ByManager(Base):
    """Has a manager where others have a queryset."""

    class Few(Manager[Item]):
        few = True

        def get_queryset(self) -> Any:
            found = super().get_queryset().order_by("id")
            return found.filter(Q(rank=0) if self.few else Q())

    queryset: Any = Few()
    queryset.model = Item


KINDS = [
    SerializerProperty,
    QuerysetProperty,
    OwnQueryset,
    OwnFilter,
    OwnSerializerClass,
    OwnSerializer,
    OwnContext,
    OwnBackends,
    OwnLookUp,
    ByMetaclass,
    Partial,
    Rewritten,
    ByManager,
    Annotated,
    by_rows(Masking),
    by_rows(Dropping),
    by_rows(Iterating),
    by_rows(Counted),
]


async def seen(socket: Any) -> dict[Any, Any]:
    """Return the rows that ``list`` shows a socket; ``retrieve`` shows the same."""
    rows = {row["id"]: row for row in (await socket.ask("list", request_id=0))["data"]}
    for pk, row in rows.items():
        assert (await socket.ask("retrieve", request_id=0, pk=pk))["data"] == row
    return rows


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("order", [("staff", "anna"), ("anna", "staff")], ids="-".join)
async def test_kind(connect: Any, items: list[Item], kind: Any, order: tuple[str, str]) -> None:
    """Each socket is shown what ``list`` shows it, whichever of two users comes first."""
    sockets = [await connect(kind, user=User(username=name)) for name in order]
    counts = []
    for socket in sockets:
        rows = await seen(socket)
        counts.append(len(rows))
        listed = await socket.ask("subscribe_list", request_id="list")
        assert listed["data"]["results"] == [*rows.values()]
        for item in items:
            answer = await socket.subscribe(item.pk, f"row {item.pk}", snapshot=True)
            assert answer["data"] == rows.get(item.pk)
            assert answer["response_status"] == (201 if item.pk in rows else 404)
    await run_sql("UPDATE project_item SET name = name || '!'")
    for socket, count in zip(sockets, counts, strict=True):
        shown = await changed(socket, count)
        assert shown == await seen(socket)


async def changed(socket: Any, count: int) -> dict[Any, Any]:
    """Return what the frames of a change show by row; a row and a list have each of the rows."""
    shown: dict[Any, list[Any]] = {}
    for _ in range(2 * count):
        frame = await socket.receive()
        shown.setdefault(frame["data"]["id"], []).append((frame["request_id"], frame["data"]))
    for pk, frames in shown.items():
        assert sorted(name for name, _ in frames) == ["list", f"row {pk}"], frames
        assert frames[0][1] == frames[1][1]
    assert await socket.has_nothing()
    return {pk: frames[0][1] for pk, frames in sorted(shown.items())}


async def test_count_of_rows_that_python_leaves_out(connect: Any, items: list[Item]) -> None:
    """A number of rows is that of the rows which are shown."""
    socket = await connect(by_rows(Dropping), user=User(username="anna"))
    counted = await socket.ask("subscribe_list", request_id=1, only="count")
    await run_sql("UPDATE project_item SET rank = 0")

    assert counted["data"] == {"count": 1}
    assert (await socket.receive())["data"] == {"count": 3}


# Permissions of each subscription


class OnlyRankNought(BasePermission):
    async def has_permission(self, scope: Any, consumer: Any, action: str, **kwargs: Any) -> bool:
        return True

    def has_object_permission(
        self, scope: Any, consumer: Any, action: str, instance: Any, **kwargs: Any
    ) -> bool:
        return bool(instance.rank == 0)


class OwnRetrieve(Base):
    """Shows rows by itself, lists by the queryset."""

    permission_classes = [OnlyRankNought]

    @action()
    def retrieve(self, **kwargs: Any) -> tuple[Any, int]:
        return {"id": self.get_object(**kwargs).pk}, 200


async def test_row_first(connect: Any, items: list[Item]) -> None:
    """Permissions judge the rows of a list, though a row of the same socket needs none."""
    socket = await connect(OwnRetrieve)
    await socket.subscribe(items[0].pk, "row")
    listed = await socket.ask("subscribe_list", request_id="list")
    await run_sql("UPDATE project_item SET name = 'x' WHERE rank <> 0")

    assert [row["id"] for row in listed["data"]["results"]] == [items[0].pk]
    assert await socket.has_nothing()


async def test_permissions_of_the_instance(connect: Any, items: list[Item]) -> None:
    """Permission classes that are set on the instance hold from its next subscription on."""

    class Consumer(Base):
        @action()
        async def close_up(self, **kwargs: Any) -> tuple[None, int]:
            self.permission_classes = [OnlyRankNought]
            return None, 200

    socket = await connect(Consumer)
    assert len((await socket.ask("subscribe_list", request_id=1))["data"]["results"]) == 3
    await socket.ask("unsubscribe_list", request_id=1)
    await socket.ask("close_up", request_id=1)
    listed = await socket.ask("subscribe_list", request_id=2)
    await run_sql("UPDATE project_item SET name = 'x' WHERE rank <> 0")

    assert [row["id"] for row in listed["data"]["results"]] == [items[0].pk]
    assert await socket.has_nothing()


async def test_own_check_of_the_instance(connect: Any, items: list[Item]) -> None:
    """A ``check_object_permissions`` that is set on the instance judges its rows."""

    class Consumer(Base):
        async def websocket_connect(self, message: Any) -> None:
            self.check_object_permissions = self.check  # type: ignore[method-assign]
            await super().websocket_connect(message)

        def check(self, obj: Any, **kwargs: Any) -> None:
            if obj.rank:
                raise PermissionError

    socket = await connect(Consumer)
    listed = await socket.ask("subscribe_list", request_id=1)

    assert [row["id"] for row in listed["data"]["results"]] == [items[0].pk]


class Remembering(BasePermission):
    """Keeps what it has found, as it may where an instance serves one decision."""

    allowed = True

    def __init__(self) -> None:
        self.known: bool | None = None

    def has_permission(self, scope: Any, consumer: Any, action: str, **kwargs: Any) -> bool:  # type: ignore[override]
        if self.known is None:
            self.known = self.allowed
        return self.known


async def test_permission_that_keeps_state(
    connect: Any, item: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A permission that remembers its answer is made anew for each decision."""
    consumer = type("Consumer", (Base,), {"permission_classes": [Remembering]})
    socket = await connect(consumer)
    await socket.subscribe(item.pk)
    await run_sql("UPDATE project_item SET name = 'two'")
    assert (await socket.receive())["data"]["name"] == "two"
    monkeypatch.setattr(Remembering, "allowed", False)
    await run_sql("UPDATE project_item SET name = 'three'")

    assert (await socket.receive())["response_status"] == 403
