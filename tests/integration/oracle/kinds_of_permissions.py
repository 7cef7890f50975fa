"""Kinds of consumers by their permissions, and by how they find and show single rows."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from rest_framework import permissions as drf

from pgobserve.decorators import action
from tests.integration.oracle import permissions, serializers
from tests.integration.oracle.kind import Base, kind


@kind("owner", judges=True)
class Owner(Base):
    serializer_class = serializers.SecretSerializer
    permission_classes = [permissions.IsOwner]


@kind("owner_or_404", judges=True)
class OwnerOr404(Base):
    serializer_class = serializers.SecretSerializer
    permission_classes = [permissions.IsOwnerOr404]


@kind("owner_or_fails", judges=True)
class OwnerOrFails(Base):
    serializer_class = serializers.SecretSerializer
    permission_classes = [permissions.IsOwnerOrFails]


@kind("owner_async", judges=True)
class OwnerAsync(Base):
    serializer_class = serializers.SecretSerializer
    permission_classes = [permissions.IsOwnerAsync]


@kind("fragile", judges=True)
class Fragile(Base):
    """Rows of others can't be shown, and may not be."""

    serializer_class = serializers.FragileSerializer
    permission_classes = [permissions.IsOwner & ~permissions.IsLocked]


@kind("composed", judges=True)
class Composed(Base):
    serializer_class = serializers.SecretSerializer
    permission_classes = [
        drf.IsAuthenticated & ~permissions.IsLocked,
        permissions.IsOwner | permissions.IsHeavy,
    ]


@kind("of_drf", judges=True)
class OfDRF(Base):
    serializer_class = serializers.SecretSerializer
    permission_classes = [drf.IsAuthenticated, permissions.IsOwnerOfDRF]


@kind("own_check", judges=True)
class OwnCheck(Base):
    """Overrides how rows are judged."""

    serializer_class = serializers.SecretSerializer

    def check_object_permissions(self, obj: Any, **kwargs: Any) -> None:
        if obj.owner_id != self.user.pk:
            raise PermissionDenied


@kind("reader", judges=True)
class Reader(Base):
    serializer_class = serializers.SecretSerializer
    permission_classes = [permissions.IsReader]


@kind("may_read")
class MayRead(Base):
    serializer_class = serializers.SecretSerializer
    permission_classes = [permissions.MayRead]


@kind("permissions_by_action", judges=True)
class PermissionsByAction(Base):
    """Overrides how permissions are chosen."""

    serializer_class = serializers.SecretSerializer

    async def get_permissions(self, action: str, **kwargs: Any) -> Any:
        return [permissions.IsOwner()]


@kind("own_retrieve", judges=True)
class OwnRetrieve(Base):
    """Shows rows by a method of its own, and lists as the feed does."""

    serializer_class = serializers.SecretSerializer
    permission_classes = [permissions.IsOwner]

    @action()
    def retrieve(self, **kwargs: Any) -> Any:
        note = self.get_object(**kwargs)
        return self.get_serializer(instance=note, action_kwargs=kwargs).data, 200


@kind("own_get_object", judges=True)
class OwnGetObject(Base):
    """Finds rows by a method of its own."""

    serializer_class = serializers.SecretSerializer
    permission_classes = [permissions.IsOwner]

    def get_object(self, **kwargs: Any) -> Any:
        return super().get_object(**kwargs)


@kind("own_retrieve_by_user")
class OwnRetrieveByUser(Base):
    """Shows in single rows what its lists do not."""

    serializer_class = serializers.MaskSerializer

    def get_serializer_context(self, **kwargs: Any) -> Any:
        return {**super().get_serializer_context(**kwargs), "me": self.user.pk}

    @action()
    def retrieve(self, **kwargs: Any) -> Any:
        note = self.get_object(**kwargs)
        shown = self.get_serializer(instance=note, action_kwargs=kwargs).data
        return {**shown, "for": self.user.username, "label": note.get_state_display()}, 200
