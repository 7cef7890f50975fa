"""Habits of djangochannelsrestframework's users: what they call, override and rely on."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import sync_to_async
from channels.db import database_sync_to_async
from django.contrib.auth.models import AnonymousUser, Group, Permission, User
from django.core.management import call_command
from django.db import connection, transaction
from rest_framework import permissions as drf
from rest_framework import serializers

from pgobserve.decorators import action
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer import ModelObserver, model_observer
from pgobserve.observer.generics import (
    ObserverConsumerMixin,
    ObserverModelInstanceMixin,
    ObserverModelListMixin,
    _GenericModelObserver,
)
from pgobserve.permissions import BasePermission
from tests.integration.deliver.conftest import run_sql
from tests.integration.deliver.test_instance import ItemSerializer
from tests.project.models import Item, Membership, Note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RENAME = "UPDATE project_item SET name = %s"
LAYER = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}


@pytest.fixture
def evented(transactional_db: None, settings: Any) -> Iterator[None]:
    """Triggers that write to the outbox, and a channel layer."""
    settings.PGOBSERVE = {"TRANSPORT": "outbox"}
    settings.CHANNEL_LAYERS = LAYER
    labels = ["project.Note", "auth.Group", "project.Membership"]
    call_command("pgobserve", "install", *labels, verbosity=0)
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA pgobserve CASCADE")


async def run(*steps: Callable[[], Any]) -> None:
    """Run steps in one transaction, in a thread."""

    def work() -> None:
        with transaction.atomic():
            for step in steps:
                step()
        connection.close()

    await asyncio.to_thread(work)


class Items(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    queryset = Item.objects.all()
    serializer_class = ItemSerializer


# Groups


class Room(GenericAsyncAPIConsumer):
    queryset = Note.objects.all()

    @model_observer(Note)
    async def note(self, message: Any, action: str, **kwargs: Any) -> None:
        await self.send_json({"note": message, "action": action})

    @action()
    async def join(self, **kwargs: Any) -> tuple[Any, int]:
        await self.note.subscribe()
        return None, 201

    @action()
    async def leave(self, **kwargs: Any) -> tuple[Any, int]:
        await self.note.unsubscribe()
        return sorted(self.groups), 200

    @action()
    async def greet(self, **kwargs: Any) -> None:
        for group in self.groups:
            await self.channel_layer.group_send(group, {"type": "greeting", "from": "ann"})

    async def greeting(self, event: Any) -> None:
        await self.send_json({"greeting": event["from"]})


async def test_group_send(connect: Callable[..., Any], evented: None) -> None:
    """``self.groups`` has the groups of a model observer, and the channel layer reaches all in them."""
    one, other = await connect(Room), await connect(Room)
    for socket in (one, other):
        await socket.ask("join")

    await one.send(action="greet")

    assert await one.receive() == await other.receive() == {"greeting": "ann"}
    assert (await one.ask("leave"))["data"] == []


# Groups of deleted rows


class Related(GenericAsyncAPIConsumer):
    """Its groups are read from related rows."""

    queryset = Note.objects.all()

    @model_observer(Membership)
    async def member(self, message: Any, action: str, **kwargs: Any) -> None:
        await self.send_json({"member": message["pk"], "action": action})

    @member.groups_for_signal
    def member(self, instance: Membership, **kwargs: Any) -> Iterator[str]:
        yield f"rank-{instance.item.rank}"

    @member.groups_for_consumer
    def member(self, **kwargs: Any) -> Iterator[str]:
        yield "rank-1"

    @model_observer(Group)
    async def group(self, message: Any, action: str, **kwargs: Any) -> None:
        await self.send_json({"group": message["pk"], "action": action})

    @group.groups_for_signal
    def group(self, instance: Group, **kwargs: Any) -> Iterator[str]:
        for user in instance.user_set.all():
            yield f"user-{user.pk}"

    @group.groups_for_consumer
    def group(self, user: int = 0, **kwargs: Any) -> Iterator[str]:
        yield f"user-{user}"

    @action()
    async def join(self, observer: str, request_id: Any, **kwargs: Any) -> tuple[Any, int]:
        await getattr(self, observer).subscribe(request_id=request_id, **kwargs)
        return None, 201


async def test_related_row_is_gone(
    connect: Callable[..., Any], evented: None, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a row's groups can't be known, subscribers receive a reset; the rest is not affected."""
    gone, kept = [Item.objects.acreate(name=name, rank=1) for name in "ab"]
    gone, kept = await gone, await kept
    await Membership.objects.acreate(user="ann", item=gone)
    other = await Membership.objects.acreate(user="bob", item=kept)
    socket = await connect(Related)
    await socket.ask("join", observer="member", request_id=1)

    await run(
        lambda: Membership.objects.filter(pk=other.pk).update(user="cid"),
        lambda: Item.objects.filter(pk=gone.pk).delete(),
    )

    frames = [await socket.receive(), await socket.receive()]
    assert frames[0] == {"member": other.pk, "action": "update"}
    assert (frames[1]["action"], frames[1]["request_id"]) == ("reset", 1)
    (record,) = [each for each in caplog.records if "receive a reset" in each.getMessage()]
    assert record.levelname == "ERROR"
    # A row whose related row is there has its groups.
    await run(lambda: Membership.objects.all().delete())
    assert await socket.receive() == {"member": other.pk, "action": "delete"}


async def test_references_are_gone(
    connect: Callable[..., Any], evented: None, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows that referred to a deleted row are gone with it, so a reset stands for their groups."""
    user = await User.objects.acreate(username="u")
    group = await Group.objects.acreate(name="g")
    await user.groups.aadd(group)
    socket = await connect(Related)
    await socket.ask("join", observer="group", request_id=1, user=user.pk)

    await run(group.delete)

    assert (await socket.receive())["action"] == "reset"
    (record,) = [each for each in caplog.records if "receive a reset" in each.getMessage()]
    assert "can't know the groups of the deleted row" in record.getMessage()


# Observers of their own


class Popping(ModelObserver):
    async def __call__(self, message: Any, consumer: Any = None, **kwargs: Any) -> Any:
        group = message.pop("group")
        message["body"]["seen"] = message["body"].get("seen", 0) + 1
        return await super().__call__(message, consumer, group=group, **kwargs)


class OwnObserver(GenericAsyncAPIConsumer):
    queryset = Note.objects.all()

    async def _note(self, message: Any, action: Any = None, **kwargs: Any) -> None:
        await self.send_json({"note": message, "action": action})

    note = Popping(_note, model_cls=Note)

    @action()
    async def join(self, **kwargs: Any) -> tuple[Any, int]:
        await self.note.subscribe()
        return None, 201


async def test_message_of_its_own(connect: Callable[..., Any], evented: None) -> None:
    """Each socket has a message of its own, which an observer's ``__call__`` may change."""
    sockets = [await connect(OwnObserver) for _ in range(2)]
    for socket in sockets:
        await socket.ask("join")

    note = await Note.objects.acreate(name="n")

    for socket in sockets:
        assert await socket.receive() == {"note": {"pk": note.pk, "seen": 1}, "action": "create"}


class OwnMixin(ObserverConsumerMixin):
    """An instance mixin of a project's own, as DCRF's is made."""

    @action()
    async def follow(self, request_id: Any, **kwargs: Any) -> tuple[Any, int]:
        instance = await database_sync_to_async(self.get_object)(**kwargs)
        groups = await self.changed.subscribe(instance=instance)
        self._subscribe(request_id, set(groups))
        return None, 201

    @_GenericModelObserver
    async def changed(self: Any, message: Any, group: Any = None, **kwargs: Any) -> None:
        for request_id in self._requests_for(group):
            await self.reply("changed", data=message, request_id=request_id)

    @changed.groups
    def changed(self, instance: Any, **kwargs: Any) -> Iterator[str]:
        yield f"pk-{instance.pk}"

    @changed.serializer
    def changed(self, instance: Any, action: Any, **kwargs: Any) -> Any:
        return {"name": instance.name}


class Notes(OwnMixin, GenericAsyncAPIConsumer):
    queryset = Note.objects.all()


class Groups(Notes):
    queryset = Group.objects.all()


async def test_own_instance_mixin(connect: Callable[..., Any], evented: None) -> None:
    """A mixin's handler observes the model of each class that uses it."""
    note, other = await Note.objects.acreate(name="n"), await Group.objects.acreate(name="t")
    sockets = [await connect(Notes), await connect(Groups)]
    for socket, row in zip(sockets, (note, other), strict=True):
        await socket.ask("follow", pk=row.pk, request_id=7)

    await run(lambda: Note.objects.update(name="N"), lambda: Group.objects.update(name="T"))

    assert (await sockets[0].receive())["data"] == {"name": "N"}
    frame = await sockets[1].receive()
    assert (frame["data"], frame["request_id"]) == ({"name": "T"}, 7)


class Making(Items):
    @action()
    async def follow(self, pk: int, request_id: Any, **kwargs: Any) -> tuple[Any, int]:
        item = await Item.objects.aget(pk=pk)
        groups = await self.handle_instance_change.subscribe(instance=item)
        self._subscribe(request_id, set(groups))
        return len(groups), 201


async def test_handle_instance_change(connect: Callable[..., Any], item: Item) -> None:
    """``handle_instance_change.subscribe()`` and ``_subscribe()`` subscribe request ids to a row."""
    socket = await connect(Making)
    for request_id in (1, 2):
        assert (await socket.ask("follow", pk=item.pk, request_id=request_id))["data"] == 1

    await run_sql(RENAME, "two")
    frames = [await socket.receive(), await socket.receive()]
    assert {each["request_id"] for each in frames} == {1, 2}
    assert {each["data"]["name"] for each in frames} == {"two"}
    await socket.ask("unsubscribe_instance", pk=item.pk, request_id=1)
    await run_sql("DELETE FROM project_item")

    frame = await socket.receive()
    assert (frame["action"], frame["data"], frame["request_id"]) == ("delete", {"pk": item.pk}, 2)
    assert await socket.has_nothing()


# Encoders


class Tag:
    def __init__(self, name: str) -> None:
        self.name = name


class TagSerializer(serializers.ModelSerializer[Item]):
    tag = serializers.SerializerMethodField()

    class Meta:
        model = Item
        fields = ["id", "tag"]

    def get_tag(self, item: Item) -> Any:
        return Tag(item.name)


class Encoding(ObserverModelListMixin, Items):
    serializer_class = TagSerializer

    @classmethod
    async def encode_json(cls, content: Any) -> str:
        return json.dumps(content, default=lambda each: f"tag:{each.name}")


class Enveloping(ObserverModelListMixin, Items):
    @classmethod
    async def encode_json(cls, content: Any) -> str:
        return json.dumps({"version": 1, **content})


async def test_encode_json(connect: Callable[..., Any], item: Item) -> None:
    """A consumer's own encoder encodes rows of subscriptions as it does those of replies."""
    socket, wrapped = await connect(Encoding), await connect(Enveloping)
    await socket.subscribe(item.pk)
    listed = await socket.ask("subscribe_list", request_id=2)
    await wrapped.subscribe(item.pk)

    await run_sql(RENAME, "two")

    assert listed["data"]["results"] == [{"id": item.pk, "tag": "tag:one"}]
    for _ in range(2):
        assert (await socket.receive())["data"] == {"id": item.pk, "tag": "tag:two"}
    frame = await wrapped.receive()
    assert frame["version"] == 1
    assert "version" not in frame["data"]


# Permissions


class ByLookUp(BasePermission):
    async def has_permission(
        self, scope: Any, consumer: Any, action: str, pk: Any = None, **kwargs: Any
    ) -> bool:
        return await Item.objects.filter(pk=pk).aexists()


class Custom(Items):
    """Delivers by its own method, and so checks permissions itself."""

    permission_classes = [ByLookUp]

    async def handle_instance_change(self, message: Any, **kwargs: Any) -> None:  # type: ignore[override]
        await super().handle_instance_change(message, **kwargs)


@pytest.mark.parametrize(
    "consumer", [type("L", (Items,), {"permission_classes": [ByLookUp]}), Custom]
)
async def test_permission_looks_the_row_up(
    connect: Callable[..., Any], item: Item, consumer: Any
) -> None:
    """A permission that no longer finds a deleted row does not keep the delete from its subscriber."""
    socket = await connect(consumer)
    await socket.subscribe(item.pk)
    await run_sql("DELETE FROM project_item")

    frame = await socket.receive()
    assert (frame["action"], frame["response_status"]) == ("delete", 204)
    assert frame["data"] == {"pk": item.pk}


class Listed(ObserverModelListMixin, Items):
    pass


async def test_subscriptions_are_safe(connect: Callable[..., Any], item: Item) -> None:
    """DRF's permissions see subscriptions and their frames as ``GET``."""
    cls: Any
    reader = await User.objects.acreate(username="reader")
    for cls, user in (
        (drf.IsAuthenticatedOrReadOnly, AnonymousUser()),
        (drf.DjangoModelPermissions, reader),
        (drf.DjangoObjectPermissions, reader),
    ):
        consumer = type(cls.__name__, (Listed,), {"permission_classes": [cls]})
        socket = await connect(consumer, user=user)
        assert (await socket.subscribe(item.pk, 1))["response_status"] == 201
        assert (await socket.ask("subscribe_list", request_id=2))["response_status"] == 201

        await run_sql(RENAME, cls.__name__)

        for _ in range(2):
            frame = await socket.receive()
            assert (frame["action"], frame["data"]["name"]) == ("update", cls.__name__)
        refused = await socket.ask("patch", pk=item.pk, data={})
        assert refused["response_status"] in (403, 405)
        assert (await socket.ask("unsubscribe_list", request_id=2))["response_status"] == 204


class ByObject(BasePermission):
    """Has DRF's signature of the object permission; DCRF never calls it."""

    async def has_permission(self, scope: Any, consumer: Any, action: str, **kwargs: Any) -> bool:
        return True

    def has_object_permission(self, request: Any, view: Any, obj: Any) -> bool:  # type: ignore[override]
        return request.method == "GET" and isinstance(view, Items) and obj.name != "secret"


async def test_object_permission_of_drf(connect: Callable[..., Any], item: Item) -> None:
    """An object permission may have DRF's signature."""
    socket = await connect(type("C", (Items,), {"permission_classes": [ByObject]}))
    assert (await socket.ask("retrieve", pk=item.pk))["response_status"] == 200
    await socket.subscribe(item.pk)

    await run_sql(RENAME, "two")
    assert (await socket.receive())["data"]["name"] == "two"
    await run_sql(RENAME, "secret")
    assert (await socket.receive())["action"] == "delete"


# Many-to-many fields


class UserSerializer(serializers.ModelSerializer[User]):
    class Meta:
        model = User
        fields = ["id", "username"]


class Users(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    queryset = User.objects.all()
    serializer_class = UserSerializer
    observer_many_to_many_relationships = True


async def test_many_to_many_that_is_not_shown(connect: Callable[..., Any], observed: None) -> None:
    """With the flag, a change of a many-to-many field is an update even if it is not shown."""
    call_command_ = sync_to_async(call_command)
    through = ("auth.User_groups", "auth.User_user_permissions")
    await call_command_("pgobserve", "install", *through, verbosity=0)
    user, group = await User.objects.acreate(username="u"), await Group.objects.acreate(name="g")
    socket = await connect(Users)
    await socket.subscribe(user.pk)

    await run(lambda: user.groups.add(group))
    assert (await socket.receive())["action"] == "update"
    await run(lambda: User.objects.update(first_name="x"))  # neither shown nor a membership
    assert await socket.has_nothing()
    await run(group.delete)
    assert (await socket.receive())["data"] == {"id": user.pk, "username": "u"}
    assert not await Permission.objects.filter(user=user).aexists()
