"""The consumers under test, and what they are compared with."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.db import transaction

from benchmarks.reading.counting import counters
from benchmarks.reading.models import Item
from benchmarks.reading.serializers import ItemSerializer
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelInstanceMixin


class ItemConsumer(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    """Everybody may see every row."""

    queryset = Item.objects.all()
    serializer_class = ItemSerializer


class OwnItemConsumer(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    """Each user may see the rows that he is a member of: a queryset for each user."""

    queryset = Item.objects.all()
    serializer_class = ItemSerializer

    def get_queryset(self, **kwargs: Any) -> Any:
        user_id = int(parse_qs(self.scope["query_string"].decode())["user"][0])
        return super().get_queryset(**kwargs).filter(membership__user_id=user_id)


class PlainConsumer(AsyncJsonWebsocketConsumer):
    """A socket of Channels that answers and is idle then."""

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        await self.send_json({"request_id": content["request_id"]})


class WritingConsumer(AsyncJsonWebsocketConsumer):
    """Writes a row through the ORM in this process, and tells when that began to be committed."""

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        if "rank" in content:
            await self.send_json({"committed": await self._write(**content)})
        elif "load" in content:
            await self.send_json({"ms": await self._load(**content)})
        else:
            await self.send_json(dict(counters))

    @database_sync_to_async
    def _write(self, pk: int, rank: int) -> int:
        with transaction.atomic():
            item = Item.objects.get(pk=pk)
            item.rank = rank
            item.save()
            return time.monotonic_ns()

    @database_sync_to_async
    def _load(self, load: int) -> float:
        """Load all rows some times; return the milliseconds that it took."""
        began = time.perf_counter()
        for _ in range(load):
            list(Item.objects.all())
        return (time.perf_counter() - began) * 1000
