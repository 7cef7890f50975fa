"""Who comes back to a list whose rows show, or are chosen by, rows of other tables."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.db.models import Count, Exists, OuterRef, Prefetch
from rest_framework.serializers import CharField, IntegerField, ListField

from pgobserve.dependencies.row_dependencies import shown
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelListMixin
from tests.bookshelf.models import (
    Author,
    Book,
    Comment,
    Contribution,
    Cover,
    Ebook,
    Fine,
    Label,
    Loan,
    Publisher,
    Tag,
)
from tests.bookshelf.serializers import shows
from tests.bookshelf.tables import ALL, library
from tests.installing import install
from tests.integration.deliver.conftest import execute
from tests.integration.deliver.replica import Replica

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Connect = Callable[..., Any]


def consumer(of: Any, shown: Any, **attributes: Any) -> type[Any]:
    """Return a consumer class of lists."""
    return type(
        "Consumer",
        (ObserverModelListMixin, GenericAsyncAPIConsumer),
        {"queryset": of, "serializer_class": shown, "__module__": __name__, **attributes},
    )


BOOKS = Book.objects.order_by("id")
Authored = consumer(
    BOOKS,
    shows(
        Book, "id", "title", author=shows(Author, "name", publisher=shows(Publisher, "name")())()
    ),
)
Commented = consumer(BOOKS, shows(Book, "id", comments=shows(Comment, "text")(many=True)))
Tagged = consumer(BOOKS, shows(Book, "id", tags=shows(Tag, "name")(many=True)))
Contributed = consumer(BOOKS, shows(Book, "id", contributors=shows(Author, "name")(many=True)))
Counted = consumer(
    BOOKS.annotate(number=Count("comments")), shows(Book, "id", number=IntegerField())
)
Labelled = consumer(BOOKS, shows(Book, "id", labels=shows(Label, "text")(many=True)))
Discussed = consumer(
    BOOKS,
    shows(Book, "id", comments=shows(Comment, author=shows(Author, "name")())(many=True)),
)
Akin = consumer(BOOKS, shows(Book, "id", related=shows(Book, "title")(many=True)))
Covered = consumer(BOOKS, shows(Book, "id", cover=shows(Cover, "artist")(required=False)))
Fined = consumer(
    Loan.objects.order_by("pk"),
    shows(Loan, "pk", pk=ListField(), fines=shows(Fine, "amount")(many=True)),
)
Plain = shows(Book, "id", "title")
OfActive = consumer(BOOKS.filter(author__active=True), Plain)
WithComments = consumer(BOOKS.filter(Exists(Comment.objects.filter(book=OuterRef("pk")))), Plain)
WithTag = consumer(BOOKS.filter(tags__name="t").distinct(), Plain)
Ebooks = consumer(Ebook.objects.order_by("book_ptr"), shows(Ebook, "id", "title", "format"))


class Prefetched(ObserverModelListMixin, GenericAsyncAPIConsumer):
    """What is shown depends on the user, though the list is the same for all."""

    serializer_class = shows(Book, "id", comments=shows(Comment, "text")(many=True))

    def get_queryset(self, **kwargs: Any) -> Any:
        own = Comment.objects.filter(text__startswith=self.scope["user"])
        return BOOKS.prefetch_related(Prefetch("comments", queryset=own))


@pytest.fixture
def shelf(transactional_db: None, transport: str) -> Iterator[list[Book]]:
    """Three books of two authors, in tables with triggers."""
    with library():
        labels = [model._meta.label for model in ALL]
        labels += ["library.Book_tags", "library.Book_related"]
        install(*labels)
        house = Publisher.objects.create(name="house", slug="h")
        authors = [Author.objects.create(name=name, publisher=house) for name in "AB"]
        books = [Book.objects.create(title=t, author=authors[t > "a"]) for t in "abc"]
        for book in books[:2]:
            book.comments.create(text="first", author=book.author)
            book.labels.create(text="l")
            Cover.objects.create(book=book, artist="a")
            book.comments.create(text="second")
            book.tags.add(Tag.objects.create(name="t"))
            Contribution.objects.create(book=book, author=authors[0])
        books[0].related.add(books[1])
        yield books
    if transport == "outbox":
        execute("DROP SCHEMA pgobserve CASCADE")


async def run(write: Callable[[], Any]) -> Any:
    """Write in a thread, as another program would."""

    def write_and_leave() -> Any:
        try:
            return write()
        finally:
            connection.close()

    return await asyncio.to_thread(write_and_leave)


async def missed(
    connect: Connect, consumer: Any, write: Callable[[], Any]
) -> list[tuple[str, Any]]:
    """Return the frames that a client receives after it missed something; it has the list then."""
    replica = await Replica(connect, consumer).come()
    await replica.leave()
    await run(write)
    await replica.come_back()
    await replica.settle()
    fresh = await Replica(connect, consumer).come()
    assert (replica.rows, replica.etags) == (fresh.rows, fresh.etags)
    return sorted(replica.told)


async def test_forward(connect: Connect, shelf: list[Book]) -> None:
    """Rows that show a row that changed are told; over two tables, too."""

    def rename() -> None:
        Author.objects.filter(name="B").update(name="Z")

    assert await missed(connect, Authored, rename) == [("update", 2), ("update", 3)]
    assert await missed(connect, Authored, lambda: Publisher.objects.update(name="X")) == [
        ("update", 1),
        ("update", 2),
        ("update", 3),
    ]


@pytest.mark.parametrize("each", [Authored, Contributed, Tagged])
async def test_nothing_of_theirs(connect: Connect, shelf: list[Book], each: Any) -> None:
    """What no row shows is not told."""

    def write() -> None:
        Author.objects.create(name="new")
        Tag.objects.create(name="new")
        Comment.objects.update(text="x")

    assert await missed(connect, each, write) == []


async def test_moved_forward(connect: Connect, shelf: list[Book]) -> None:
    """A row that refers to another one by now is told."""
    assert await missed(
        connect, Authored, lambda: Book.objects.filter(pk=2).update(author=shelf[0].author)
    ) == [("update", 2)]


async def test_referred_to_and_deleted(connect: Connect, shelf: list[Book]) -> None:
    """Rows that refer to none by now are told."""

    def delete() -> None:
        Book.objects.filter(pk=3).update(author=None)
        Publisher.objects.all().delete()

    assert await missed(connect, Authored, delete) == [
        ("update", 1),
        ("update", 2),
        ("update", 3),
    ]


async def test_dangling(connect: Connect, shelf: list[Book]) -> None:
    """Without a constraint, a row may refer to one that was deleted: it is told."""
    await run(lambda: execute(UNCONSTRAINED))

    assert await missed(
        connect, Authored, lambda: execute("DELETE FROM library_author WHERE name = 'A'")
    ) == [("update", 1)]


#: Lets rows refer to authors that are not there.
UNCONSTRAINED = """
DO $$
DECLARE
  each record;
BEGIN
  FOR each IN SELECT conrelid::regclass AS place, conname FROM pg_constraint
               WHERE confrelid = 'library_author'::regclass LOOP
    EXECUTE format('ALTER TABLE %%s DROP CONSTRAINT %%I', each.place, each.conname);
  END LOOP;
END
$$
"""

WRITES: dict[str, tuple[Any, Callable[[], Any], list[tuple[str, int]]]] = {
    "one more": (
        Commented,
        lambda: Comment.objects.create(book_id=3, text="new"),
        [("update", 3)],
    ),
    "changed": (
        Commented,
        lambda: Comment.objects.filter(book_id=1).update(text="x"),
        [("update", 1)],
    ),
    "deleted": (
        Commented,
        lambda: Comment.objects.filter(book_id=1, text="first").delete(),
        [("update", 1)],
    ),
    "moved": (
        Commented,
        lambda: Comment.objects.filter(book_id=1).update(book_id=3),
        [("update", 1), ("update", 3)],
    ),
    "moved twice": (
        Commented,
        lambda: [Comment.objects.filter(book_id=a).update(book_id=b) for a, b in ((1, 3), (3, 2))],
        [("update", 1), ("update", 2)],
    ),
    "tag added": (
        Tagged,
        lambda: Book.objects.get(pk=3).tags.add(Tag.objects.get(pk=1)),
        [("update", 3)],
    ),
    "tag removed": (Tagged, lambda: Book.objects.get(pk=1).tags.clear(), [("update", 1)]),
    "tag renamed": (
        Tagged,
        lambda: Tag.objects.filter(books=2).update(name="x"),
        [("update", 2)],
    ),
    "tag deleted": (Tagged, lambda: Tag.objects.get(books=2).delete(), [("update", 2)]),
    "contributor removed": (
        Contributed,
        lambda: Contribution.objects.filter(book=2).delete(),
        [("update", 2)],
    ),
    "contributor renamed": (
        Contributed,
        lambda: Author.objects.filter(name="A").update(name="x"),
        [("update", 1), ("update", 2)],
    ),
    "label stuck on": (Labelled, lambda: Book.objects.get(pk=3).labels.create(), [("update", 3)]),
    "label torn off": (
        Labelled,
        lambda: Label.objects.filter(object_id="1").delete(),
        [("update", 1)],
    ),
    "commentator renamed": (
        Discussed,
        lambda: Author.objects.filter(name="B").update(name="x"),
        [("update", 2)],
    ),
    "commentator deleted": (
        Discussed,
        lambda: execute(
            "UPDATE library_comment SET author_id = NULL;"
            "DELETE FROM library_contribution; UPDATE library_book SET author_id = NULL;"
            "DELETE FROM library_author"
        ),
        [("update", 1), ("update", 2)],
    ),
    "akin": (
        Akin,
        lambda: Book.objects.get(pk=1).related.add(Book.objects.get(pk=3)),
        [("update", 1), ("update", 3)],
    ),
    "akin no more": (
        Akin,
        lambda: Book.objects.get(pk=2).related.clear(),
        [("update", 1), ("update", 2)],
    ),
    "akin renamed": (
        Akin,
        lambda: Book.objects.filter(pk=1).update(title="x"),
        [("update", 2)],
    ),
    "cover made": (Covered, lambda: Cover.objects.create(book_id=3), [("update", 3)]),
    "cover lost": (Covered, lambda: Cover.objects.filter(book_id=1).delete(), [("update", 1)]),
    "counted": (
        Counted,
        lambda: Comment.objects.filter(book_id=1, text="first").delete(),
        [("update", 1)],
    ),
}


@pytest.mark.parametrize("name", WRITES)
async def test_sets(connect: Connect, shelf: list[Book], name: str) -> None:
    """Rows that show a set are told when something of it came, changed, moved or went."""
    each, write, told = WRITES[name]

    assert await missed(connect, each, write) == told


@pytest.mark.parametrize("transport", ["notify"], indirect=True)
async def test_sets_by_key_alone(connect: Connect, shelf: list[Book]) -> None:
    """With only keys, what rows show is nobody's concern."""
    replica = await Replica(connect, Commented, only="keys").come()
    await replica.leave()
    await run(lambda: Comment.objects.all().delete())
    await replica.come_back()
    await replica.settle()

    assert replica.told == []


async def test_chosen_by_others(connect: Connect, shelf: list[Book]) -> None:
    """Rows that came or went because of others are told, and no row that only might have."""
    assert await missed(connect, OfActive, lambda: Author.objects.update(name="x")) == []
    assert await missed(
        connect, OfActive, lambda: Author.objects.filter(pk=2).update(active=False)
    ) == [("delete", 2), ("delete", 3)]
    assert await missed(
        connect, OfActive, lambda: Author.objects.filter(pk=2).update(active=True)
    ) == [("create", 2), ("create", 3)]


async def test_chosen_by_what_is_gone(connect: Connect, shelf: list[Book]) -> None:
    """Rows that went because others were deleted are told, outbox or not."""
    assert await missed(connect, WithComments, lambda: Comment.objects.filter(book=1).delete()) == [
        ("delete", 1)
    ]
    assert await missed(connect, WithTag, lambda: Book.objects.get(pk=2).tags.clear()) == [
        ("delete", 2)
    ]


async def test_two_tables(connect: Connect, shelf: list[Book]) -> None:
    """A row with a parent's part is told when either is written."""
    await run(lambda: [Ebook.objects.create(title=t) for t in "def"])

    def write() -> None:
        Book.objects.filter(title="d").update(title="x")
        Ebook.objects.filter(title="e").update(format="pdf")

    assert await missed(connect, Ebooks, write) == [("update", 4), ("update", 5)]


async def test_prefetched_for_the_user(connect: Connect, shelf: list[Book]) -> None:
    """Etags of what another user was shown of the same rows lead to what this one is shown."""
    one = await Replica(connect, Prefetched, scope={"user": "first"}).come()
    other = Replica(connect, Prefetched, scope={"user": "second"})
    other.rows, other.etags = dict(one.rows), dict(one.etags)
    await other.come_back()
    await other.settle()
    await one.leave()
    await one.come_back()
    await one.settle()

    assert other.told == [("update", 1), ("update", 2)]  # the third has no comments
    assert [c["text"] for c in other.rows[1]["comments"]] == ["second"]
    assert one.told == []


async def test_while_nobody_noted_it(connect: Connect, shelf: list[Book]) -> None:
    """What a set lost while its table's triggers were off is found all the same."""

    def write() -> None:
        execute("ALTER TABLE library_comment DISABLE TRIGGER ALL")
        Comment.objects.filter(book=1).delete()
        execute("ALTER TABLE library_comment ENABLE TRIGGER ALL")

    assert await missed(connect, Commented, write) == [("update", 1)]


async def test_truncated_set(connect: Connect, shelf: list[Book]) -> None:
    """What a set lost by TRUNCATE is found row by row."""
    assert await missed(connect, Commented, lambda: execute("TRUNCATE library_comment")) == [
        ("update", 1),
        ("update", 2),
    ]


async def test_any_row_concerns_all(connect: Connect, shelf: list[Book]) -> None:
    """Where changes can't be led back to rows, the one that differs is found, and no other."""
    await run(lambda: [Loan.objects.create(card="c", number=n) for n in range(2)])

    assert await missed(connect, Fined, lambda: None) == []
    assert await missed(
        connect, Fined, lambda: Fine.objects.create(card="c", number=1, amount=5)
    ) == [("update", ("c", 1))]


async def test_changed_and_changed_back(connect: Connect, shelf: list[Book]) -> None:
    """A set that is as it was again is silent, though its rows are others."""

    def write() -> None:
        Comment.objects.filter(book=1, text="second").update(text="x")
        Comment.objects.filter(book=1, text="x").update(text="second")
        Book.objects.get(pk=2).tags.clear()
        Book.objects.get(pk=2).tags.add(Tag.objects.create(name="t"))

    assert await missed(connect, Commented, write) == []
    assert await missed(connect, Tagged, write) == []


def test_shape_of_annotations() -> None:
    """Values that the queryset adds to rows count as shown, unless they only choose."""
    serializer = shows(Book, "id", number=CharField())
    counted = BOOKS.annotate(number=Count("comments"))
    chosen = BOOKS.alias(number=Count("comments")).filter(number__gt=1)

    assert [path.table for path in shown(Counted, counted, serializer).paths] == ["library_comment"]
    assert not shown(OfActive, chosen, Plain)
