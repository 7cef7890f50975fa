"""Consumers on one table: sound ones, ones that raise, and one that tells the feed's state."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.db.models import F
from rest_framework.serializers import ModelSerializer

from pgobserve.consumers import AsyncAPIConsumer
from pgobserve.decorators import action
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelInstanceMixin, ObserverModelListMixin
from pgobserve.runtime import runtime
from tests.project.models import Item, Membership


class ItemSerializer(ModelSerializer[Item]):
    class Meta:
        model = Item
        fields = ["id", "name", "rank"]


class ItemConsumer(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    queryset = Item.objects.all()
    serializer_class = ItemSerializer


class FragileSerializer(ItemSerializer):
    """Can't show a row that is named ``bad``."""

    def to_representation(self, instance: Item) -> Any:
        if instance.name == "bad":
            raise RuntimeError("This row is bad.")
        return super().to_representation(instance)


class FragileConsumer(ItemConsumer):
    serializer_class = FragileSerializer


class PickyConsumer(ItemConsumer):
    """Raises for a user who is a member of anything."""

    def get_queryset(self, user: str = "", **kwargs: Any) -> Any:
        if Membership.objects.filter(user=user).exists():
            raise RuntimeError(f"{user} has a queryset that fails.")
        return super().get_queryset(**kwargs)


class ItemListConsumer(ObserverModelListMixin, GenericAsyncAPIConsumer):
    """Lists those of the tests' own rows, and of these those of an odd rank, if that is asked."""

    serializer_class = ItemSerializer

    def get_queryset(self, odd: bool = False, **kwargs: Any) -> Any:
        found = Item.objects.filter(pk__lt=500)
        return found.annotate(odd=F("rank") % 2).filter(odd=1) if odd else found


class FragileListConsumer(ItemListConsumer):
    serializer_class = FragileSerializer


class LongSerializer(ItemSerializer):
    """Shows a text as long as the rank."""

    def to_representation(self, instance: Item) -> Any:
        return super().to_representation(instance) | {"text": "x" * instance.rank}


class LongConsumer(ObserverModelListMixin, ItemConsumer):
    queryset = Item.objects.filter(pk__lt=500).order_by("pk")
    serializer_class = LongSerializer


class StateConsumer(AsyncAPIConsumer):
    """Tells what the feed of this process has and does."""

    @action()
    async def state(self, **kwargs: Any) -> tuple[Any, int]:
        feed = runtime.current().feeds.get("default")
        if feed is None:
            return None, 200
        kinds = feed.hub._kinds.values()
        watches = [len(row.watches) for kind in kinds for row in kind.rows.values()]
        lists = [len(roster) for kind in kinds for roster in kind.rosters.values()]
        return {
            "subscriptions": sum(watches) + sum(lists),
            "rows": len(watches),
            "busy": feed.hub.busy,
            "running": feed._task is not None,
            "listener": asdict(feed.listener.state) if feed.listener else None,
        }, 200
