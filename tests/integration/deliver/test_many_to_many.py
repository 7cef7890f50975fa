"""``observer_many_to_many_relationships``: rows between many and many are a part of the row."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from rest_framework import serializers

from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelInstanceMixin
from tests.installing import install

if TYPE_CHECKING:
    from collections.abc import Callable


class UserSerializer(serializers.ModelSerializer[User]):
    class Meta:
        model = User
        fields = ["id", "groups"]


class Users(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    queryset = User.objects.all()
    serializer_class = UserSerializer
    observer_many_to_many_relationships = True


class Retrieving(Users):
    """Is called for each change, since it shows rows by itself."""

    async def retrieve(self, **kwargs: Any) -> tuple[Any, int]:  # type: ignore[override]
        user = await User.objects.aget(pk=kwargs["pk"])
        return {"groups": [group.pk async for group in user.groups.all()]}, 200


@pytest.fixture
def through(transactional_db: None) -> User:
    """A user, and triggers on the tables of users and of their groups, not of their permissions."""
    install("auth.User", "auth.User_groups")
    return User.objects.create(username="ann")


async def run(work: Callable[[], Any]) -> None:
    await asyncio.to_thread(lambda: (work(), connection.close()))


@pytest.mark.parametrize("consumer", [Users, Retrieving])
async def test_rows_between(connect: Callable[..., Any], through: User, consumer: Any) -> None:
    """Adding, removing from the other side and deleting a related row are told as updates."""
    socket = await connect(consumer)
    assert (await socket.subscribe(through.pk))["response_status"] == 201
    group = await Group.objects.acreate(name="staff")

    await run(lambda: through.groups.add(group))
    assert (await socket.receive())["data"]["groups"] == [group.pk]
    await run(lambda: group.user_set.remove(through))
    assert (await socket.receive())["data"]["groups"] == []
    await run(lambda: group.user_set.set([through]))
    assert (await socket.receive())["data"]["groups"] == [group.pk]
    pk = group.pk
    await run(group.delete)
    frame = await socket.receive()

    assert (frame["action"], frame["data"]["groups"]) == ("update", [])
    assert pk


@pytest.mark.parametrize("consumer", [Users, Retrieving])
async def test_of_others(connect: Callable[..., Any], through: User, consumer: Any) -> None:
    """A change of somebody else's rows tells nothing."""
    socket = await connect(consumer)
    await socket.subscribe(through.pk)
    other = await User.objects.acreate(username="bob")
    group = await Group.objects.acreate(name="staff")

    await run(lambda: other.groups.add(group))

    assert await socket.has_nothing()


async def test_shown_but_not_observed(connect: Callable[..., Any], through: User) -> None:
    """What the serializer shows must be observed; the refusal names the table's command."""

    class Shown(UserSerializer):
        class Meta(UserSerializer.Meta):
            fields = ["id", "user_permissions"]

    class Permissions(Users):
        serializer_class = Shown

    frame = await (await connect(Permissions)).subscribe(through.pk)

    assert frame["response_status"] == 503
    assert "install auth.User_user_permissions" in frame["errors"][0]


def test_names_its_tables() -> None:
    """``install`` learns of the tables between."""
    assert {model._meta.label for model in Users.observed_models()} == {
        "auth.User",
        "auth.User_groups",
        "auth.User_user_permissions",
    }
