"""Kinds of consumers by what decides how rows look: the serializer."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, Prefetch

from tests.integration.oracle import serializers
from tests.integration.oracle.kind import Base, kind
from tests.integration.oracle.models import Comment, Note, Team


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


@kind("list_serializer_by_user")
class ListSerializerByUser(Base):
    """Lists fewer rows than it retrieves, as the user decides."""

    serializer_class = serializers.OwnListedSerializer


@kind("list_serializer_by_state")
class ListSerializerByState(Base):
    """Lists fewer rows than it retrieves, for all alike."""

    serializer_class = serializers.YesListedSerializer


@kind("many_init")
class ManyInit(Base):
    serializer_class = serializers.LightListedSerializer


@kind("list_serializer_made_by_the_consumer")
class ListSerializerMade(Base):
    def get_serializer(self, *args: Any, many: bool = False, **kwargs: Any) -> Any:
        if many and not self.user.is_staff:
            kwargs["instance"] = kwargs["instance"].filter(weight__lt=3)
        return super().get_serializer(*args, many=many, **kwargs)


@kind("list_serializer_chosen_by_the_consumer")
class ListSerializerChosen(Base):
    def get_serializer_class(self, **kwargs: Any) -> Any:
        if self.user.is_staff:
            return serializers.NoteSerializer
        return serializers.OwnListedSerializer
