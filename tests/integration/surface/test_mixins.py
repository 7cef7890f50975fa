"""The six actions, frame by frame."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from rest_framework import serializers

from pgobserve.decorators import action
from pgobserve.generics import GenericAsyncAPIConsumer
from tests.integration.surface.consumers import Items, ItemSerializer, shown
from tests.project.models import Item
from tests.sockets import connected, reply


async def test_create() -> None:
    """``create`` is 201 with the row."""
    async with connected(Items.as_asgi()) as client:
        answer = await client.ask("create", request_id=1, data={"name": "a", "rank": 3})
    item = await Item.objects.aget()
    assert (item.name, item.rank) == ("a", 3)
    assert answer == reply("create", shown(item), status=201, request_id=1)


async def test_list(items: list[Item]) -> None:
    """``list`` is 200 with all rows."""
    async with connected(Items.as_asgi()) as client:
        assert await client.ask("list", request_id=1) == reply(
            "list", [shown(item) for item in items], request_id=1
        )


async def test_retrieve(items: list[Item]) -> None:
    """``retrieve`` is 200 with the row."""
    async with connected(Items.as_asgi()) as client:
        assert await client.ask("retrieve", request_id=1, pk=items[1].pk) == reply(
            "retrieve", shown(items[1]), request_id=1
        )


async def test_update(items: list[Item]) -> None:
    """``update`` is 200 with the row as it is now."""
    async with connected(Items.as_asgi()) as client:
        answer = await client.ask("update", pk=items[0].pk, data={"name": "z", "rank": 9})
    assert answer == reply("update", shown(items[0], name="z", rank=9))
    assert await Item.objects.filter(name="z", rank=9).acount() == 1


@pytest.mark.parametrize("name", ["update", "patch"])
async def test_what_was_prefetched_is_read_again(items: list[Item], name: str) -> None:
    """The reply to a change shows related rows as they are now, prefetched or not."""

    class Related(serializers.ModelSerializer[Item]):
        members = serializers.SlugRelatedField(
            source="membership_set", slug_field="user", many=True, read_only=True
        )

        class Meta:
            model = Item
            fields = ["name", "members"]

    class Growing(Items):
        queryset = Item.objects.prefetch_related("membership_set")
        serializer_class = Related

        def perform_update(self, serializer: Any, **kwargs: Any) -> None:
            serializer.save().membership_set.create(user="new")

        perform_patch = perform_update

    async with connected(Growing.as_asgi()) as client:
        answer = await client.ask(name, pk=items[0].pk, data={"name": "x"})
        assert answer["data"] == {"name": "x", "members": ["new"]}


async def test_update_needs_every_field(items: list[Item]) -> None:
    """``update`` without a required field is 400."""
    async with connected(Items.as_asgi()) as client:
        assert await client.ask("update", pk=items[0].pk, data={"rank": 9}) == reply(
            "update", errors=[{"name": ["This field is required."]}], status=400
        )


async def test_patch(items: list[Item]) -> None:
    """``patch`` changes what is named and leaves the rest."""
    async with connected(Items.as_asgi()) as client:
        answer = await client.ask("patch", pk=items[0].pk, data={"rank": 9})
    assert answer == reply("patch", shown(items[0], rank=9))


async def test_delete(items: list[Item]) -> None:
    """``delete`` is 204 with null."""
    async with connected(Items.as_asgi()) as client:
        answer = await client.ask("delete", request_id=1, pk=items[0].pk)
    assert answer == reply("delete", None, status=204, request_id=1)
    assert await Item.objects.acount() == 4


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({}, {"name": ["This field is required."]}),
        (
            [1],
            {"non_field_errors": ["Invalid data. Expected a dictionary, but got list."]},
        ),
        (None, {"non_field_errors": ["No data provided"]}),
        ({"name": "\0"}, {"name": ["Null characters are not allowed."]}),
        ({"name": "a", "rank": 10**30}, None),
    ],
    ids=["empty", "list", "null", "nul", "overflow"],
)
async def test_invalid_data_is_400(data: Any, error: Any) -> None:
    """Invalid data is 400 with the serializer's errors in a list; the socket lives."""
    async with connected(Items.as_asgi()) as client:
        answer = await client.ask("create", request_id=1, data=data)
        assert (answer["response_status"], answer["data"]) == (400, None)
        if error is not None:
            assert answer["errors"] == [error]
        assert (await client.ask("list"))["response_status"] == 200


@pytest.mark.parametrize("name", ["create", "update", "patch"])
async def test_missing_data_is_400(items: list[Item], name: str) -> None:
    """A message without ``data`` where it is needed is 400."""
    async with connected(Items.as_asgi()) as client:
        assert await client.ask(name, pk=items[0].pk) == reply(
            name, errors=['"data" is required.'], status=400
        )


@pytest.mark.parametrize("name", ["retrieve", "update", "patch", "delete"])
async def test_missing_key_is_400(name: str) -> None:
    """A message that names no row is 400."""
    async with connected(Items.as_asgi()) as client:
        extra = {} if name in {"retrieve", "delete"} else {"data": {"name": "a"}}
        assert await client.ask(name, request_id=1, **extra) == reply(
            name, errors=['"pk" is required.'], status=400, request_id=1
        )


@pytest.mark.parametrize("name", ["retrieve", "delete"])
@pytest.mark.parametrize(
    "pk",
    [None, "abc", "", "\0", "\ud800", 10**30, -(10**30), 1e300, 1.5, True, [1], {"a": 1}, 0],
    ids=repr,
)
async def test_key_that_names_no_row_is_404(items: list[Item], name: str, pk: object) -> None:
    """A key that is null, of a wrong type, out of range or unknown is 404 and the socket lives."""
    async with connected(Items.as_asgi()) as client:
        assert await client.ask(name, request_id=1, pk=pk) == reply(
            name, errors=["Not found"], status=404, request_id=1
        )
        assert len((await client.ask("list"))["data"]) == 5


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("create", "serializer"),
        ("list", "queryset"),
        ("retrieve", "queryset"),
        ("retrieve", "obj"),
        ("update", "serializer"),
        ("patch", "serializer"),
        ("delete", "instance"),
        ("update", "instance"),
    ],
)
async def test_key_that_a_hook_takes_is_400(items: list[Item], name: str, key: str) -> None:
    """A key with the name of a hook's own argument is 400 and changes nothing."""
    async with connected(Items.as_asgi()) as client:
        message = (
            {"pk": items[0].pk, "data": {"name": "changed", "rank": 1}} if name != "list" else {}
        )
        if name in {"retrieve", "delete"}:
            del message["data"]
        answer = await client.ask(name, **message, **{key: 1})
        assert answer["response_status"] == 400
        assert answer["errors"] == [f'"{key}" is a reserved name and can\'t be a key here.']
    assert await Item.objects.acount() == 5
    assert not await Item.objects.filter(name="changed").aexists()


async def test_hooks_get_the_message() -> None:
    """Every hook gets the keys of the message, action and request id included."""
    calls: list[tuple[str, dict[str, Any]]] = []

    class Writing(Items):
        def get_queryset(self, **kwargs: Any) -> Any:
            calls.append(("get_queryset", kwargs))
            return super().get_queryset(**kwargs)

        def filter_queryset(self, queryset: Any, **kwargs: Any) -> Any:
            calls.append(("filter_queryset", kwargs))
            return super().filter_queryset(queryset, **kwargs)

        def get_serializer_class(self, **kwargs: Any) -> Any:
            calls.append(("get_serializer_class", kwargs))
            return super().get_serializer_class(**kwargs)

        def get_serializer_context(self, **kwargs: Any) -> Any:
            calls.append(("get_serializer_context", kwargs))
            return super().get_serializer_context(**kwargs)

        def perform_create(self, serializer: Any, **kwargs: Any) -> None:
            calls.append(("perform_create", kwargs))
            serializer.save(rank=42)

        def perform_patch(self, serializer: Any, **kwargs: Any) -> None:
            calls.append(("perform_patch", kwargs))
            super().perform_patch(serializer, **kwargs)

        def perform_update(self, serializer: Any, **kwargs: Any) -> None:
            calls.append(("perform_update", kwargs))
            super().perform_update(serializer, **kwargs)

        def perform_delete(self, instance: Any, **kwargs: Any) -> None:
            calls.append(("perform_delete", kwargs))

    async with connected(Writing.as_asgi()) as client:
        created = await client.ask("create", request_id=1, data={"name": "a"}, x=1)
        assert created["data"]["rank"] == 42
        given: dict[str, Any] = {"action": "create", "request_id": 1, "x": 1}
        assert sorted(calls, key=str) == [
            ("get_serializer_class", given),
            ("get_serializer_context", given),
            ("perform_create", given),
        ]
        calls.clear()
        pk = created["data"]["id"]
        await client.ask("patch", request_id=2, pk=pk, data={"rank": 1})
        given = {"action": "patch", "request_id": 2, "pk": pk}
        assert dict(calls) == {
            "get_queryset": given | {"data": {"rank": 1}},
            "filter_queryset": given | {"data": {"rank": 1}},
            "get_serializer_class": given,
            "get_serializer_context": given,
            "perform_patch": given,
        }
        calls.clear()
        await client.ask("update", request_id=3, pk=pk, data={"name": "b"})
        assert ("perform_update", {"action": "update", "request_id": 3, "pk": pk}) in calls
        calls.clear()
        await client.ask("list", request_id=4, page=1)
        assert ("get_queryset", {"action": "list", "request_id": 4, "page": 1}) in calls
        await client.ask("delete", request_id=5, pk=pk)
        assert calls[-1] == ("perform_delete", {"action": "delete", "request_id": 5, "pk": pk})
    assert await Item.objects.filter(pk=pk).aexists()


async def test_serializer_context_has_scope_and_consumer() -> None:
    """Serializers find the scope and the consumer in their context."""
    seen: list[dict[str, Any]] = []

    class Looking(ItemSerializer):
        def to_representation(self, instance: Item) -> Any:
            seen.append(self.context)
            return super().to_representation(instance)

    class Consumer(Items):
        serializer_class = Looking

    async with connected(Consumer.as_asgi(), marker="here") as client:
        await client.ask("create", data={"name": "a"})
    (context,) = seen
    assert context["scope"]["marker"] == "here"
    assert isinstance(context["consumer"], Consumer)
    assert set(context) == {"scope", "consumer"}


@pytest.mark.parametrize("name", ["list", "retrieve"])
async def test_consumer_without_queryset_is_500(name: str, caplog: Any) -> None:
    """A consumer that has neither a queryset nor ``get_queryset`` says so in the log."""

    class Bare(Items):
        queryset = None

    async with connected(Bare.as_asgi()) as client:
        assert (await client.ask(name, pk=1))["response_status"] == 500
    assert "Bare has no queryset" in caplog.text


async def test_consumer_without_serializer_is_500(items: list[Item], caplog: Any) -> None:
    """A consumer that has neither a serializer nor ``get_serializer_class`` says so in the log."""

    class Bare(Items):
        serializer_class = None

    async with connected(Bare.as_asgi()) as client:
        assert (await client.ask("list"))["response_status"] == 500
    assert "Bare has no serializer" in caplog.text


async def test_error_of_the_database_leaves_the_socket_usable(items: list[Item]) -> None:
    """A violated constraint is 500; the next message is served."""

    class Clashing(Items):
        def perform_create(self, serializer: Any, **kwargs: Any) -> None:
            serializer.save(id=items[0].pk)

        @action(atomic=True)
        def clash(self, **kwargs: Any) -> None:
            Item.objects.create(name="never")
            Item.objects.bulk_create([Item(id=items[0].pk, name="twin")])

    async with connected(Clashing.as_asgi()) as client:
        assert (await client.ask("clash"))["response_status"] == 500
        assert len((await client.ask("list"))["data"]) == 5


class Atomic(GenericAsyncAPIConsumer):
    @action()
    def plain(self, **kwargs: Any) -> tuple[bool, int]:
        return transaction.get_connection().in_atomic_block, 200

    @action(atomic=True)
    def always(self, **kwargs: Any) -> tuple[bool, int]:
        return transaction.get_connection().in_atomic_block, 200

    @action(atomic=False)
    def never(self, **kwargs: Any) -> tuple[bool, int]:
        return transaction.get_connection().in_atomic_block, 200


@pytest.mark.parametrize("requests", [True, False])
async def test_atomic(monkeypatch: pytest.MonkeyPatch, requests: bool) -> None:
    """Actions are atomic as they say, and otherwise as ``ATOMIC_REQUESTS`` says now."""
    monkeypatch.setitem(connections.settings[DEFAULT_DB_ALIAS], "ATOMIC_REQUESTS", requests)
    async with connected(Atomic.as_asgi()) as client:
        assert (await client.ask("plain"))["data"] is requests
        assert (await client.ask("always"))["data"] is True
        assert (await client.ask("never"))["data"] is False


async def test_atomic_action_rolls_back(items: list[Item]) -> None:
    """What an atomic action wrote is undone when it fails."""

    class Failing(Items):
        @action(atomic=True)
        def fail(self, **kwargs: Any) -> None:
            Item.objects.all().delete()
            raise RuntimeError

    async with connected(Failing.as_asgi()) as client:
        assert (await client.ask("fail"))["response_status"] == 500
    assert await sync_to_async(Item.objects.count)() == 5
