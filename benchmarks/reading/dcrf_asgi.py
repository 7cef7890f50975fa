"""The same with djangochannelsrestframework."""

from __future__ import annotations

from benchmarks.reading.asgi import URLRouter, path, routes

from djangochannelsrestframework.generics import (  # isort: skip
    GenericAsyncAPIConsumer,
)
from djangochannelsrestframework.observer.generics import (  # isort: skip
    ObserverModelInstanceMixin,
)

from benchmarks.reading.models import Item
from benchmarks.reading.serializers import ItemSerializer


class ItemConsumer(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    queryset = Item.objects.all()
    serializer_class = ItemSerializer
    permission_classes = ()


application = URLRouter([path("feed/", ItemConsumer.as_asgi()), routes[-1]])
