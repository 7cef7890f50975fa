"""What the tests of resuming share."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from django.db import DatabaseError, connection
from django.db.models import F
from django.db.models.functions import Now
from rest_framework.filters import SearchFilter
from rest_framework.permissions import BasePermission
from rest_framework.serializers import ListSerializer

from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelInstanceMixin, ObserverModelListMixin
from tests.integration.deliver.test_list import ItemListConsumer, ItemSerializer
from tests.project.models import Item

UPDATE = "UPDATE project_item SET name = %s WHERE id = %s"
DELETE = "DELETE FROM project_item WHERE id = %s"
INSERT = "INSERT INTO project_item (id, name, rank) VALUES (%s, %s, %s)"
MOVE = "UPDATE project_item SET rank = %s WHERE id = %s"


class SearchedConsumer(ItemListConsumer):
    filter_backends = [SearchFilter]
    search_fields = ["name"]


class Both(ObserverModelInstanceMixin, ItemListConsumer):
    """Rows and lists."""


class LooksAtUser(ItemSerializer):
    def to_representation(self, instance: Any) -> Any:
        shown = super().to_representation(instance)
        return {**shown, "for": self.context["scope"].get("user")}


class UserConsumer(ItemListConsumer):
    serializer_class = LooksAtUser


class OwnConsumer(ItemListConsumer):
    def get_queryset(self, **kwargs: Any) -> Any:
        return super().get_queryset(**kwargs).filter(name__startswith=self.scope["user"])


class LowListed(ListSerializer):
    def to_representation(self, data: Any) -> Any:
        return super().to_representation(data.filter(rank__lt=3))


class LowListedSerializer(ItemSerializer):
    class Meta(ItemSerializer.Meta):
        list_serializer_class = LowListed


class LowListedConsumer(ItemListConsumer):
    serializer_class = LowListedSerializer


class LowRanks(BasePermission):
    def has_object_permission(self, request: Any, view: Any, obj: Any) -> bool:
        return bool(obj.rank < 5)


class JudgedConsumer(ItemListConsumer):
    permission_classes = [LowRanks]


class ClockConsumer(ItemListConsumer):
    queryset = Item.objects.annotate(moment=Now()).filter(moment__isnull=False, rank__lt=F("id"))


class QueryFails(ItemSerializer):
    """Asks what can't be answered, of one row."""

    def to_representation(self, instance: Any) -> Any:
        if instance.name == "fails":
            with suppress(DatabaseError):
                Item.objects.raw("SELECT 1/0 AS id")[0]
        return super().to_representation(instance)


class FailingConsumer(ItemListConsumer):
    serializer_class = QueryFails


class Raises(ItemSerializer):
    def to_representation(self, instance: Any) -> Any:
        if instance.name == "fails":
            raise ValueError
        return super().to_representation(instance)


class RaisingConsumer(ItemListConsumer):
    serializer_class = Raises


class NowhereConsumer(ObserverModelListMixin, GenericAsyncAPIConsumer):
    """Does not say before it is asked which rows it is about."""

    def get_queryset(self, **kwargs: Any) -> Any:
        return Item.objects.order_by("id")

    def get_serializer_class(self, **kwargs: Any) -> Any:
        return ItemSerializer


def table(**where: Any) -> dict[Any, Any]:
    """Return what a client should have."""
    try:
        return {
            item.pk: {"id": item.pk, "name": item.name, "rank": item.rank}
            for item in Item.objects.filter(**where)
        }
    finally:
        connection.close()


async def in_table(**where: Any) -> dict[Any, Any]:
    """Return what a client should have, from another thread."""
    return await asyncio.to_thread(lambda: table(**where))
