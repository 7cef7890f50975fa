"""What the consumers show."""

from __future__ import annotations

from typing import Any

from django.utils import formats, timezone
from rest_framework import serializers

from tests.integration.oracle.context import tenant
from tests.integration.oracle.models import Comment, Note, Paper, Place, Tag, Team


class NoteSerializer(serializers.ModelSerializer):
    """Speaks the language and the time zone of its context."""

    label = serializers.CharField(source="get_state_display")
    day = serializers.SerializerMethodField()

    class Meta:
        model = Note
        fields = ["id", "title", "label", "due", "day", "weight"]

    def get_day(self, note: Note) -> str:
        return formats.date_format(timezone.localtime(note.due), "DATE_FORMAT")


class SecretSerializer(NoteSerializer):
    class Meta(NoteSerializer.Meta):
        fields = [*NoteSerializer.Meta.fields, "secret"]


class TitleSerializer(serializers.ModelSerializer):
    class Meta:
        model = Note
        fields = ["id", "title"]


class AskingSerializer(NoteSerializer):
    """Shows the secret to its owner."""

    secret = serializers.SerializerMethodField()

    class Meta(NoteSerializer.Meta):
        fields = [*NoteSerializer.Meta.fields, "secret"]

    def get_secret(self, note: Note) -> str | None:
        user = self.context["scope"]["user"]
        return note.secret if note.owner_id == user.pk else None


class SometimesAskingSerializer(AskingSerializer):
    """Looks at the user for some rows only."""

    def get_secret(self, note: Note) -> str | None:
        return super().get_secret(note) if note.weight > 2 else "nothing"


class MaskSerializer(NoteSerializer):
    """Shows what the context of the consumer lets it."""

    secret = serializers.SerializerMethodField()

    class Meta(NoteSerializer.Meta):
        fields = [*NoteSerializer.Meta.fields, "secret"]

    def get_secret(self, note: Note) -> str | None:
        return note.secret if note.owner_id == self.context["me"] else None


class ContextVarSerializer(NoteSerializer):
    """Looks at a context variable, which nobody hands to it."""

    secret = serializers.SerializerMethodField()

    class Meta(NoteSerializer.Meta):
        fields = [*NoteSerializer.Meta.fields, "secret"]

    def get_secret(self, note: Note) -> str:
        return f"seen by {tenant.get()}"


class FieldsSerializer(SecretSerializer):
    """Leaves fields out as its maker says."""

    def __init__(self, *args: Any, without: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in without:
            del self.fields[name]


class FragileSerializer(SecretSerializer):
    """Fails for rows that their owners mark."""

    def to_representation(self, instance: Note) -> Any:
        if instance.weight > 5:
            raise RuntimeError(instance.secret)
        return super().to_representation(instance)


class OwnNotes(serializers.ListSerializer):
    """Lists what belongs to the user."""

    def to_representation(self, data: Any) -> Any:
        return super().to_representation(data.filter(owner=self.context["scope"]["user"]))


class YesNotes(serializers.ListSerializer):
    """Lists what is in one state."""

    def to_representation(self, data: Any) -> Any:
        return super().to_representation([note for note in data if note.state == "y"])


class LightNotes(serializers.ListSerializer):
    """Hides the heavy notes of others when they are listed."""

    @property
    def data(self) -> Any:
        me = self.context["scope"]["user"].pk
        instances: Any = self.instance
        return [
            self.child.to_representation(note)
            for note in instances
            if note.weight < 3 or note.owner_id == me
        ]


class OwnListedSerializer(NoteSerializer):
    class Meta(NoteSerializer.Meta):
        list_serializer_class = OwnNotes


class YesListedSerializer(NoteSerializer):
    class Meta(NoteSerializer.Meta):
        list_serializer_class = YesNotes


class LightListedSerializer(NoteSerializer):
    @classmethod
    def many_init(cls, *args: Any, **kwargs: Any) -> Any:
        return LightNotes(*args, child=cls(context=kwargs["context"]), **kwargs)


class CommentSerializer(serializers.ModelSerializer):
    class Meta:
        model = Comment
        fields = ["id", "text"]


class TagSerializer(serializers.ModelSerializer):
    class Meta:
        model = Tag
        fields = ["name"]


class TeamSerializer(serializers.ModelSerializer):
    class Meta:
        model = Team
        fields = ["id", "name"]


class CommentedSerializer(NoteSerializer):
    comments = CommentSerializer(many=True)

    class Meta(NoteSerializer.Meta):
        fields = [*NoteSerializer.Meta.fields, "comments"]


class OwnCommentsSerializer(NoteSerializer):
    """Shows an attribute that a prefetch makes."""

    comments = CommentSerializer(many=True, source="own_comments")

    class Meta(NoteSerializer.Meta):
        fields = [*NoteSerializer.Meta.fields, "comments"]


class RelatedSerializer(NoteSerializer):
    """Shows related rows, and what the queryset annotates."""

    team = TeamSerializer()
    tags = TagSerializer(many=True)
    owner_name = serializers.CharField(source="owner.username")
    number = serializers.IntegerField()

    class Meta(NoteSerializer.Meta):
        fields = [*NoteSerializer.Meta.fields, "team", "tags", "owner_name", "number"]


class NotesOfTeamSerializer(serializers.ModelSerializer):
    """Shows a prefetch two tables away."""

    notes = CommentedSerializer(many=True)

    class Meta:
        model = Team
        fields = ["id", "name", "notes"]


class DaySerializer(NoteSerializer):
    """Shows a date that the database computes in the active time zone."""

    cut = serializers.DateField()

    class Meta(NoteSerializer.Meta):
        fields = [*NoteSerializer.Meta.fields, "cut"]


class PaperSerializer(serializers.ModelSerializer):
    class Meta:
        model = Paper
        fields = "__all__"


class PlaceSerializer(serializers.ModelSerializer):
    class Meta:
        model = Place
        fields = "__all__"
