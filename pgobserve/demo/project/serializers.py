"""Plain Django REST framework serializers."""

from __future__ import annotations

from rest_framework import serializers

from pgobserve.demo.project.models import Harbour, Ship


class ShipSerializer(serializers.ModelSerializer[Ship]):
    """A ship, and when PostgreSQL committed this version of its row."""

    committed_at = serializers.DateTimeField(read_only=True)

    class Meta:
        model = Ship
        fields = ["id", "name", "state", "berth", "cargo", "committed_at"]


class HarbourSerializer(serializers.ModelSerializer[Harbour]):
    """The harbour."""

    class Meta:
        model = Harbour
        fields = ["id", "name", "arrivals"]
