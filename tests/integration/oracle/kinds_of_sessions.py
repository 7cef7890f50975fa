"""Kinds of consumers whose rows depend on the state of the database session."""

from __future__ import annotations

from typing import Any

from django.db import connection
from django.db.models import Func, TextField, Value

from pgobserve.decorators import action
from tests.integration.oracle import serializers
from tests.integration.oracle.kind import Base, kind
from tests.integration.oracle.models import Note, Paper, Place


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
