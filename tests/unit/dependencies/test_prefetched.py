"""Related rows that are not simply all there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.db.models import (
    Manager,
    Prefetch,
    QuerySet,
)
from rest_framework import serializers

from pgobserve.dependencies.prefetched import _of_manager
from tests.bookshelf.models import (
    Author,
    Book,
    Comment,
    Tag,
)
from tests.bookshelf.serializers import shows
from tests.bookshelf.words import of_serializer, told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def test_prefetch() -> None:
    """What a prefetch's queryset filters by is watched, where what it fetches is shown."""
    queryset = Book.objects.prefetch_related(
        Prefetch("comments", Comment.objects.filter(author__active=True))
    )
    lookups = queryset._prefetch_related_lookups  # type: ignore[attr-defined]

    shown = of_serializer(Book, shows(Book, "comments")(), lookups)
    assert told(shown) == ["comments Comment by book_id", "comments.author Author"]
    assert told(of_serializer(Book, shows(Book, "title")(), lookups)) == []


def test_to_attr() -> None:
    """Rows may be shown by the name that a prefetch gives them, on any level."""
    inner = Comment.objects.prefetch_related(
        Prefetch("author", Author.objects.filter(publisher__slug="x"), to_attr="writer")
    )
    queryset = Book.objects.prefetch_related(Prefetch("comments", inner, to_attr="visible"))
    serializer = shows(
        Book,
        visible=shows(Comment, "text", writer=serializers.CharField(source="writer.name"))(
            many=True
        ),
    )

    found = of_serializer(Book, serializer(), queryset._prefetch_related_lookups)  # type: ignore[attr-defined]
    assert told(found) == [
        "comments Comment by book_id",
        "comments.author Author",
        "comments.author.publisher Publisher",
    ]
    assert found.unresolved == ()


def test_prefetched_keys() -> None:
    """Where a column decides which rows are fetched, it matters though only keys are shown."""
    queryset = Book.objects.prefetch_related(Prefetch("tags", Tag.objects.filter(name="x")))

    found = of_serializer(Book, shows(Book, "tags")(), queryset._prefetch_related_lookups)  # type: ignore[attr-defined]
    assert told(found) == ["tags Book_tags by book_id", "tags Tag"]


def test_prefetched_order() -> None:
    """So it does where a column decides in which order they are shown."""
    queryset = Book.objects.prefetch_related(
        Prefetch("tags", Tag.objects.order_by("-name")),
        Prefetch("comments", Comment.objects.order_by("author__publisher__name")),
        Prefetch("contributors", Author.objects.order_by("pk")),
    )
    lookups = queryset._prefetch_related_lookups  # type: ignore[attr-defined]

    assert told(
        of_serializer(Book, shows(Book, "tags", "comments", "contributors")(), lookups)
    ) == [
        "tags Book_tags by book_id",
        "comments Comment by book_id",
        "contributions Contribution by book_id",
        "tags Tag",
        "comments.author Author",
        "comments.author.publisher Publisher",
    ]


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], Any]], None]]:
    """Return a function that gives comments another manager."""

    def give(chosen: Callable[[], Any]) -> None:
        class Chosen(Manager[Any]):
            def get_queryset(self) -> Any:
                return chosen()

        made = Chosen()
        made.model = Comment
        monkeypatch.setitem(Comment._meta.__dict__, "default_manager", made)
        _of_manager.cache_clear()

    yield give
    _of_manager.cache_clear()


def test_manager(manager: Callable[..., None]) -> None:
    """What a model's manager filters by is watched where it reads what is shown."""
    manager(lambda: QuerySet(Comment).filter(author__active=True))

    assert told(of_serializer(Book, shows(Book, "comments")())) == [
        "comments Comment by book_id",
        "comments.author Author",
    ]


def test_manager_that_asks(manager: Callable[..., None]) -> None:
    """A manager that asks the database is told."""
    manager(lambda: QuerySet(Comment).filter(text=QuerySet(Comment).get().text))

    (sentence,) = of_serializer(Book, shows(Book, "comments")()).unresolved
    assert sentence == (
        "The manager of library.Comment could not be tried (it queries the database): which rows of it "
        "are shown can't be seen."
    )


def test_usual_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the model orders its rows by is watched where their order is shown."""
    monkeypatch.setattr(Tag._meta, "ordering", ["-name"])

    assert told(of_serializer(Book, shows(Book, "tags")())) == [
        "tags Book_tags by book_id",
        "tags Tag",
    ]
