"""The consumers that the tests of this folder share."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from pgobserve import mixins
from pgobserve.generics import GenericAsyncAPIConsumer
from tests.project.models import Item


class ItemSerializer(serializers.ModelSerializer[Item]):
    class Meta:
        model = Item
        fields = ["id", "name", "rank"]


class Items(
    mixins.CreateModelMixin,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    mixins.UpdateModelMixin,
    mixins.PatchModelMixin,
    mixins.DeleteModelMixin,
    GenericAsyncAPIConsumer,
):
    """All six actions."""

    queryset = Item.objects.order_by("pk")
    serializer_class = ItemSerializer


def shown(item: Item, **changes: Any) -> dict[str, Any]:
    """Return an item as it is shown."""
    return {"id": item.pk, "name": item.name, "rank": item.rank} | changes
