"""Kinds of consumers whose rows depend on the context of Python: variables, language, time zone."""

from __future__ import annotations

from typing import Any

from django.db.models import DateField
from django.db.models.functions import TruncDate
from django.utils import timezone, translation

from pgobserve.decorators import action
from tests.integration.oracle import permissions, serializers
from tests.integration.oracle.kind import Base, kind
from tests.integration.oracle.models import Note


@kind("tenant", tenant=True)
class OfTenant(Base):
    """Its manager looks at a context variable."""

    serializer_class = serializers.SecretSerializer

    def get_queryset(self, **kwargs: Any) -> Any:
        return Note.of_tenant.all()


@kind("tenant_permission", judges=True, tenant=True)
class TenantPermission(Base):
    serializer_class = serializers.SecretSerializer
    permission_classes = [permissions.IsTenant]


@kind("tenant_async", judges=True, tenant=True)
class TenantAsync(Base):
    """Asks the context variable in the event loop."""

    serializer_class = serializers.SecretSerializer
    permission_classes = [permissions.IsTenantAsync]


@kind("tenant_own_retrieve", tenant=True)
class TenantOwnRetrieve(Base):
    serializer_class = serializers.ContextVarSerializer

    @action()
    def retrieve(self, **kwargs: Any) -> Any:
        note = self.get_object(**kwargs)
        return self.get_serializer(instance=note, action_kwargs=kwargs).data, 200


@kind("tenant_serializer", tenant=True)
class TenantSerializer(Base):
    serializer_class = serializers.ContextVarSerializer

    def get_queryset(self, **kwargs: Any) -> Any:
        return Note.objects.filter(weight__lt=4)


@kind("activates")
class Activates(Base):
    """Activates what its user speaks where it makes the queryset."""

    def get_queryset(self, **kwargs: Any) -> Any:
        language, zone = self.scope["speaks"]
        translation.activate(language)
        timezone.activate(zone)
        return super().get_queryset(**kwargs)


@kind("day")
class OfDay(Base):
    """Compiles by the active time zone, for all sockets of the class."""

    queryset = Note.objects.filter(due__date="2026-01-02")


@kind("cut_day")
class CutDay(Base):
    """Shows a date by the active time zone."""

    serializer_class = serializers.DaySerializer

    def get_queryset(self, **kwargs: Any) -> Any:
        return Note.objects.annotate(cut=TruncDate("due", output_field=DateField()))
