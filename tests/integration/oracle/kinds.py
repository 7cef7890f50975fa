"""Consumers of every kind: what decides which rows a user sees, and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.core.exceptions import PermissionDenied
from django.db import connection
from django.db.models import Count, DateField, Exists, Func, OuterRef, Prefetch, TextField, Value
from django.db.models.functions import TruncDate
from django.utils import timezone, translation
from rest_framework import permissions as drf
from rest_framework.filters import BaseFilterBackend, OrderingFilter, SearchFilter

from pgobserve.decorators import action
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.mixins import ListModelMixin
from pgobserve.observer.generics import ObserverModelInstanceMixin, ObserverModelListMixin
from tests.integration.oracle import permissions, serializers
from tests.integration.oracle.models import Comment, Grant, Note, Paper, Place, Team
from tests.integration.oracle.permissions import GROUP

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS: dict[str, Kind] = {}


@dataclass(frozen=True)
class Kind:
    """
    One kind of consumer.

    Attributes:
        name: In parameters and failures.
        consumer: The class.
        judges: Permissions decide row by row, which ``list`` does not ask: what a list may show is
            what ``retrieve`` shows.
        mixes: Its rows are read by several queries, which see several states under load.
        tenant: A middleware sets a context variable for its sockets.
        asks: What a client may send along; one is drawn for each socket.
    """

    name: str
    consumer: type[GenericAsyncAPIConsumer]
    judges: bool = False
    mixes: bool = False
    tenant: bool = False
    asks: tuple[dict[str, Any], ...] = field(default=({},))

    @property
    def model(self) -> Any:
        """The model of its rows."""
        return self.consumer.watched  # type: ignore[attr-defined]


def kind(name: str, **options: Any) -> Callable[[Any], Any]:
    """Register a consumer class as one kind."""

    def register(consumer: Any) -> Any:
        KINDS[name] = Kind(name, consumer, **options)
        return consumer

    return register


class Base(
    ObserverModelListMixin, ObserverModelInstanceMixin, ListModelMixin, GenericAsyncAPIConsumer
):
    """Notes, as their serializer shows them."""

    watched: Any = Note
    queryset = Note.objects.order_by("id")
    serializer_class = serializers.NoteSerializer

    @property
    def user(self) -> Any:
        return self.scope["user"]


# Which rows: the queryset


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


# How they look: the serializer


@kind("serializer_property")
class SerializerProperty(Base):
    @property
    def serializer_class(self) -> Any:  # type: ignore[override]
        if self.scope["user"].is_staff:
            return serializers.SecretSerializer
        return serializers.NoteSerializer


@kind("serializer_by_user", asks=({}, {"brief": True}))
class SerializerByUser(Base):
    def get_serializer_class(self, brief: bool = False, **kwargs: Any) -> Any:
        if brief:
            return serializers.TitleSerializer
        return serializers.SecretSerializer if self.user.is_staff else serializers.NoteSerializer


@kind("serializer_on_the_instance")
class SerializerOnTheInstance(Base):
    """Sets what decides about the serializer when the socket opens."""

    async def connect(self) -> None:
        if self.user.is_staff:
            self.serializer_class = serializers.SecretSerializer
        await super().connect()


@kind("get_serializer")
class GetSerializer(Base):
    serializer_class = serializers.FieldsSerializer

    def get_serializer(self, *args: Any, **kwargs: Any) -> Any:
        without = () if self.user.is_staff else ("secret",)
        return super().get_serializer(*args, **kwargs, without=without)


@kind("serializer_context")
class SerializerContext(Base):
    serializer_class = serializers.MaskSerializer

    def get_serializer_context(self, **kwargs: Any) -> Any:
        return {**super().get_serializer_context(**kwargs), "me": self.user.pk}


@kind("context_on_the_instance")
class ContextOnTheInstance(Base):
    serializer_class = serializers.MaskSerializer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.get_serializer_context = lambda **kwargs: {"me": self.user.pk}  # type: ignore[method-assign]


@kind("asking")
class Asking(Base):
    serializer_class = serializers.AskingSerializer


@kind("sometimes_asking")
class SometimesAsking(Base):
    serializer_class = serializers.SometimesAskingSerializer


@kind("prefetch", mixes=True)
class PrefetchByUser(Base):
    serializer_class = serializers.CommentedSerializer

    def get_queryset(self, **kwargs: Any) -> Any:
        own = Comment.objects.filter(author=self.user).order_by("id")
        return Note.objects.prefetch_related(Prefetch("comments", own))


@kind("prefetch_to_attr", mixes=True)
class PrefetchToAttr(Base):
    serializer_class = serializers.OwnCommentsSerializer

    def get_queryset(self, **kwargs: Any) -> Any:
        own = Comment.objects.filter(author=self.user).order_by("id")
        return Note.objects.prefetch_related(Prefetch("comments", own, to_attr="own_comments"))


@kind("prefetch_two_away", mixes=True)
class PrefetchTwoAway(Base):
    watched = Team
    queryset = Team.objects.all()
    serializer_class = serializers.NotesOfTeamSerializer

    def get_queryset(self, **kwargs: Any) -> Any:
        own = Comment.objects.filter(author=self.user).order_by("id")
        notes = Note.objects.prefetch_related(Prefetch("comments", own)).order_by("id")
        return Team.objects.prefetch_related(Prefetch("notes", notes))


@kind("related", mixes=True)
class Related(Base):
    queryset = (
        Note.objects.select_related("team", "owner")
        .prefetch_related("tags")
        .annotate(number=Count("comments"))
    )
    serializer_class = serializers.RelatedSerializer

    def get_queryset(self, **kwargs: Any) -> Any:
        return super().get_queryset(**kwargs).filter(owner_id__gte=self.user.pk)


@kind("only")
class Only(Base):
    """The columns that are not loaded are not shown."""

    serializer_class = serializers.TitleSerializer

    def get_queryset(self, **kwargs: Any) -> Any:
        found = Note.objects.only("id", "title")
        return found if self.user.is_staff else found.filter(weight__lt=3)


# Permissions


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


# The state of the database session


def setting(name: str) -> Any:
    """Return an expression that reads a setting of the session."""
    return Func(Value(name), Value(True), function="current_setting", output_field=TextField())


@kind("guc")
class BySetting(Base):
    """Compiles to the same SQL for all users; a setting of the session is what differs."""

    serializer_class = serializers.SecretSerializer

    def get_queryset(self, **kwargs: Any) -> Any:
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('oracle.user', %s, false)", [self.user.username])
        return Note.objects.filter(owner__username=setting("oracle.user"))


@kind("row_security")
class RowSecurity(Base):
    """A policy of the table looks at a setting."""

    watched = Paper
    queryset = Paper.objects.all()
    serializer_class = serializers.PaperSerializer

    def get_queryset(self, **kwargs: Any) -> Any:
        with connection.cursor() as cursor:
            cursor.execute("SET ROLE oracle_reader")
            cursor.execute("SELECT set_config('oracle.user', %s, false)", [self.user.username])
        return super().get_queryset(**kwargs)


@kind("role")
class Role(Base):
    """A policy of the table looks at the role."""

    watched = Paper
    queryset = Paper.objects.all()
    serializer_class = serializers.PaperSerializer

    def get_queryset(self, **kwargs: Any) -> Any:
        with connection.cursor() as cursor:
            cursor.execute(f"SET ROLE oracle_{self.user.username}")
        return super().get_queryset(**kwargs)


@kind("all_papers")
class AllPapers(Base):
    """Sets nothing, beside those that do."""

    watched = Paper
    queryset = Paper.objects.all()
    serializer_class = serializers.PaperSerializer


@kind("schema")
class Schema(Base):
    """Each user's tables are in a schema of the user's own."""

    watched = Place
    queryset = Place.objects.all()
    serializer_class = serializers.PlaceSerializer

    def get_queryset(self, **kwargs: Any) -> Any:
        with connection.cursor() as cursor:
            cursor.execute(f"SET search_path TO oracle_{self.user.username}, public")
        return super().get_queryset(**kwargs)


@kind("all_places")
class AllPlaces(Base):
    """Sets nothing, beside those that do."""

    watched = Place
    queryset = Place.objects.all()
    serializer_class = serializers.PlaceSerializer


@kind("session_setting")
class SessionSetting(Base):
    """Has the settings made that its queryset looks at."""

    serializer_class = serializers.SecretSerializer
    queryset = Note.objects.filter(owner__username=setting("oracle.user"))

    def database_session(self, **kwargs: Any) -> Any:
        return {"oracle.user": self.user.username}


@kind("session_row_security")
class SessionRowSecurity(Base):
    """Has the role and the setting made that a policy looks at."""

    watched = Paper
    queryset = Paper.objects.all()
    serializer_class = serializers.PaperSerializer

    def database_session(self, **kwargs: Any) -> Any:
        return {"role": "oracle_reader", "oracle.user": self.user.username}


@kind("session_role")
class SessionRole(Base):
    watched = Paper
    queryset = Paper.objects.all()
    serializer_class = serializers.PaperSerializer

    def database_session(self, **kwargs: Any) -> Any:
        return {"role": f"oracle_{self.user.username}"}


@kind("session_schema")
class SessionSchema(Base):
    watched = Place
    queryset = Place.objects.all()
    serializer_class = serializers.PlaceSerializer

    def database_session(self, **kwargs: Any) -> Any:
        return {"search_path": f"oracle_{self.user.username}, public"}


@kind("session_own_retrieve")
class SessionOwnRetrieve(SessionRowSecurity):
    @action()
    def retrieve(self, **kwargs: Any) -> Any:
        paper = self.get_object(**kwargs)
        return self.get_serializer(instance=paper, action_kwargs=kwargs).data, 200


# The context of Python


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
