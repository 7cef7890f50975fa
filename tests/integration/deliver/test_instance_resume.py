"""Who comes back to a row that shows rows of other tables is told what changed since, or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelInstanceMixin
from tests.bookshelf.models import Author, Book, Comment, Ebook
from tests.bookshelf.serializers import shows
from tests.bookshelf.tables import ALL, library
from tests.installing import install
from tests.integration.deliver.conftest import execute, run_sql

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Connect = Callable[..., Any]


def consumer(of: Any, shown: Any) -> type[Any]:
    """Return a consumer class of rows."""
    return type(
        "Consumer",
        (ObserverModelInstanceMixin, GenericAsyncAPIConsumer),
        {"queryset": of, "serializer_class": shown, "__module__": __name__},
    )


Authored = consumer(
    Book.objects.select_related("author"), shows(Book, "id", author=shows(Author, "name")())
)
Commented = consumer(
    Book.objects.all(), shows(Book, "id", comments=shows(Comment, "text")(many=True))
)
Electronic = consumer(Ebook.objects.all(), shows(Ebook, "id", "title", "format"))


@pytest.fixture
def shelf(transactional_db: None, transport: str) -> Iterator[None]:
    """Two books, the first an ebook, in tables with triggers."""
    with library():
        labels = [model._meta.label for model in ALL]
        install(*labels)
        authors = [Author.objects.create(name=name) for name in "ab"]
        Ebook.objects.create(id=1, title="a", author=authors[0]).comments.create(text="first")
        Book.objects.create(id=2, title="b", author=authors[1]).comments.create(text="second")
        yield
    if transport == "outbox":
        execute("DROP SCHEMA pgobserve CASCADE")


async def missed(connect: Connect, consumer: Any, *statements: str) -> bool:
    """Tell whether who comes back to the first book is told of it."""
    first, second = await connect(consumer), await connect(consumer)
    etag = (await first.subscribe(1, snapshot=True))["etag"]
    for statement in statements:
        await run_sql(statement)
    reply = await second.subscribe(1, etag=etag)
    assert (reply["response_status"], reply["data"]) == (201, None)
    if await second.has_nothing():
        return False
    frame = await second.receive()
    assert frame["action"] == "update"
    return True


OWN_AUTHOR = "UPDATE library_author SET name = 'x' WHERE id = 1"
OTHER_AUTHOR = "UPDATE library_author SET name = 'x' WHERE id = 2"
OWN_COMMENT = "UPDATE library_comment SET text = 'x' WHERE book_id = 1"
OTHER_COMMENT = "UPDATE library_comment SET text = 'x' WHERE book_id = 2"
GONE_COMMENT = "DELETE FROM library_comment WHERE book_id = 1"


async def test_referred_to(connect: Connect, shelf: None) -> None:
    """A change of the row that is referred to is told, one of another row is not."""
    assert await missed(connect, Authored, OWN_AUTHOR)
    assert not await missed(connect, Authored, OTHER_AUTHOR, OTHER_COMMENT)


async def test_own_row(connect: Connect, shelf: None) -> None:
    """A change of the row itself is told, unless it changes nothing that is shown."""
    assert await missed(connect, Electronic, "UPDATE library_book SET title = 'x' WHERE id = 1")
    assert not await missed(connect, Electronic, "UPDATE library_book SET rank = 5 WHERE id = 1")


async def test_set(connect: Connect, shelf: None) -> None:
    """A change of a row that refers to it is told; of another one it is not."""
    assert await missed(connect, Commented, OWN_COMMENT)
    assert await missed(connect, Commented, GONE_COMMENT)
    assert not await missed(connect, Commented, OTHER_COMMENT)
    assert not await missed(
        connect,
        Commented,
        "INSERT INTO library_comment (book_id, text, hidden) VALUES (1, 'soon gone', false)",
        "DELETE FROM library_comment WHERE text = 'soon gone'",
    )


@pytest.mark.parametrize("table", ["book", "ebook"])
async def test_two_tables(connect: Connect, shelf: None, table: str) -> None:
    """A row with a parent's part is told when either is written, and only then."""
    key = "id" if table == "book" else "book_ptr_id"
    write = f"UPDATE library_{table} SET {{}} WHERE {key} = 1"

    assert not await missed(connect, Electronic)
    assert await missed(
        connect, Electronic, write.format("title = 'x'" if table == "book" else "format = 'pdf'")
    )
