"""One load for all who see the same, and never one user's data for another."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from rest_framework import serializers

from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelInstanceMixin
from pgobserve.scope_utils import request_from_scope
from tests.integration.deliver.conftest import run_sql, settled
from tests.project.models import Item

rendered: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    rendered.clear()


class Base(serializers.ModelSerializer):
    """Counts how often it renders."""

    class Meta:
        model = Item
        fields = ["id", "name"]

    def to_representation(self, instance: Item) -> Any:
        rendered.append(instance.name)
        return super().to_representation(instance)


class ByMethod(Base):
    """Asks for the user in a method field."""

    secret = serializers.SerializerMethodField()

    class Meta(Base.Meta):
        fields = ["id", "name", "secret"]

    def get_secret(self, instance: Item) -> str:
        return str(self.context["scope"]["user"])


class Nested(serializers.Serializer):
    """Asks for the consumer from within another serializer."""

    secret = serializers.SerializerMethodField()

    def get_secret(self, instance: Item) -> str:
        return str(self.context["consumer"].scope["user"])


class ByNesting(Base):
    nested = Nested(source="*")

    class Meta(Base.Meta):
        fields = ["id", "name", "nested"]


class ByFields(Base):
    """Decides by the user which fields there are; DRF keeps that decision in the serializer."""

    def get_fields(self) -> Any:
        user = self.context["scope"]["user"]
        return {**super().get_fields(), f"for_{user}": serializers.CharField(source="name")}


class ByInit(Base):
    """Looks before it is asked to render."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen = str(self._context["scope"]["user"])

    def to_representation(self, instance: Item) -> Any:
        return {**super().to_representation(instance), "secret": self.seen}


class ByCopy(Base):
    """Takes the whole context."""

    def to_representation(self, instance: Item) -> Any:
        context = {**self.context}
        return {**super().to_representation(instance), "secret": str(context["scope"]["user"])}


class ByRoot(Base):
    """Goes to the root serializer's private context."""

    def to_representation(self, instance: Item) -> Any:
        user = self.root._context.get("scope", {})["user"]
        return {**super().to_representation(instance), "secret": str(user)}


class ByInnerSerializer(Base):
    """Makes another serializer with its own context."""

    def to_representation(self, instance: Item) -> Any:
        inner = ByMethod(instance, context=self.context)
        return {**super().to_representation(instance), "inner": inner.data}


class ByItems(Base):
    """Walks through the context."""

    def to_representation(self, instance: Item) -> Any:
        found = [str(v["user"]) for k, v in self.context.items() if k == "scope"]
        return {**super().to_representation(instance), "secret": found}


class ByOwnData(Base):
    """Overrides ``data``."""

    @property
    def data(self) -> Any:
        return {**super().data, "secret": str(self.context["scope"]["user"])}


class ByMutation(Base):
    """Changes the row that it is given."""

    def to_representation(self, instance: Item) -> Any:
        instance.name = f"{instance.name}, for {self.context['scope']['user']}"
        return super().to_representation(instance)


class ByKeptContext(Base):
    """Keeps its context when it is made, and looks at it for some rows only."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kept = kwargs["context"]

    def to_representation(self, instance: Item) -> Any:
        shown = super().to_representation(instance)
        if instance.name == "private":
            shown["secret"] = str(self.kept["scope"]["user"])
        return shown


class SometimesLooking(Base):
    """Looks at some rows only, and is first used on a row where it does not."""

    def to_representation(self, instance: Item) -> Any:
        shown = super().to_representation(instance)
        if instance.name == "private":
            shown["secret"] = str(self.context["scope"]["user"])
        return shown


def consumer_of(serializer: Any, **attributes: Any) -> Any:
    """Return a consumer class with this serializer."""
    body = {"queryset": Item.objects.all(), "serializer_class": serializer, **attributes}
    return type("Consumer", (ObserverModelInstanceMixin, GenericAsyncAPIConsumer), body)


class Requesting:
    """Gives serializers a request, as REST framework does."""

    def get_serializer_context(self, **kwargs: Any) -> Any:
        context = super().get_serializer_context(**kwargs)  # type: ignore[misc]
        return {**context, "request": request_from_scope(self.scope)}  # type: ignore[attr-defined]


class ByRequest(Base):
    def to_representation(self, instance: Item) -> Any:
        user = self.context["request"].user
        return {**super().to_representation(instance), "secret": str(user)}


class ByHyperlink(serializers.HyperlinkedModelSerializer):
    """Builds links that hold the host by which each client came."""

    link = serializers.SerializerMethodField()

    class Meta:
        model = Item
        fields = ["name", "link"]

    def get_link(self, instance: Item) -> str:
        return self.context["request"].build_absolute_uri("/items/")


class ForStaff(Base):
    class Meta(Base.Meta):
        fields = ["id", "name", "rank"]


def by_class(self: Any, **kwargs: Any) -> Any:
    """Choose the serializer by the user."""
    return ForStaff if str(self.scope["user"]) == "alice" else Base


def bespoke(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Make the serializer in a way of its own, with the user in it."""
    made = GenericAsyncAPIConsumer.get_serializer(self, *args, **kwargs)
    made.fields[f"for_{self.scope['user']}"] = serializers.CharField(source="name")
    return made


def with_user(self: Any, **kwargs: Any) -> Any:
    """Put the user in the context under a name of one's own."""
    return {"who": str(self.scope["user"])}


class ByOwnKey(Base):
    def to_representation(self, instance: Item) -> Any:
        return {**super().to_representation(instance), "secret": self.context.get("who")}


WAYS = {
    "method": consumer_of(ByMethod),
    "nested": consumer_of(ByNesting),
    "fields": consumer_of(ByFields),
    "init": consumer_of(ByInit),
    "copy": consumer_of(ByCopy),
    "root": consumer_of(ByRoot),
    "inner": consumer_of(ByInnerSerializer),
    "items": consumer_of(ByItems),
    "data": consumer_of(ByOwnData),
    "mutation": consumer_of(ByMutation),
    "kept": consumer_of(ByKeptContext),
    "sometimes": consumer_of(SometimesLooking),
    "class": consumer_of(None, get_serializer_class=by_class),
    "bespoke": consumer_of(Base, get_serializer=bespoke),
    "own key": consumer_of(ByOwnKey, get_serializer_context=with_user),
    "request": type("R", (Requesting, consumer_of(ByRequest)), {}),
    "hyperlink": type("H", (Requesting, consumer_of(ByHyperlink)), {}),
}


@pytest.mark.parametrize("way", WAYS)
async def test_no_leak(connect: Any, item: Item, way: str) -> None:
    """However a serializer reaches the user, each socket gets its own user's rendering only."""
    sockets = {}
    for name in ("alice", "bob"):
        host = [(b"host", f"{name}.example".encode())]
        sockets[name] = await connect(WAYS[way], user=User(username=name), headers=host)
        await sockets[name].subscribe(item.pk)
    for new in ("public", "private", "again", "private"):
        await run_sql("UPDATE project_item SET name = %s", new)
        for name, other in (("alice", "bob"), ("bob", "alice")):
            text = str(await sockets[name].receive())
            assert new in text
            assert other not in text
            if new == "private" and way != "class":
                assert name in text
            if way == "class":
                assert ("rank" in text) is (name == "alice")


async def test_one_serialization_for_all(connect: Any, item: Item) -> None:
    """A row that many sockets watch is rendered once for all, if its serializer looks at nobody."""
    consumer = consumer_of(Base)
    sockets = [await connect(consumer, user=User(username=str(i))) for i in range(10)]
    for socket in sockets:
        await socket.subscribe(item.pk)
    rendered.clear()
    await run_sql("UPDATE project_item SET name = 'two'")
    frames = [await socket.receive() for socket in sockets]

    assert {frame["data"]["name"] for frame in frames} == {"two"}
    assert rendered == ["two"]


async def test_shared_between_classes(connect: Any, item: Item) -> None:
    """Two consumer classes that read the same rows in the same way share the rendering."""
    sockets = [await connect(consumer_of(Base)), await connect(consumer_of(Base))]
    for socket in sockets:
        await socket.subscribe(item.pk)
    rendered.clear()
    await run_sql("UPDATE project_item SET name = 'two'")
    for socket in sockets:
        await socket.receive()

    assert rendered == ["two"]


async def test_failing_serializer(connect: Any, item: Item, caplog: Any) -> None:
    """A serializer that raises for one user tells him so; the others are served."""

    class Failing(Base):
        def to_representation(self, instance: Item) -> Any:
            if str(self.context["scope"]["user"]) == "bob" and instance.name == "bad":
                raise RuntimeError("internals")
            return super().to_representation(instance)

    consumer = consumer_of(Failing)
    alice, bob = [await connect(consumer, user=User(username=n)) for n in ("alice", "bob")]
    for socket in (alice, bob):
        await socket.subscribe(item.pk)
    await run_sql("UPDATE project_item SET name = 'bad'")
    good, bad = await alice.receive(), await bob.receive()
    await run_sql("UPDATE project_item SET name = 'good'")

    assert good["data"]["name"] == "bad"
    assert (bad["response_status"], bad["data"]) == (500, None)
    assert "internals" not in str(bad)
    assert "internals" in caplog.text
    assert (await bob.receive())["data"]["name"] == "good"


async def test_failing_row_does_not_hurt_others(connect: Any, item: Item) -> None:
    """A serializer that raises on one row leaves the other rows of the batch alone."""
    other = await Item.objects.acreate(name="other")

    class Failing(Base):
        def to_representation(self, instance: Item) -> Any:
            if instance.pk == item.pk and instance.name == "new":
                raise RuntimeError
            return super().to_representation(instance)

    socket = await connect(consumer_of(Failing))
    await socket.subscribe(item.pk, "bad")
    await socket.subscribe(other.pk, "good")
    await run_sql("UPDATE project_item SET name = 'new'")
    frames = {f["request_id"]: f["response_status"] for f in [await socket.receive() for _ in "12"]}

    assert frames == {"bad": 500, "good": 200}


async def test_user_looked_at_once_is_forgotten(connect: Any, item: Item) -> None:
    """After a look for one user, a rendering that is shared again holds nothing of him."""
    consumer = WAYS["sometimes"]
    alice = await connect(consumer, user=User(username="alice"))
    await alice.subscribe(item.pk)
    await run_sql("UPDATE project_item SET name = 'private'")
    assert "alice" in str(await alice.receive())
    bob = await connect(consumer, user=User(username="bob"))
    await bob.subscribe(item.pk)
    await settled()
    await run_sql("UPDATE project_item SET name = 'shared'")

    assert "alice" not in str(await bob.receive())
