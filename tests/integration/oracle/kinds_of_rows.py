"""Kinds of consumers by what decides which rows there are: the queryset."""

from __future__ import annotations

from typing import Any

from django.db.models import Exists, OuterRef
from rest_framework.filters import BaseFilterBackend, OrderingFilter, SearchFilter

from tests.integration.oracle import serializers
from tests.integration.oracle.kind import Base, kind
from tests.integration.oracle.models import Grant, Note
from tests.integration.oracle.permissions import GROUP


@kind("plain")
class Plain(Base):
    """Everybody sees the same."""


@kind("by_user")
class ByUser(Base):
    serializer_class = serializers.SecretSerializer

    def get_queryset(self, **kwargs: Any) -> Any:
        return Note.objects.filter(owner=self.user)


class OwnOrLight(BaseFilterBackend):
    """A backend that asks the request for its user."""

    def filter_queryset(self, request: Any, queryset: Any, view: Any) -> Any:
        return queryset.filter(owner=request.user) | queryset.filter(weight__lt=3)


@kind(
    "filtered",
    asks=({}, {"query": {"search": "a"}}, {"query": {"search": "b", "ordering": "-weight"}}),
)
class Filtered(Base):
    filter_backends = [SearchFilter, OrderingFilter, OwnOrLight]
    search_fields = ["title"]


@kind("filter_hook", asks=({}, {"least": 2}))
class FilterHook(Base):
    serializer_class = serializers.SecretSerializer

    def filter_queryset(self, queryset: Any, least: int = 0, **kwargs: Any) -> Any:
        return queryset.filter(weight__gte=least).exclude(owner__id__gt=self.user.pk)


@kind("queryset_property")
class QuerysetProperty(Base):
    serializer_class = serializers.SecretSerializer

    @property
    def queryset(self) -> Any:  # type: ignore[override]
        return Note.objects.filter(owner=self.scope["user"])


@kind("on_the_instance")
class OnTheInstance(Base):
    """Sets its hook when it is made."""

    serializer_class = serializers.SecretSerializer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.get_queryset = lambda **kwargs: Note.objects.filter(owner=self.user)  # type: ignore[method-assign]


@kind("queryset_on_the_instance")
class QuerysetOnTheInstance(Base):
    """Sets its queryset when the socket opens."""

    serializer_class = serializers.SecretSerializer

    async def connect(self) -> None:
        self.queryset = Note.objects.filter(owner=self.user)
        await super().connect()


@kind("by_group")
class ByGroup(Base):
    """Asks the database while it makes its queryset."""

    serializer_class = serializers.SecretSerializer

    def get_queryset(self, **kwargs: Any) -> Any:
        if self.user.groups.filter(name=GROUP).exists():
            return Note.objects.all()
        return Note.objects.filter(owner=self.user)


@kind("exists")
class ByGrant(Base):
    serializer_class = serializers.SecretSerializer

    def get_queryset(self, **kwargs: Any) -> Any:
        granted = Grant.objects.filter(note=OuterRef("pk"), user=self.user)
        return Note.objects.filter(Exists(granted))


@kind("many_to_many")
class ByTeam(Base):
    serializer_class = serializers.SecretSerializer

    def get_queryset(self, **kwargs: Any) -> Any:
        return Note.objects.filter(team__members=self.user).distinct()
