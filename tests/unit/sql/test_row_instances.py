"""Querysets that have a hand in their rows after they were read."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db.models import QuerySet
from django.db.models.query import ModelIterable

from pgobserve.sql.row_instances import has_own_rows, own_rows


class Extended(QuerySet[Group]):
    def named(self, name: str) -> Any:
        return self.filter(name=name)


class Shouting(QuerySet[Group]):
    def _fetch_all(self) -> None:
        super()._fetch_all()  # type: ignore[misc]
        for row in self._result_cache or ():
            row.name = row.name.upper()


class Reversing(ModelIterable):
    def __iter__(self) -> Any:
        yield from reversed([*super().__iter__()])


def iterating() -> Any:
    queryset: Any = QuerySet(Group)
    queryset._iterable_class = Reversing
    return queryset


@pytest.mark.parametrize(
    ("queryset", "expected"),
    [
        (QuerySet(Group), False),
        (Extended(Group).named("x"), False),
        (Shouting(Group), True),
        (iterating(), True),
    ],
)
def test_has_own_rows(queryset: Any, expected: bool) -> None:
    """Only a class that is on a row's way has a hand in it."""
    assert has_own_rows(queryset) is expected


def test_own_rows() -> None:
    """Rows that were read pass through the queryset's own class."""
    read = [Group(name="a"), Group(name="b")]

    assert [row.name for row in own_rows(Shouting(Group), lambda _: read)] == ["A", "B"]


def test_own_iterable() -> None:
    """The class of iterables is the queryset's own."""
    given: list[Any] = []
    own_rows(iterating(), lambda cls: given.append(cls) or [])  # type: ignore[func-returns-value]

    assert given == [Reversing]
