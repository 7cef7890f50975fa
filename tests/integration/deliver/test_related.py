"""What a serializer shows and a queryset filters by is what is watched, in whatever table it is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.models import Count, Exists, OuterRef
from rest_framework.serializers import IntegerField

from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelInstanceMixin, ObserverModelListMixin
from tests.bookshelf.models import Author, Book, Comment, Contribution, Publisher, Tag
from tests.bookshelf.serializers import shows
from tests.bookshelf.tables import ALL, library
from tests.installing import install
from tests.integration.deliver.conftest import execute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

AuthorSerializer = shows(Author, "name", publisher=shows(Publisher, "name")())
BookSerializer = shows(
    Book,
    "id",
    "title",
    author=AuthorSerializer(),
    tags=shows(Tag, "name")(many=True),
    comments=shows(Comment, "text")(many=True),
)


class BookConsumer(ObserverModelInstanceMixin, ObserverModelListMixin, GenericAsyncAPIConsumer):
    queryset = Book.objects.order_by("id")
    serializer_class = BookSerializer


class ActiveConsumer(ObserverModelListMixin, GenericAsyncAPIConsumer):
    queryset = Book.objects.filter(author__active=True)
    serializer_class = shows(Book, "id", "title")


class CommentedConsumer(ObserverModelListMixin, GenericAsyncAPIConsumer):
    queryset = Book.objects.filter(
        Exists(Comment.objects.filter(book=OuterRef("pk"), hidden=False))
    )
    serializer_class = shows(Book, "id", "title")


class CountedConsumer(ObserverModelListMixin, GenericAsyncAPIConsumer):
    queryset = Book.objects.annotate(number=Count("comments"))
    serializer_class = shows(Book, "id", number=IntegerField())


@pytest.fixture
def shelf(transactional_db: None, transport: str) -> Iterator[list[Book]]:
    """Two books of two authors, in tables with triggers."""
    with library():
        labels = [model._meta.label for model in ALL]
        throughs = [
            field.remote_field.through._meta.label
            for model in ALL
            for field in model._meta.local_many_to_many
            if field.remote_field.through._meta.auto_created
        ]
        install(*labels, *throughs)
        publisher = Publisher.objects.create(name="house", slug="h")
        yield [
            Book.objects.create(
                title=title, author=Author.objects.create(name=title.upper(), publisher=publisher)
            )
            for title in "ab"
        ]
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


def titles(frame: Any) -> list[str]:
    return [row["title"] for row in frame["data"]["results"]]


async def ask(socket: Any, **content: Any) -> Any:
    frame = await socket.ask("subscribe_list", request_id=1, **content)
    assert frame["response_status"] == 201, frame
    return frame


WRITES: dict[str, tuple[Callable[[Book], Any], Callable[[Any], Any], Any]] = {
    "author": (
        lambda book: Author.objects.filter(pk=book.author_id).update(name="new"),
        lambda data: data["author"]["name"],
        "new",
    ),
    "publisher": (
        lambda book: Author.objects.filter(pk=book.author_id).update(
            publisher=Publisher.objects.create(name="other", slug="o")
        ),
        lambda data: data["author"]["publisher"]["name"],
        "other",
    ),
    "comment": (
        lambda book: Comment.objects.create(book=book, text="well"),
        lambda data: data["comments"],
        [{"text": "well"}],
    ),
    "tag": (
        lambda book: book.tags.add(Tag.objects.create(name="red")),
        lambda data: data["tags"],
        [{"name": "red"}],
    ),
}


@pytest.mark.parametrize("write", WRITES)
async def test_list(connect: Any, shelf: list[Book], write: str) -> None:
    """A change of what a row of a list shows of other tables is an update of that row alone."""
    change, look, wanted = WRITES[write]
    socket = await connect(BookConsumer)
    assert titles(await ask(socket)) == ["a", "b"]

    await run(lambda: change(shelf[0]))
    frame = await socket.receive()

    assert (frame["action"], frame["data"]["id"]) == ("update", shelf[0].pk)
    assert look(frame["data"]) == wanted
    assert await socket.has_nothing()


@pytest.mark.parametrize("write", WRITES)
async def test_instance(connect: Any, shelf: list[Book], write: str) -> None:
    """A change of what a watched row shows of other tables is an update, for its watchers alone."""
    change, look, wanted = WRITES[write]
    socket = await connect(BookConsumer)
    other = await connect(BookConsumer)
    await socket.subscribe(shelf[0].pk)
    await other.subscribe(shelf[1].pk)

    await run(lambda: change(shelf[0]))

    assert look((await socket.receive())["data"]) == wanted
    assert await other.has_nothing()


async def test_removed(connect: Any, shelf: list[Book]) -> None:
    """What was shown and is deleted, or goes to another row, is an update of the row that had it."""
    a, b = shelf
    texts = [Comment(book=a, text=str(n)) for n in range(2)]
    comments = await run(lambda: Comment.objects.bulk_create(texts))
    socket = await connect(BookConsumer)
    await ask(socket)

    await run(comments[0].delete)
    deleted = await socket.receive()
    await run(lambda: Comment.objects.filter(pk=comments[1].pk).update(book=b))
    moved = {frame["data"]["id"]: frame["data"] for frame in [await socket.receive() for _ in "ab"]}

    assert deleted["data"]["comments"] == [{"text": "1"}]
    assert moved[a.pk]["comments"] == []
    assert moved[b.pk]["comments"] == [{"text": "1"}]


async def test_filter_across(connect: Any, shelf: list[Book]) -> None:
    """A change of a row that is filtered by makes others leave and enter."""
    socket = await connect(ActiveConsumer)
    await ask(socket)
    author = Author.objects.filter(pk=shelf[0].author_id)

    await run(lambda: author.update(active=False))
    left = await socket.receive()
    await run(lambda: author.update(active=True))
    entered = await socket.receive()

    assert (left["action"], left["data"]) == ("delete", {"pk": shelf[0].pk})
    assert (entered["action"], entered["data"]["title"]) == ("create", "a")
    assert await socket.has_nothing()


async def test_filter_by_subquery(connect: Any, shelf: list[Book]) -> None:
    """A change in a table that a subquery reads makes rows enter and leave."""
    socket = await connect(CommentedConsumer)
    assert titles(await ask(socket)) == []
    comment = await run(lambda: Comment.objects.create(book=shelf[1]))
    entered = await socket.receive()
    await run(comment.delete)
    left = await socket.receive()

    assert (entered["action"], entered["data"]["title"]) == ("create", "b")
    assert left["action"] == "delete"


async def test_annotation(connect: Any, shelf: list[Book]) -> None:
    """An aggregate of other rows is kept up to date."""
    socket = await connect(CountedConsumer)
    await ask(socket)
    await run(lambda: Comment.objects.create(book=shelf[1]))

    assert (await socket.receive())["data"] == {"id": shelf[1].pk, "number": 1}


async def test_count_across(connect: Any, shelf: list[Book]) -> None:
    """A number of rows follows what they are filtered by."""
    socket = await connect(ActiveConsumer)
    await ask(socket, only="count")
    await run(lambda: Author.objects.filter(pk=shelf[0].author_id).update(active=False))

    assert (await socket.receive())["data"] == {"count": 1}


async def test_custom_through(connect: Any, shelf: list[Book]) -> None:
    """Rows between many and many with something of their own are followed as well."""
    serializer = shows(Book, "id", contributions=shows(Contribution, "role")(many=True))
    consumer = type("Contributed", (BookConsumer,), {"serializer_class": serializer})
    await run(lambda: call_command("pgobserve", "install", "library.Contribution", verbosity=0))
    socket = await connect(consumer)
    await ask(socket)
    await run(lambda: Contribution.objects.create(book=shelf[0], author=shelf[0].author, role="x"))

    assert (await socket.receive())["data"]["contributions"] == [{"role": "x"}]
