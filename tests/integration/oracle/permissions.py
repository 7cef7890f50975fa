"""Permissions that decide by the row, by the user, and by other tables."""

from __future__ import annotations

from typing import Any

from channels.db import database_sync_to_async
from django.contrib.auth.models import User
from django.http import Http404
from rest_framework import permissions as drf

from pgobserve.permissions import BasePermission
from tests.integration.oracle.context import tenant

#: Members may see all that the permission of the group decides about.
GROUP = "readers"


class ForAnyAction(BasePermission):
    async def has_permission(self, *args: Any, **kwargs: Any) -> bool:
        return True


class IsOwner(ForAnyAction):
    def has_object_permission(
        self, scope: Any, consumer: Any, action: str, instance: Any, **kwargs: Any
    ) -> bool:
        return instance.owner_id == scope["user"].pk  # type: ignore[no-any-return]


class IsOwnerOr404(ForAnyAction):
    """Hides that there is such a row, as DRF's ``DjangoObjectPermissions`` does."""

    def has_object_permission(
        self, scope: Any, consumer: Any, action: str, instance: Any, **kwargs: Any
    ) -> bool:
        if instance.owner_id != scope["user"].pk:
            raise Http404
        return True


class IsOwnerOrFails(ForAnyAction):
    """Has a mistake that shows for the rows of others."""

    def has_object_permission(
        self, scope: Any, consumer: Any, action: str, instance: Any, **kwargs: Any
    ) -> bool:
        return {scope["user"].pk: True}[instance.owner_id]


class IsOwnerAsync(BasePermission):
    async def has_permission(self, *args: Any, **kwargs: Any) -> bool:
        return True

    async def has_object_permission(
        self, scope: Any, consumer: Any, action: str, instance: Any, **kwargs: Any
    ) -> bool:
        return instance.owner_id == scope["user"].pk  # type: ignore[no-any-return]


class IsReader(ForAnyAction):
    """Asks the database whether the user is in the group."""

    def has_object_permission(
        self, scope: Any, consumer: Any, action: str, instance: Any, **kwargs: Any
    ) -> bool:
        return scope["user"].groups.filter(name=GROUP).exists()  # type: ignore[no-any-return]


class MayRead(BasePermission):
    """Asks the database, whatever the row, in the event loop."""

    async def has_permission(self, scope: Any, consumer: Any, action: str, **kwargs: Any) -> bool:
        return await database_sync_to_async(scope["user"].groups.filter(name=GROUP).exists)()


class IsTenant(ForAnyAction):
    """Asks a context variable."""

    def has_object_permission(
        self, scope: Any, consumer: Any, action: str, instance: Any, **kwargs: Any
    ) -> bool:
        return instance.owner.username == tenant.get()  # type: ignore[no-any-return]


class IsTenantAsync(BasePermission):
    async def has_permission(self, *args: Any, **kwargs: Any) -> bool:
        return tenant.get() != "nobody"

    async def has_object_permission(
        self, scope: Any, consumer: Any, action: str, instance: Any, **kwargs: Any
    ) -> bool:
        user = await User.objects.aget(pk=instance.owner_id)
        return user.username == tenant.get()


class IsHeavy(drf.BasePermission):
    """One of DRF's."""

    def has_object_permission(self, request: Any, view: Any, obj: Any) -> bool:
        return obj.weight > 2  # type: ignore[no-any-return]


class IsLocked(BasePermission):
    """To be negated: says no to everything but heavy rows."""

    async def can_connect(self, *args: Any, **kwargs: Any) -> bool:
        return False

    async def has_permission(self, *args: Any, **kwargs: Any) -> bool:
        return False

    def has_object_permission(
        self, scope: Any, consumer: Any, action: str, instance: Any, **kwargs: Any
    ) -> bool:
        return instance.weight > 5  # type: ignore[no-any-return]


class IsOwnerOfDRF(drf.BasePermission):
    def has_object_permission(self, request: Any, view: Any, obj: Any) -> bool:
        return obj.owner_id == request.user.pk  # type: ignore[no-any-return]
