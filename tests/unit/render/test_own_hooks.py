"""What is a consumer's own: when in doubt, it is."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db.models import QuerySet
from rest_framework import serializers

from pgobserve.cohorts.visibility import is_plain
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.render.own_hooks import (
    has_own,
    is_fixed,
    meta_of,
    writes,
)
from pgobserve.render.renderer_choice import made_by, renderer_of


class GroupSerializer(serializers.ModelSerializer):
    class Meta:
        model = Group
        fields = ["id", "name"]


class Plain(GenericAsyncAPIConsumer):
    queryset = Group.objects.order_by("id")
    serializer_class = GroupSerializer


class Copying(QuerySet[Group]):
    def _clone(self) -> Any:
        return super()._clone()  # type: ignore[misc]


class Custom(Plain):
    queryset = Copying(Group)


class Property(Plain):
    @property
    def serializer_class(self) -> Any:
        return GroupSerializer


class Looking(Plain):
    def __getattribute__(self, name: str) -> Any:
        return super().__getattribute__(name)


class Managed(Plain):
    queryset: Any = Group.objects


class Derived(Plain):
    """Has attributes of its own that are no hooks."""

    max_rows = 5

    def helper(self) -> int:
        return 1


def opened(cls: Any, **own: Any) -> Any:
    """Return a consumer with attributes set on the instance."""
    consumer = cls()
    vars(consumer).update(own)
    return consumer


def hook(**kwargs: Any) -> None:
    """Stand for a hook set on an instance."""


@pytest.mark.parametrize("cls", [Plain, Derived])
def test_plain(cls: Any) -> None:
    """A class that declares its queryset and serializer and has no hooks is shared as a class."""
    assert is_plain(cls())


HOOKS = (
    *("get_queryset", "filter_queryset", "get_serializer_class", "get_serializer"),
    "get_serializer_context",
)


@pytest.mark.parametrize("name", HOOKS)
def test_hook_of_an_instance(name: str) -> None:
    """A hook that is set on the instance is its own."""
    consumer = opened(Plain, **{name: hook})

    assert has_own(consumer, name)
    assert not has_own(Plain(), name)
    assert not is_plain(consumer)


@pytest.mark.parametrize("name", ["queryset", "serializer_class", "filter_backends"])
def test_attribute_of_an_instance(name: str) -> None:
    """So is what the hooks look at."""
    assert not is_plain(opened(Plain, **{name: [hook]}))


@pytest.mark.parametrize("cls", [Custom, Property, Looking, Managed])
def test_not_plain(cls: Any) -> None:
    """What only looks as if it were the same for all sockets of the class is not taken for it."""
    assert not is_plain(cls())
    assert cls is Looking or not is_fixed(cls())


def test_hook_replaced_while_the_class_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class is looked at as it is now."""
    consumer = Plain()
    assert is_plain(consumer)
    monkeypatch.setattr(Plain, "get_queryset", lambda self, **kwargs: Group.objects.none())

    assert not is_plain(consumer)


def test_meta_changed_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list in ``Meta`` that grows makes another renderer: the idle serializers are out of date."""
    before, how = meta_of(GroupSerializer), made_by(Plain(), GroupSerializer)
    monkeypatch.setattr(GroupSerializer.Meta, "fields", ["id"])
    after = made_by(Plain(), GroupSerializer)

    assert before != meta_of(GroupSerializer)
    assert renderer_of(GroupSerializer, how, 0) is not renderer_of(GroupSerializer, after, 0)


def test_meta_without_a_change() -> None:
    """Nothing that was not changed tells two consumers apart."""
    assert made_by(Plain(), GroupSerializer) == made_by(Derived(), GroupSerializer)


def _stores(self: Any) -> Any:
    GroupSerializer.user = self.scope["user"]  # type: ignore[attr-defined]
    return GroupSerializer


def _sets(self: Any) -> Any:
    setattr(GroupSerializer, "user", self.scope["user"])  # noqa: B010
    return GroupSerializer


def _puts(self: Any) -> Any:
    GroupSerializer.Meta.extra_kwargs["name"] = {"read_only": True}  # type: ignore[attr-defined]
    return GroupSerializer


def _chooses(self: Any) -> Any:
    return {"list": GroupSerializer}.get(self.action) or self.classes["other"]


@pytest.mark.parametrize(
    ("function", "expected"),
    [(_stores, True), (_sets, True), (_puts, True), (_chooses, False), (len, True)],
)
def test_writes(function: Any, expected: bool) -> None:
    """A hook that sets what others see is found by its code; code that can't be seen may."""
    assert writes(function) is expected
