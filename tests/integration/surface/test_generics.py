"""Looking rows up, filtering them, and asking whether they may be seen."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection
from django_filters import rest_framework as django_filters
from rest_framework import filters, serializers
from rest_framework import permissions as drf
from rest_framework.exceptions import PermissionDenied

from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.mixins import ListModelMixin, RetrieveModelMixin
from pgobserve.permissions import BasePermission
from tests.integration.surface.consumers import Items
from tests.project.models import Item
from tests.project.shapes import PairKey, TextKey, UuidKey
from tests.sockets import connected, reply

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.models import Model, QuerySet


def names(answer: dict[str, Any]) -> list[str]:
    assert answer["response_status"] == 200, answer
    return [row["name"] for row in answer["data"]]


async def test_lookup_field(items: list[Item]) -> None:
    """Rows may be looked up by another field, under its own name or another."""

    class ByName(Items):
        lookup_field = "name"

    class ByTitle(ByName):
        lookup_url_kwarg = "title"

    async with connected(ByName.as_asgi()) as client:
        assert (await client.ask("retrieve", name="e"))["data"]["id"] == items[0].pk
        assert (await client.ask("retrieve", pk=1))["errors"] == ['"name" is required.']
        assert (await client.ask("retrieve", name="\0"))["response_status"] == 404
    async with connected(ByTitle.as_asgi()) as client:
        assert (await client.ask("retrieve", title="e"))["data"]["id"] == items[0].pk
        assert (await client.ask("retrieve", name="e"))["errors"] == ['"title" is required.']


@pytest.fixture
def table(transactional_db: None, model: type[Model]) -> Iterator[None]:
    """The table of an unmanaged model."""
    with connection.schema_editor() as editor:
        editor.create_model(model)
    yield
    with connection.schema_editor() as editor:
        editor.delete_model(model)


@pytest.mark.parametrize(
    ("model", "key", "sent"),
    [
        (UuidKey, {"id": uuid.UUID(int=5)}, str(uuid.UUID(int=5))),
        (TextKey, {"id": "a:b"}, "a:b"),
        (PairKey, {"left": "a", "right": 1}, ["a", 1]),
    ],
    ids=["uuid", "text", "pair"],
)
@pytest.mark.usefixtures("table")
async def test_keys_of_other_types(model: Any, key: dict[str, Any], sent: Any) -> None:
    """UUIDs, texts and pairs are keys as JSON can say them; what they can't be is 404."""

    class Serializer(serializers.ModelSerializer[Any]):
        class Meta:
            fields = ["name"]

    Serializer.Meta.model = model  # type: ignore[attr-defined]

    class Consumer(RetrieveModelMixin, GenericAsyncAPIConsumer):
        queryset = model.objects.all()
        serializer_class = Serializer

    await sync_to_async(model.objects.create)(name="found", **key)
    async with connected(Consumer.as_asgi()) as client:
        assert (await client.ask("retrieve", pk=sent))["data"] == {"name": "found"}
        for other in ("zork", "\0", 6, ["a"], ["a", "b"], {}, None):
            assert (await client.ask("retrieve", pk=other))["response_status"] == 404


@pytest.mark.parametrize("pk", [True, 1.5, "1.5", 1.0000001])
async def test_what_merely_becomes_a_key_is_404(pk: object) -> None:
    """A value that Python would turn into the key of a row does not name that row."""
    await Item.objects.acreate(pk=1, name="one")
    async with connected(Items.as_asgi()) as client:
        assert (await client.ask("retrieve", pk=1))["response_status"] == 200
        assert (await client.ask("retrieve", pk="1"))["response_status"] == 200
        assert (await client.ask("retrieve", pk=pk))["response_status"] == 404


async def test_infinite_key_is_404() -> None:
    """A key that is infinite, as another decoder might let it through, is 404."""

    class Lenient(Items):
        @classmethod
        async def decode_json(cls, text_data: str) -> Any:
            return json.loads(text_data)

    async with connected(Lenient.as_asgi()) as client:
        assert (await client.ask("retrieve", pk=float("inf")))["response_status"] == 404
        assert (await client.ask("retrieve", pk=float("nan")))["response_status"] == 404


async def test_only_get_queryset(items: list[Item]) -> None:
    """A consumer may have ``get_queryset`` alone, which sees scope and message."""

    class Ranked(Items):
        queryset = None

        def get_queryset(self, **kwargs: Any) -> QuerySet[Any]:
            return Item.objects.filter(rank__lt=self.scope["most"], name__in=kwargs["names"])  # type: ignore[typeddict-item]

    async with connected(Ranked.as_asgi(), most=3) as client:
        assert sorted(names(await client.ask("list", names=["e", "d", "a"]))) == ["d", "e"]
        answer = await client.ask("retrieve", names=["a"], pk=items[4].pk)
        assert answer == reply("retrieve", errors=["Not found"], status=404)


async def test_queryset_is_read_again(items: list[Item]) -> None:
    """Each action reads the rows again, whatever was read before."""
    async with connected(Items.as_asgi()) as client:
        assert len((await client.ask("list"))["data"]) == 5
        await Item.objects.all().adelete()
        assert (await client.ask("list"))["data"] == []


class Filtered(Items):
    queryset = Item.objects.order_by("pk")
    filter_backends = (filters.SearchFilter, filters.OrderingFilter)
    search_fields = ["name"]
    ordering_fields = ["name", "rank"]


async def test_filters_of_drf(items: list[Item]) -> None:
    """DRF's filters take their terms from ``query``."""
    async with connected(Filtered.as_asgi()) as client:
        assert names(await client.ask("list")) == ["e", "d", "c", "b", "a"]
        assert names(await client.ask("list", query={"ordering": "name"})) == list("abcde")
        assert names(await client.ask("list", query={"search": "c"})) == ["c"]
        assert names(await client.ask("list", query={"ordering": "-rank", "search": ""})) == list(
            "abcde"
        )
        assert names(await client.ask("list", query={"search": 5})) == []


async def test_filters_decide_on_single_rows(items: list[Item]) -> None:
    """What the filters leave out can't be retrieved, as in DRF."""
    async with connected(Filtered.as_asgi()) as client:
        query = {"search": "c"}
        found = await client.ask("retrieve", pk=items[2].pk, query=query)
        assert found["response_status"] == 200
        other = await client.ask("retrieve", pk=items[0].pk, query=query)
        assert other["response_status"] == 404


class DjangoFiltered(Items):
    filter_backends = (django_filters.DjangoFilterBackend,)
    filterset_fields = {"name": ["exact", "in"], "rank": ["gte"]}


async def test_django_filter(items: list[Item]) -> None:
    """django-filter's backend works unchanged; what it refuses is 400 with its errors."""
    async with connected(DjangoFiltered.as_asgi()) as client:
        assert names(await client.ask("list", query={"rank__gte": 3})) == ["b", "a"]
        assert names(await client.ask("list", query={"name__in": "a,e"})) == ["e", "a"]
        assert await client.ask("list", query={"rank__gte": "x"}) == reply(
            "list", errors=[{"rank__gte": ["Enter a number."]}], status=400
        )


@pytest.mark.parametrize("query", [5, "a", [1], {"search": {"a": 1}}, {"search": "\0"}], ids=repr)
async def test_bad_query_is_400(items: list[Item], query: object) -> None:
    """A query that is none is 400 and the socket lives."""
    async with connected(Filtered.as_asgi()) as client:
        assert (await client.ask("list", query=query))["response_status"] == 400
        assert (await client.ask("list"))["response_status"] == 200


async def test_query_is_free_where_nothing_filters(items: list[Item]) -> None:
    """A consumer without filters may use the key ``query`` as it likes."""
    async with connected(Items.as_asgi()) as client:
        assert (await client.ask("list", query=5))["response_status"] == 200


async def test_filters_from_the_setting(items: list[Item], settings: Any) -> None:
    """Filters may come from the setting."""
    settings.DJANGO_CHANNELS_REST_API = {
        "DEFAULT_FILTER_BACKENDS": ["rest_framework.filters.OrderingFilter"]
    }
    async with connected(Items.as_asgi()) as client:
        assert names(await client.ask("list", query={"ordering": "name"})) == list("abcde")


class DrfOdd(drf.BasePermission):
    """Allows rows of odd rank."""

    message = "Even."

    def has_object_permission(self, request: Any, view: Any, obj: Any) -> bool:
        return bool(obj.rank % 2 or request.method == "DELETE")


class Odd(BasePermission):
    """Allows rows of odd rank, and asks the database for it."""

    async def has_permission(self, scope: Any, consumer: Any, action: str, **kwargs: Any) -> bool:
        return True

    def has_object_permission(
        self, scope: Any, consumer: Any, action: str, instance: Any, **kwargs: Any
    ) -> bool:
        assert "request_id" not in kwargs
        return action == "delete" or Item.objects.filter(pk=instance.pk, rank__in=[1, 3]).exists()


@pytest.mark.parametrize("permission", [DrfOdd, Odd, Odd & DrfOdd, ~~Odd & ~~DrfOdd])
async def test_object_permissions(items: list[Item], permission: Any) -> None:
    """A row that a permission hides is answered as one that is not there; others are served."""

    class Guarded(Items):
        permission_classes = (permission,)

    async with connected(Guarded.as_asgi()) as client:
        for name, extra in (("retrieve", {}), ("patch", {"data": {"name": "x"}})):
            allowed = await client.ask(name, request_id=1, pk=items[1].pk, **extra)
            assert allowed["response_status"] == 200
            refused = await client.ask(name, request_id=1, pk=items[2].pk, **extra)
            missing = await client.ask(name, request_id=1, pk=999, **extra)
            assert (refused["response_status"], refused["data"]) == (404, None)
            assert refused == missing
        assert (await client.ask("delete", pk=items[0].pk))["response_status"] == 204
        assert len(names(await client.ask("list"))) == 4
    assert await Item.objects.filter(name="x").acount() == 1


class ReadOnly(drf.BasePermission):
    """Shows all rows; changes none of odd rank."""

    message = "Look, don't touch."

    def has_object_permission(self, request: Any, view: Any, obj: Any) -> bool:
        return bool(request.method in drf.SAFE_METHODS or obj.rank % 2 == 0)


async def test_refused_change_of_a_row_that_is_seen(items: list[Item]) -> None:
    """A row that may be retrieved and not be changed is 403, with the permission's own sentence."""

    class Guarded(Items):
        permission_classes = (ReadOnly,)

    async with connected(Guarded.as_asgi()) as client:
        assert (await client.ask("retrieve", pk=items[1].pk))["response_status"] == 200
        refused = await client.ask("patch", pk=items[1].pk, data={"name": "x"})
        assert (refused["response_status"], refused["errors"]) == (403, [ReadOnly.message])


@pytest.mark.parametrize("error", [RuntimeError("internals"), PermissionDenied(code="other")])
async def test_object_permission_that_raises(
    items: list[Item], error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever an object permission raises, the row is answered as one that is not there."""

    class Raising(drf.BasePermission):
        def has_object_permission(self, request: Any, view: Any, obj: Any) -> bool:
            raise error

    class Guarded(Items):
        permission_classes = (Raising,)

    async with connected(Guarded.as_asgi()) as client:
        refused = await client.ask("retrieve", pk=items[1].pk)
        assert refused == await client.ask("retrieve", pk=999)
    assert ("internals" in caplog.text) == isinstance(error, RuntimeError)


async def test_object_permissions_of_overridden_get_permissions(items: list[Item]) -> None:
    """An overridden ``get_permissions`` decides on rows, too."""

    class Guarded(Items):
        async def get_permissions(self, action: str, **kwargs: Any) -> list[Any]:
            return [Odd()] if action == "retrieve" else []

    async with connected(Guarded.as_asgi()) as client:
        assert (await client.ask("retrieve", pk=items[2].pk))["response_status"] == 404
        assert (await client.ask("patch", pk=items[2].pk, data={"rank": 8}))[
            "response_status"
        ] == 200


async def test_list_alone(items: list[Item]) -> None:
    """A consumer has the actions of its mixins and no others."""

    class Listing(ListModelMixin, GenericAsyncAPIConsumer):
        queryset = Items.queryset
        serializer_class = Items.serializer_class

    async with connected(Listing.as_asgi()) as client:
        assert len(names(await client.ask("list"))) == 5
        assert (await client.ask("retrieve", pk=1))["response_status"] == 405
