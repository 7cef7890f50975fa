"""Subscriptions to rows, through everything but a server."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.management import call_command
from rest_framework import serializers

from pgobserve.decorators import action
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.mixins import RetrieveModelMixin
from pgobserve.observer.generics import ObserverModelInstanceMixin
from tests.integration.deliver.conftest import run_sql, settled
from tests.project.models import Item

UPDATE = "UPDATE project_item SET name = %s WHERE id = %s"


class ItemSerializer(serializers.ModelSerializer):
    class Meta:
        model = Item
        fields = ["id", "name"]


class ItemConsumer(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    queryset = Item.objects.all()
    serializer_class = ItemSerializer


def test_other_mixins_may_follow() -> None:
    """DCRF's mixins may stand behind this one in a class's bases, as with DCRF."""
    bases = (ObserverModelInstanceMixin, RetrieveModelMixin, GenericAsyncAPIConsumer)

    assert type("Consumer", bases, {"queryset": Item.objects.all()})


async def test_update(connect: Any, item: Item) -> None:
    """A raw UPDATE arrives as an update frame with the request id and the row."""
    socket = await connect(ItemConsumer)
    assert await socket.subscribe(item.pk, 7) == {
        "action": "subscribe_instance",
        "data": None,
        "errors": [],
        "response_status": 201,
        "request_id": 7,
    }
    await run_sql(UPDATE, "two", item.pk)

    assert await socket.receive() == {
        "action": "update",
        "data": {"id": item.pk, "name": "two"},
        "errors": [],
        "response_status": 200,
        "request_id": 7,
    }
    assert await socket.has_nothing()


async def test_delete_and_create(connect: Any, item: Item) -> None:
    """A deleted row is a delete frame with its key; put back, it is a create frame."""
    socket = await connect(ItemConsumer)
    await socket.subscribe(item.pk)
    await run_sql("DELETE FROM project_item")
    gone = await socket.receive()
    await run_sql("INSERT INTO project_item (id, name, rank) VALUES (%s, 'back', 1)", item.pk)
    back = await socket.receive()

    assert (gone["action"], gone["data"], gone["response_status"]) == (
        "delete",
        {"pk": item.pk},
        204,
    )
    assert (back["action"], back["data"]["name"], back["response_status"]) == (
        "create",
        "back",
        200,
    )


async def test_silence_without_difference(connect: Any, item: Item) -> None:
    """What does not change the row as it is shown is silent: a no-op, a hidden column, a rollback."""
    socket = await connect(ItemConsumer)
    await socket.subscribe(item.pk)
    await run_sql("UPDATE project_item SET name = name")
    await run_sql("UPDATE project_item SET rank = rank + 1")
    await run_sql("BEGIN; UPDATE project_item SET name = 'never'; ROLLBACK")

    assert await socket.has_nothing()


async def test_several_changes_of_one_transaction(connect: Any, item: Item) -> None:
    """Several changes in one transaction are one frame, with the last state."""
    socket = await connect(ItemConsumer)
    await socket.subscribe(item.pk)
    await run_sql(
        "BEGIN; UPDATE project_item SET name = 'a'; UPDATE project_item SET name = 'b'; COMMIT"
    )

    assert (await socket.receive())["data"]["name"] == "b"
    assert await socket.has_nothing()


async def test_two_request_ids(connect: Any, item: Item) -> None:
    """Two request ids on one row get two frames; ending one leaves the other."""
    socket = await connect(ItemConsumer)
    await socket.subscribe(item.pk, "a")
    await socket.subscribe(item.pk, {"b": 1})
    await run_sql(UPDATE, "two", item.pk)
    both = [(await socket.receive())["request_id"] for _ in range(2)]
    ended = await socket.ask("unsubscribe_instance", pk=item.pk, request_id="a")
    await run_sql(UPDATE, "three", item.pk)

    assert both == ["a", {"b": 1}]
    assert (ended["response_status"], ended["data"], ended["request_id"]) == (204, None, "a")
    assert (await socket.receive())["request_id"] == {"b": 1}
    assert await socket.has_nothing()


async def test_one_request_id_for_two_rows(connect: Any, item: Item) -> None:
    """One request id may name subscriptions to two rows; ending one leaves the other."""
    other = await Item.objects.acreate(name="other")
    socket = await connect(ItemConsumer)
    await socket.subscribe(item.pk, 1)
    await socket.subscribe(other.pk, 1)
    await socket.ask("unsubscribe_instance", pk=item.pk, request_id=1)
    await run_sql("UPDATE project_item SET name = 'new'")

    assert (await socket.receive())["data"]["id"] == other.pk
    assert await socket.has_nothing()


async def test_same_subscription_twice(connect: Any, item: Item) -> None:
    """The same row and request id twice is one subscription, and two replies."""
    socket = await connect(ItemConsumer)
    statuses = [
        (await socket.subscribe(pk, 1))["response_status"] for pk in (item.pk, str(item.pk))
    ]
    await run_sql(UPDATE, "two", item.pk)

    assert statuses == [201, 201]
    assert (await socket.receive())["action"] == "update"
    assert await socket.has_nothing()


async def test_unsubscribe_without_request_id(connect: Any, item: Item) -> None:
    """Without a request id all subscriptions to the row end, even when the row is gone."""
    socket = await connect(ItemConsumer)
    await socket.subscribe(item.pk, 1)
    await socket.subscribe(item.pk, 2)
    await run_sql("DELETE FROM project_item")
    assert [(await socket.receive())["action"] for _ in range(2)] == ["delete", "delete"]
    ended = await socket.ask("unsubscribe_instance", pk=item.pk)
    await run_sql("INSERT INTO project_item (id, name, rank) VALUES (%s, 'back', 1)", item.pk)

    assert (ended["response_status"], ended["request_id"]) == (204, None)
    assert await socket.has_nothing()


async def test_reply_goes_before_what_it_caused(connect: Any, item: Item) -> None:
    """The reply to an action that changes a watched row goes before the frame of the change."""

    class Renaming(ItemConsumer):
        @action()
        async def rename(self, name: str, **kwargs: Any) -> tuple[Any, int]:
            await run_sql("UPDATE project_item SET name = %s", name)
            await settled()
            return {"renamed": name}, 200

    socket = await connect(Renaming)
    await socket.subscribe(item.pk)
    await socket.send(action="rename", name="two", request_id=2)

    assert (await socket.receive())["data"] == {"renamed": "two"}
    assert (await socket.receive())["data"]["name"] == "two"


async def test_change_before_the_subscription(connect: Any, item: Item) -> None:
    """A change committed before the request is never delivered, whoever watched the row before."""
    first, second = await connect(ItemConsumer), await connect(ItemConsumer)
    await first.subscribe(item.pk)
    await run_sql(UPDATE, "two", item.pk)
    await second.subscribe(item.pk)

    assert (await first.receive())["data"]["name"] == "two"
    assert await second.has_nothing()


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ({"pk": 1}, 400),
        ({"pk": 1, "request_id": None}, 400),
        ({"request_id": 1}, 400),
        ({"pk": None, "request_id": 1}, 404),
        ({"pk": "abc", "request_id": 1}, 404),
        ({"pk": 10**30, "request_id": 1}, 404),
        ({"pk": -1, "request_id": 1}, 404),
        ({"pk": [1], "request_id": 1}, 404),
        ({"pk": True, "request_id": 1}, 404),
        ({"pk": 1, "request_id": 1, "etag": 5}, 400),
        ({"pk": 1, "request_id": 1, "etag": []}, 400),
        ({"pk": 1, "request_id": 1, "etag": {"1": "x"}}, 400),
        ({"pk": 1, "request_id": 1, "self": 1}, 400),
        ({"pk": 1, "request_id": 1, "snapshot": "yes"}, 400),
        ({"pk": 1, "request_id": "x" * 2000}, 400),
    ],
)
async def test_bad_requests(connect: Any, item: Item, content: Any, status: int) -> None:
    """A bad request is answered with a sentence, and the socket goes on working."""
    socket = await connect(ItemConsumer)
    answer = await socket.ask("subscribe_instance", **content)
    again = await socket.subscribe(item.pk)

    assert answer["response_status"] == status
    assert answer["errors"]
    assert again["response_status"] == 201


async def test_not_observed(connect: Any, transactional_db: None) -> None:
    """A table without triggers is answered with 503 and the command that mends it."""
    await sync_to_async(call_command)("pgobserve", "uninstall", "project.Item", verbosity=0)
    socket = await connect(ItemConsumer)
    answer = await socket.subscribe(1)

    assert answer["response_status"] == 503
    assert answer["errors"] == [
        "Changes of project.Item are not observed yet: run manage.py pgobserve install project.Item"
    ]


async def test_feed_down(
    connect: Any, item: Item, settings: Any, monkeypatch: Any, caplog: Any
) -> None:
    """Where the database can't be listened to is said in the log, and not to clients."""
    monkeypatch.setattr("pgobserve.runtime.feed.LIVE_TIMEOUT", 0.1)
    settings.PGOBSERVE = {"CONNECTION": {"default": {"host": "127.0.0.1", "port": 1}}}
    socket = await connect(ItemConsumer)
    answer = await socket.subscribe(item.pk)

    assert answer["response_status"] == 503
    assert answer["errors"] == ["Changes can't be followed now; try again later."]
    assert "could not subscribe a client to project.Item" in caplog.text


async def test_too_many_subscriptions(connect: Any, item: Item, settings: Any) -> None:
    """One subscription more than the limit is answered with 429; ending one makes room."""
    settings.PGOBSERVE = {"MAX_SUBSCRIPTIONS": 2}
    socket = await connect(ItemConsumer)
    statuses = [(await socket.subscribe(item.pk, i))["response_status"] for i in range(3)]
    await socket.ask("unsubscribe_instance", pk=item.pk, request_id=0)

    assert statuses == [201, 201, 429]
    assert (await socket.subscribe(item.pk, 3))["response_status"] == 201


async def test_lookup_field(connect: Any, item: Item) -> None:
    """A row may be named by another field than its key."""

    class ByName(ItemConsumer):
        lookup_field = "name"

    socket = await connect(ByName)
    subscribed = await socket.ask("subscribe_instance", name="one", request_id=1)
    await run_sql("UPDATE project_item SET name = 'renamed'")
    update = await socket.receive()
    ended = await socket.ask("unsubscribe_instance", name="one", request_id=1)
    await run_sql("UPDATE project_item SET name = 'again'")

    assert (subscribed["response_status"], ended["response_status"]) == (201, 204)
    assert update["data"] == {"id": item.pk, "name": "renamed"}
    assert await socket.has_nothing()


async def test_own_encoder_and_reply(connect: Any, item: Item) -> None:
    """Frames of the feed go through a consumer's own reply."""

    class Shouting(ItemConsumer):
        async def reply(self, action: Any, **kwargs: Any) -> None:
            await super().reply(action=action and action.upper(), **kwargs)

    socket = await connect(Shouting)
    await socket.subscribe(item.pk)
    await run_sql(UPDATE, "two", item.pk)

    assert (await socket.receive())["action"] == "UPDATE"


async def test_truncate(connect: Any, item: Item) -> None:
    """TRUNCATE is a delete for every watched row."""
    socket = await connect(ItemConsumer)
    await socket.subscribe(item.pk)
    await run_sql("TRUNCATE project_item CASCADE")

    assert (await socket.receive())["action"] == "delete"


async def test_many_rows_in_one_statement(connect: Any, observed: None) -> None:
    """More keys than a payload may name are read again, each once."""
    await run_sql(
        "INSERT INTO project_item (name, rank) SELECT 'n', i FROM generate_series(1, 20000) i"
    )
    keys = [pk async for pk in Item.objects.order_by("pk").values_list("pk", flat=True)[:5]]
    socket = await connect(ItemConsumer)
    for key in keys:
        await socket.subscribe(key, key)
    await run_sql("UPDATE project_item SET name = 'm'")
    got = [(await socket.receive())["data"] for _ in keys]

    assert sorted(frame["id"] for frame in got) == keys
    assert {frame["name"] for frame in got} == {"m"}
    assert await socket.has_nothing()


async def test_triggers_on_another_channel(connect: Any, item: Item, settings: Any) -> None:
    """Triggers that this process can't hear count as missing."""
    settings.PGOBSERVE = {"CHANNEL": "elsewhere"}
    socket = await connect(ItemConsumer)

    assert (await socket.subscribe(item.pk))["response_status"] == 503


async def test_queryset_that_is_none(connect: Any, item: Item, caplog: Any) -> None:
    """A get_queryset that returns no queryset is said to, in the log."""

    class Wrong(ItemConsumer):
        def get_queryset(self, **kwargs: Any) -> Any:
            return [item]

    socket = await connect(Wrong)

    assert (await socket.subscribe(item.pk))["response_status"] == 500
    assert "of Wrong returned list; a queryset is needed" in caplog.text
