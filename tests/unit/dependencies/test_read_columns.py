"""The columns that a consumer reads, as far as they are known without a client."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from pgobserve.dependencies.read_columns import of_consumer
from pgobserve.observer.generics import ObserverModelListMixin
from tests.project.models import Item


class ItemSerializer(serializers.ModelSerializer):
    class Meta:
        model = Item
        fields = ["name"]


class LooksAtClient(ItemSerializer):
    def get_fields(self) -> Any:
        return {**super().get_fields(), self.context["scope"]["user"]: serializers.CharField()}


def _columns(serializer: type[serializers.Serializer[Any]]) -> set[tuple[Any, str]]:
    given = {"queryset": Item.objects.filter(rank=1), "serializer_class": serializer}
    return {*of_consumer(type("Consumer", (ObserverModelListMixin,), given))}


def test_shown_and_filtered_by() -> None:
    """Columns of the filter and of the serializer are read."""
    assert _columns(ItemSerializer) >= {(Item, "name"), (Item, "rank")}


def test_serializer_that_looks_at_the_client() -> None:
    """What it shows is not known; what the queryset reads is."""
    assert (Item, "rank") in _columns(LooksAtClient)
