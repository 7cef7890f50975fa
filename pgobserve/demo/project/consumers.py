"""The consumer and its serializers, as in any project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.models import DateTimeField, Value
from django.db.models.expressions import RawSQL
from rest_framework import serializers
from rest_framework.filters import SearchFilter

from pgobserve.demo.project import config
from pgobserve.demo.project.models import Line, Ship
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelInstanceMixin, ObserverModelListMixin

if TYPE_CHECKING:
    from django.db.models import QuerySet


class LineSerializer(serializers.ModelSerializer[Line]):
    """A shipping line."""

    class Meta:
        model = Line
        fields = ["id", "name"]


class ShipSerializer(serializers.ModelSerializer[Ship]):
    """A ship with its line, and the commit time of its last change."""

    line = LineSerializer(read_only=True)
    committed_at = serializers.DateTimeField(read_only=True)

    class Meta:
        model = Ship
        fields = ["id", "name", "line", "state", "berth", "cargo", "committed_at"]


#: The commit time of the last change of the ship or its line, by PostgreSQL's clock.
COMMITTED_AT = (
    RawSQL(
        "greatest(pg_xact_commit_timestamp(ship.xmin), (SELECT pg_xact_commit_timestamp(line.xmin)"
        " FROM line WHERE line.id = ship.line_id))",
        (),
        output_field=DateTimeField(),
    )
    if config.current.commit_times
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
