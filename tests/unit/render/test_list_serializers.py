"""Rows as a list serializer shows them: what it leaves out is not there."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group
from rest_framework import serializers

from pgobserve.errors import ConfigurationError
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.hub.outcome import ABSENT, UNREAD, View
from pgobserve.render.list_serializers import ListedRenderer, lists_otherwise, may_leave_out
from pgobserve.render.rendering import DEFAULT_KEYS, KeyRenderer, RenderingFailed

SEEN, HIDDEN = Group(pk=1, name="seen"), Group(pk=2, name="hidden")


class Plain(serializers.ModelSerializer):
    class Meta:
        model = Group
        fields = ["id", "name"]


class Seen(serializers.ListSerializer):
    def to_representation(self, data: Any) -> Any:
        return super().to_representation([group for group in data if group.name == "seen"])


class ForUser(serializers.ListSerializer):
    def to_representation(self, data: Any) -> Any:
        name = self.context["scope"]["user"]
        return super().to_representation([group for group in data if group.name == name])


class Sliced(serializers.ListSerializer):
    def to_representation(self, data: Any) -> Any:
        return super().to_representation(data[:10])


class Twice(serializers.ListSerializer):
    def to_representation(self, data: Any) -> Any:
        return [1, 2]


class Joined(serializers.ListSerializer):
    def to_representation(self, data: Any) -> Any:
        return super().to_representation([*data, *data])


class Wrapped(serializers.ListSerializer):
    @property
    def data(self) -> Any:
        return {"results": self.to_representation(self.instance)}


class Saving(serializers.ListSerializer):
    def update(self, instance: Any, validated_data: Any) -> Any:
        return instance


class ManyInit(Plain):
    @classmethod
    def many_init(cls, *args: Any, **kwargs: Any) -> Any:
        return Seen(*args, child=cls(), **kwargs)


class New(Plain):
    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return super().__new__(cls, *args, **kwargs)


class Consumer(GenericAsyncAPIConsumer):
    queryset = Group.objects.order_by("id")
    serializer_class = Plain

    def __init__(self, user: str = "seen") -> None:
        self.scope = {"user": user}  # type: ignore[assignment]


class Making(Consumer):
    def get_serializer(self, *args: Any, many: bool = False, **kwargs: Any) -> Any:
        if many:
            kwargs["instance"] = [it for it in kwargs["instance"] if it.name == self.scope["user"]]
        return super().get_serializer(*args, many=many, **kwargs)


def listed_by(cls: type) -> Any:
    """Return a serializer class whose lists are of that class."""
    meta = type("Meta", (Plain.Meta,), {"list_serializer_class": cls})
    return type("Made", (Plain,), {"Meta": meta})


def renderer(serializer_class: Any, **options: Any) -> ListedRenderer:
    given = {"bespoke": False, "keys": DEFAULT_KEYS, **options}
    return ListedRenderer(serializer_class, Group.objects.order_by("id"), **given)


@pytest.mark.parametrize("cls", [Plain, listed_by(serializers.ListSerializer), listed_by(Saving)])
def test_plain_lists(cls: Any) -> None:
    """A list serializer that only saves in its own way shows every row, and costs nothing."""
    assert not lists_otherwise(cls)


@pytest.mark.parametrize(
    "cls", [listed_by(Seen), listed_by(Wrapped), ManyInit, New, listed_by(Plain)]
)
def test_lists_of_their_own(cls: Any) -> None:
    assert lists_otherwise(cls)


def test_consumer_that_makes_serializers() -> None:
    """A consumer may make other serializers for lists than for rows."""
    assert not may_leave_out(Consumer(), Plain)
    assert may_leave_out(Making(), Plain)


@pytest.mark.parametrize("cls", [listed_by(Seen), ManyInit])
def test_left_out_for_all(cls: Any) -> None:
    """A row that the list leaves out is absent, and one rendering serves all."""
    made = renderer(cls)

    assert made.render(SEEN, Consumer(), {}) == (View.of('{"id":1,"name":"seen"}'), True)
    assert made.render(HIDDEN, Consumer(), {}) == (ABSENT, True)


def test_left_out_by_user() -> None:
    """A list serializer that looks at the user is run for each."""
    made = renderer(listed_by(ForUser))

    assert made.render(HIDDEN, Consumer("seen"), {}) == (ABSENT, False)
    view, serves_all = made.render(HIDDEN, Consumer("hidden"), {})
    assert (view.body, serves_all) == ('{"id":2,"name":"hidden"}', False)


def test_left_out_by_the_consumer() -> None:
    made = renderer(Plain, bespoke=True)

    assert made.render(HIDDEN, Making("seen"), {}) == (ABSENT, False)
    assert made.render(HIDDEN, Making("hidden"), {})[0].body == '{"id":2,"name":"hidden"}'


def test_keys_of_rows_that_are_listed() -> None:
    made = renderer(listed_by(Seen), shows=KeyRenderer())

    assert made.render(SEEN, Consumer(), {})[0].body == '{"pk":1}'
    assert made.render(HIDDEN, Consumer(), {})[0] == ABSENT


def test_found_several_times() -> None:
    """A join that finds a row twice does not make it two rows."""
    assert renderer(listed_by(Joined)).render(SEEN, Consumer(), {})[0].body is not None


@pytest.mark.parametrize("cls", [Twice, Wrapped, Sliced])
def test_lists_that_cannot_be_told_row_by_row(cls: Any) -> None:
    """They are an error, which names no row: whether the client may see it is not known."""
    made = renderer(listed_by(cls))

    with pytest.raises(RenderingFailed) as raised:
        made.render(SEEN, Consumer(), {})

    assert isinstance(raised.value.__cause__, ConfigurationError)
    assert made.failed is UNREAD
