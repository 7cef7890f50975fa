"""Events of a model."""

from __future__ import annotations

from typing import Any

from benchmarks.reading.asgi import URLRouter, path, routes
from benchmarks.reading.models import Item
from benchmarks.reading.serializers import ItemSerializer
from pgobserve.consumers import AsyncAPIConsumer
from pgobserve.decorators import action
from pgobserve.observer import model_observer


class EventConsumer(AsyncAPIConsumer):
    """Tells what happens to items."""

    @model_observer(Item)
    async def item_changed(self, message: Any, action: str, **kwargs: Any) -> None:
        await self.reply(data=message, action=action)

    @item_changed.serializer
    def item_changed(self, instance: Item, action: Any, **kwargs: Any) -> Any:
        return ItemSerializer(instance).data

    @action()
    async def subscribe_instance(self, **kwargs: Any) -> tuple[None, int]:
        await self.item_changed.subscribe()
        return None, 201


application = URLRouter([path("feed/", EventConsumer.as_asgi()), routes[-1]])
