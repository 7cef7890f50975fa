"""What two querysets with the same SQL may differ in."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db.models import CharField, F, Prefetch, QuerySet, Value
from django.db.models.functions import Upper
from django.db.models.query import ModelIterable

from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.render.own_hooks import python_state, stands_for


class Extended(QuerySet[Group]):
    """Has a method of its own, as managers made by ``from_queryset()`` have, and no hand in rows."""

    note: Any = None

    def named(self, name: str) -> Any:
        return self.filter(name=name)


class Fetching(Extended):
    def _fetch_all(self) -> None:
        super()._fetch_all()  # type: ignore[misc]


class Making(ModelIterable):
    pass


class Masked(CharField):
    def from_db_value(self, value: Any, *args: Any) -> Any:
        return value


def made_by(cls: Any, note: Any = None) -> Any:
    """Return a queryset of a class that has something noted on it."""
    queryset = cls(Group)
    queryset.note = note
    return queryset


def iterating(iterable: Any) -> Any:
    queryset = QuerySet(Group)
    queryset._iterable_class = iterable
    return queryset


@pytest.mark.parametrize(
    "queryset",
    [
        QuerySet(Group),
        made_by(Extended, "x"),
        made_by(Extended, User()),
        QuerySet(Group).annotate(upper=Upper("name"), one=Value(1)),
        QuerySet(Group).annotate(other=F("name")).defer("name"),
        QuerySet(Group).prefetch_related("permissions", Prefetch("user_set")),
    ],
)
def test_all_is_in_the_sql(queryset: Any) -> None:
    """A queryset that only asks the database is told from others by its SQL."""
    assert python_state(queryset, "me") == python_state(queryset, "you") == ()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (made_by(Fetching, 1), made_by(Fetching, 2)),
        (made_by(Fetching, 1), made_by(Extended, 1)),
        (made_by(Fetching, ["a"]), made_by(Fetching, ["b"])),
        (iterating(Making), iterating(ModelIterable)),
    ],
)
def test_differ_by_value(one: Any, other: Any) -> None:
    """What a subclass has noted as values tells querysets apart whose rows it changes."""
    assert python_state(one, "me") != python_state(other, "me")
    assert python_state(one, "me") == python_state(one, "you")


@pytest.mark.parametrize(
    "queryset",
    [
        made_by(Fetching, User()),
        made_by(Fetching, [User()]),
        made_by(Fetching, lambda: 1),
        QuerySet(Group).annotate(other=Value("x", output_field=Masked())),
        QuerySet(Group).prefetch_related(type("Own", (Prefetch,), {})("permissions")),
    ],
)
def test_in_doubt(queryset: Any) -> None:
    """What can't be compared is shared with nobody, and stays the same for its owner."""
    assert python_state(queryset, "me") != python_state(queryset, "you")
    assert python_state(queryset, "me") == python_state(queryset, "me")


def test_stands_for() -> None:
    """The same socket is its own with the same message, whatever the request id."""
    one, other = GenericAsyncAPIConsumer(), GenericAsyncAPIConsumer()

    assert stands_for(one, {"pk": 1, "request_id": 1}) == stands_for(
        one, {"pk": 1, "request_id": 2}
    )
    assert stands_for(one, {"pk": 1}) != stands_for(one, {"pk": 2})
    assert stands_for(one, {"pk": 1}) != stands_for(other, {"pk": 1})
