"""The consumers, written as any project of yours would write them."""

from __future__ import annotations

from typing import Any

from django.db.models import DateTimeField, Value
from django.db.models.expressions import RawSQL

from pgobserve.decorators import action
from pgobserve.demo.project import config
from pgobserve.demo.project.models import Harbour, Ship
from pgobserve.demo.project.serializers import HarbourSerializer, ShipSerializer
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelInstanceMixin

#: The page shows so many ships at most.
MOST = 200

#: PostgreSQL's own clock at the commit of the row's last change.
COMMITTED_AT = (
    RawSQL("pg_xact_commit_timestamp(ship.xmin)", (), output_field=DateTimeField())
    if config.get().commit_times
    else Value(None, output_field=DateTimeField())
)


class ShipConsumer(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    """Ships: ``retrieve``, ``subscribe_instance`` and ``unsubscribe_instance`` come with the mixin."""

    queryset = Ship.objects.annotate(committed_at=COMMITTED_AT)
    serializer_class = ShipSerializer

    @action()
    def keys(self, **kwargs: Any) -> tuple[list[int], int]:
        """Tell which ships there are; the page subscribes to each."""
        return list(Ship.objects.order_by("pk").values_list("pk", flat=True)[:MOST]), 200


class HarbourConsumer(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    """The harbour, whose row changes when ships are inserted."""

    queryset = Harbour.objects.all()
    serializer_class = HarbourSerializer
