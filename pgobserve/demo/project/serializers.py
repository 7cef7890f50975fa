"""Plain Django REST framework serializers."""

from __future__ import annotations

from rest_framework import serializers

from pgobserve.demo.project.models import Line, Ship


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
