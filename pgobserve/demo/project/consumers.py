"""The consumer, as in any project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.models import DateTimeField, Value
from django.db.models.expressions import RawSQL
from rest_framework.filters import SearchFilter

from pgobserve.demo.project import config
from pgobserve.demo.project.models import Ship
from pgobserve.demo.project.serializers import ShipSerializer
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelInstanceMixin, ObserverModelListMixin

if TYPE_CHECKING:
    from django.db.models import QuerySet

#: The commit time of the last change of the ship or its line, by PostgreSQL's clock.
COMMITTED_AT = (
    RawSQL(
        "greatest(pg_xact_commit_timestamp(ship.xmin), (SELECT pg_xact_commit_timestamp(line.xmin)"
        " FROM line WHERE line.id = ship.line_id))",
        (),
        output_field=DateTimeField(),
    )
    if config.get().commit_times
    else Value(None, output_field=DateTimeField())
)


class ShipConsumer(ObserverModelListMixin, ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    """Ships; the mixins add ``subscribe_list`` and ``subscribe_instance``."""

    queryset = (
        Ship.objects.select_related("line").annotate(committed_at=COMMITTED_AT).order_by("pk")
    )
    serializer_class = ShipSerializer
    filter_backends = [SearchFilter]
    search_fields = ["name", "line__name"]

    def get_queryset(self, state: object = None, **kwargs: Any) -> QuerySet[Ship]:
        """Return all ships, or those in a state."""
        ships: QuerySet[Ship] = super().get_queryset(**kwargs)
        return ships if state is None else ships.filter(state=str(state))
