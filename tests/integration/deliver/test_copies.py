"""Copies of instances, as serializers of several audiences are given them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.db.models import Prefetch
from django.test.utils import CaptureQueriesContext

from pgobserve.render import copies
from pgobserve.render.copies import copied
from tests.bookshelf.models import Author, Book, Comment, Tag
from tests.bookshelf.tables import library

if TYPE_CHECKING:
    from collections.abc import Iterator


class Noted(list[Any]):
    """A list that is none of the usual ones."""


@pytest.fixture
def book(transactional_db: None) -> Iterator[Any]:
    """A book with all that belongs to it, read already."""
    with library():
        made = Book.objects.create(title="a", author=Author.objects.create(name="A"))
        made.tags.add(Tag.objects.create(name="t"))
        Comment.objects.create(book=made, text="c")
        comments = Prefetch("comments", Comment.objects.all(), to_attr="said")
        yield Book.objects.select_related("author").prefetch_related("tags", comments).get()


def test_equal(book: Any) -> None:
    """A copy has what the instance has, its related rows too, and asks the database for nothing."""
    with CaptureQueriesContext(
        connection,
    ) as queries:
        made = copied(book)
        shown = (made.title, made.author.name, [t.name for t in made.tags.all()], made.said[0].text)

    assert shown == ("a", "A", ["t"], "c")
    assert len(queries) == 0
    assert made == book
    assert (made._state.db, made._state.adding) == (book._state.db, False)


def test_nothing_is_shared(book: Any) -> None:
    """What is changed in a copy stays as it was in the instance."""
    book.notes = Noted(["old"])
    book.words = {"list": ["old"]}
    made = copied(book)
    made.title = made.author.name = made.tags.all()[0].name = made.said[0].text = "new"
    made.notes.append("new")
    made.words["list"].append("new")
    made.author = None

    assert book.title == "a"
    assert book.author.name == "A"
    assert book.tags.all()[0].name == "t"
    assert book.said[0].text == "c"
    assert (book.notes, book.words) == (["old"], {"list": ["old"]})


def test_circle(book: Any) -> None:
    """Instances that refer to each other do so as copies."""
    book.said[0].book = book
    made = copied(book)

    assert made.said[0].book is made


def test_unread_queryset(book: Any) -> None:
    """A queryset that was not read yet stays so."""
    book.later = Book.objects.all()

    assert copied(book).later._result_cache is None


def test_deferred_field(book: Any) -> None:
    """A field that was not read stays to be read."""
    assert copied(Book.objects.defer("title").get()).get_deferred_fields() == {"title"}


def test_own_way_of_copying(book: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that says how it is copied has its way."""
    monkeypatch.setattr(Book, "__deepcopy__", lambda self, memo: "own", raising=False)
    monkeypatch.setattr(copies, "_copies_as_model", copies._copies_as_model.__wrapped__)

    assert copied(book) == "own"
