"""What of some rows is new is looked up once, however many clients come back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from pgobserve.cohorts.changed import Changed
from pgobserve.dependencies.row_dependencies import of_serializer
from pgobserve.sql.full_query import one_snapshot
from tests.bookshelf.models import Author, Book, Comment
from tests.bookshelf.serializers import shows
from tests.bookshelf.tables import library
from tests.integration.outbox.conftest import execute, install

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgobserve.hub.snapshot import Snapshot

SHOWN = of_serializer(
    Book,
    shows(Book, "id", author=shows(Author, "name")(), comments=shows(Comment, "text")(many=True)),
)


@pytest.fixture
def books(transactional_db: None) -> Iterator[list[Book]]:
    """Five books of one author, in tables that write to the outbox."""
    with library():
        install(Book, Author, Comment, routes={Comment: ["book_id"]})
        author = Author.objects.create(name="a")
        yield [Book.objects.create(title="t", author=author) for _ in range(5)]
    execute("DROP SCHEMA IF EXISTS pgobserve CASCADE")


def _here() -> Snapshot:
    with one_snapshot(connection) as snapshot:
        return snapshot


def _changed(keys: list[Any], now: Snapshot) -> Changed:
    return Changed(Book, SHOWN.paths, (), keys, now, connection)


def test_many_tokens(books: list[Book]) -> None:
    """Further tokens cost a look into the outbox, and equal ones nothing."""
    tokens = []
    for book in books:
        tokens.append(_here())
        Book.objects.filter(pk=book.pk).update(title="x")
    keys = [book.pk for book in books]
    with one_snapshot(connection) as now:
        changed = _changed(keys, now)
        assert changed.since(tokens[0]) == set(keys)
        with CaptureQueriesContext(connection) as queries:
            assert [changed.since(each) for each in tokens] == [
                set(keys[n:]) for n in range(len(keys))
            ]
            reads = [each for each in queries if '"pgobserve".outbox o' in each["sql"]]
            assert len(reads) == len(tokens) - 1
        with CaptureQueriesContext(connection) as queries:
            assert [len(changed.since(each) or ()) for each in tokens] == [5, 4, 3, 2, 1]
            assert not queries.captured_queries


def test_no_rows(books: list[Book]) -> None:
    """Of no rows none has changed."""
    then = _here()
    Comment.objects.create(book=books[0])
    with one_snapshot(connection) as now:
        assert _changed([], now).since(then) == set()


def test_rows_of_one_more(books: list[Book]) -> None:
    """What was taken from one row and given to another is new for both, if they are asked for."""
    comment = Comment.objects.create(book=books[0])
    then = _here()
    Comment.objects.filter(pk=comment.pk).update(book=books[1])
    with one_snapshot(connection) as now:
        assert _changed([b.pk for b in books], now).since(then) == {books[0].pk, books[1].pk}
        assert _changed([books[0].pk, books[2].pk], now).since(then) == {books[0].pk}
