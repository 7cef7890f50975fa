"""The consumers under test, and what they are compared with."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.db import transaction

from benchmarks.reading.counting import counters
from benchmarks.reading.databases import COMMON, LISTED
from benchmarks.reading.models import Book, Item
from benchmarks.reading.serializers import BookSerializer, ItemSerializer, NestedBookSerializer
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelInstanceMixin, ObserverModelListMixin


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


class BookConsumer(ObserverModelInstanceMixin, ObserverModelListMixin, GenericAsyncAPIConsumer):
    """Everybody sees the same thousand books."""

    queryset = Book.objects.filter(id__lte=LISTED).order_by("id")
    serializer_class = BookSerializer


class AllBooksConsumer(ObserverModelListMixin, GenericAsyncAPIConsumer):
    """Ten thousand books."""

    queryset = Book.objects.exclude(author_id=COMMON).order_by("id")
    serializer_class = BookSerializer


class NestedBooksConsumer(ObserverModelListMixin, GenericAsyncAPIConsumer):
    """Ten thousand books with their author; or those of one author."""

    queryset = Book.objects.select_related("author").order_by("id")
    serializer_class = NestedBookSerializer

    def get_queryset(self, author: Any = None, **kwargs: Any) -> Any:
        books = super().get_queryset(**kwargs)
        return books.exclude(author_id=COMMON) if author is None else books.filter(author=author)


class OwnBooksConsumer(ObserverModelListMixin, GenericAsyncAPIConsumer):
    """Each user sees his own ten books and ten that everybody sees."""

    queryset = Book.objects.order_by("id")
    serializer_class = BookSerializer

    def get_queryset(self, user: int = 0, **kwargs: Any) -> Any:
        return super().get_queryset(**kwargs).filter(author_id__in=[user, COMMON])


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
