"""Consumers that watch rows in all ways."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.filters import SearchFilter

from pgobserve.consumers import AsyncAPIConsumer
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer import model_observer
from pgobserve.observer.generics import ObserverModelInstanceMixin
from pgobserve.permissions import IsAuthenticated
from tests.bookshelf.models import Author, Book, Ebook, Loan, Tag
from tests.bookshelf.serializers import shows
from tests.project.models import Item, Note
from tests.project.shapes import Kiosk, Restaurant


class Items(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    queryset = Item.objects.filter(rank=0)
    serializer_class = shows(Item, "name")


class Mine(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    """The visible rows depend on the user."""

    queryset = Item.objects.filter(rank=0)
    serializer_class = shows(Item, "name")
    permission_classes = (IsAuthenticated,)

    def get_queryset(self, **kwargs: Any) -> Any:
        return Item.objects.filter(name=self.scope["user"].username)


class Unseen(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    """What it shows can't be seen, and of its queryset not even a part."""

    serializer_class = shows(Author, "name", price=serializers.SerializerMethodField())
    filter_backends = (SearchFilter,)

    def get_queryset(self, **kwargs: Any) -> Any:
        return Author.objects.all()


class Books(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    queryset = Book.objects.filter(loans__fines__amount=0)
    serializer_class = shows(
        Book,
        author=shows(Author, house=serializers.CharField(source="publisher.name"))(),
        tags=shows(Tag, "name")(many=True),
    )


class Ebooks(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    queryset = Ebook.objects.all()
    serializer_class = shows(Ebook, "title", "format")


class Loans(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    queryset = Loan.objects.all()
    serializer_class = shows(Loan, "card", "number")


class Restaurants(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    queryset = Restaurant.objects.all()
    serializer_class = shows(Restaurant, "name")


class Kiosks(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    queryset = Kiosk.objects.all()
    serializer_class = shows(Kiosk, "name")


class Notes(AsyncAPIConsumer):
    """Hears events."""

    @model_observer(Note)
    async def on_note(self, message: Any, **kwargs: Any) -> None:
        """Do nothing."""
