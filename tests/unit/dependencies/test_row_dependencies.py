"""What a consumer's rows depend on, found in its queryset, its serializer and what it declares."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from django.db.models import Count, Exists
from django_filters import rest_framework as filters
from rest_framework import serializers
from rest_framework.filters import OrderingFilter, SearchFilter

from pgobserve.dependencies import row_dependencies
from pgobserve.dependencies.of_serializer import makes_fields
from pgobserve.dependencies.row_dependencies import of, of_consumer
from pgobserve.errors import ConfigurationError
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.install import consumer_registry
from pgobserve.observer.generics import ObserverModelInstanceMixin
from tests.bookshelf.models import (
    Author,
    Book,
    Category,
    Contribution,
    Fine,
    Loan,
    Place,
    Shop,
    Tag,
)
from tests.bookshelf.serializers import shows
from tests.bookshelf.words import told

if TYPE_CHECKING:
    from django.db.models import QuerySet

STRING = serializers.StringRelatedField


def consumer(**body: Any) -> Any:
    """Return a consumer of books; nobody else learns of it."""
    body = {"queryset": Book.objects.all(), "serializer_class": shows(Book, "title"), **body}
    return type("Books", (GenericAsyncAPIConsumer,), body)


SHOWN = shows(Book, "title", author=STRING(), tags=shows(Tag, "name")(many=True))
SHOWN_PATHS = ["author Author", "tags Book_tags by book_id", "tags Tag"]
WITH_CATEGORY = [*SHOWN_PATHS[:2], "category Category", "tags Tag"]


@pytest.mark.parametrize(
    ("related", "expected"),
    [
        ([], SHOWN_PATHS),
        (["category"], WITH_CATEGORY),
        (["author.publisher"], [*SHOWN_PATHS[:2], "author.publisher Publisher", "tags Tag"]),
        (
            ("author__publisher__name",),
            [*SHOWN_PATHS[:2], "author.publisher Publisher", "tags Tag"],
        ),
        (
            ["comments"],
            [
                "author Author",
                "tags Book_tags by book_id",
                "comments Comment by book_id",
                "tags Tag",
            ],
        ),
        (["copy", "-tags"], ["author Author", "copy_set Copy by book_id"]),
        (["-author"], SHOWN_PATHS[1:]),
        (["-tags"], SHOWN_PATHS[:1]),
        (["-tags", "tags"], SHOWN_PATHS),
        (["-author", "-tags", "-cover"], []),
        (["library.Place"], [*SHOWN_PATHS, "all of Place"]),
        ([Shop], [*SHOWN_PATHS, "all of Place", "all of Shop"]),
        (["library.author"], [*SHOWN_PATHS[1:], "all of Author"]),
        (None, []),
    ],
)
def test_observe_related(related: Any, expected: list[str]) -> None:
    """``observe_related`` adds, removes with ``-``, and turns off."""
    cls = consumer(serializer_class=SHOWN, observe_related=related)

    assert told(of(cls, Book.objects.all(), SHOWN)) == expected
    assert told(of_consumer(cls)) == expected
    row_dependencies.check(cls)


def test_removed_below() -> None:
    """With a path goes all that is found below it: what would be wide, and what can't be followed."""
    branch = shows(
        Category, "name", get_fields=lambda self: {"children": self.__class__(many=True)}
    )
    serializer = shows(
        Book,
        category=branch(),
        house=serializers.CharField(source="author.house"),
        loans=shows(Loan, fines=shows(Fine, "amount")(many=True))(many=True),
    )

    def found(*related: str) -> Any:
        return of_consumer(consumer(serializer_class=serializer, observe_related=related))

    assert told(found()) == [
        "author Author",
        "loans Loan by book_id",
        "all of Category",
        "all of Fine",
    ]
    assert len(found().unresolved) == 1
    assert told(found("-category.children", "-loans.fines")) == [
        "author Author",
        "loans Loan by book_id",
    ]
    assert found("-author").unresolved == ()


@pytest.mark.parametrize("related", [None, ["-author", "-tags"]])
def test_membership_stays(related: Any) -> None:
    """What decides which rows there are is watched, whatever is not shown."""
    cls = consumer(serializer_class=SHOWN, observe_related=related)

    assert told(of(cls, Book.objects.filter(author__active=True), SHOWN)) == ["author Author"]


@pytest.mark.parametrize(
    ("related", "message"),
    [
        (
            ["author.house"],
            (
                'Books.observe_related has "author.house", but library.Author has no relation "house". It '
                "has: books, comments, contributed, contributions, publisher."
            ),
        ),
        (
            ["title"],
            'Books.observe_related has "title", but library.Book has no relation "title". It has: ',
        ),
        (
            ["-nothing"],
            'Books.observe_related has "nothing", but library.Book has no relation "nothing".',
        ),
        (
            ["shop.Price"],
            'Books.observe_related has "shop.Price", but library.Book has no relation "shop".',
        ),
        (["tags.name.x"], None),
        ([3], "Books.observe_related must hold paths and models, not 3."),
        (
            "author",
            "Books.observe_related must be None or a list of paths and models, not 'author'.",
        ),
        (3, "Books.observe_related must be None or a list of paths and models, not 3."),
    ],
)
def test_bad_related(related: Any, message: str | None) -> None:
    """What is not there is refused, with what there is, when it is checked and when it is used."""
    cls = consumer(observe_related=related)
    if message is None:
        row_dependencies.check(cls)
        return

    for use in (row_dependencies.check, of_consumer):
        with pytest.raises(ConfigurationError) as raised:
            use(cls)
        assert str(raised.value).startswith(message)


def test_declared() -> None:
    """A consumer's class is looked at as it is declared."""
    cls = consumer(queryset=Book.objects.filter(category__name="x"), serializer_class=SHOWN)

    assert told(of_consumer(cls)) == WITH_CATEGORY
    assert told(of_consumer(consumer(queryset=None))) == []
    assert told(of_consumer(consumer(serializer_class=None))) == []


def test_tried() -> None:
    """Methods that choose are tried, for an anonymous user and for another, and for all actions."""

    def get_queryset(self: Any, **kwargs: Any) -> QuerySet[Any]:
        user = self.scope["user"]
        if user.is_anonymous:
            return Book.objects.none()
        return Book.objects.filter(comments__author=user.pk)

    def get_serializer_class(self: Any, action: str, **kwargs: Any) -> Any:
        return SHOWN if action == "retrieve" else shows(Book, "title")

    cls = consumer(get_queryset=get_queryset, get_serializer_class=get_serializer_class)
    found = of_consumer(cls)
    assert told(found) == [
        "author Author",
        "tags Book_tags by book_id",
        "comments Comment by book_id",
        "tags Tag",
    ]
    assert found.unresolved == ()


def _asks(self: Any, **kwargs: Any) -> Any:
    return Book.objects.filter(rank=Book.objects.count())


def _wants_more(self: Any, tenant: int, **kwargs: Any) -> Any:
    return Book.objects.all()


async def _waits(self: Any, **kwargs: Any) -> Any:
    return Book.objects.all()


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (_asks, "it queries the database"),
        (_wants_more, "TypeError: _wants_more() missing 1 required positional argument: 'tenant'"),
        (_waits, "TypeError: it is a coroutine function"),
        (lambda self, **kwargs: None, "TypeError: it returns NoneType"),
    ],
)
def test_not_tried(method: Any, reason: str) -> None:
    """A method that can't be tried is told, and what is declared stands in for it."""
    cls = consumer(
        queryset=Book.objects.filter(category__name="x"),
        serializer_class=SHOWN,
        get_queryset=method,
    )

    found = of_consumer(cls)
    assert told(found) == WITH_CATEGORY
    assert found.unresolved == (
        f"get_queryset() of Books could not be tried ({reason}): what it filters by can't be seen.",
    )


def test_filters() -> None:
    """What clients may filter by is watched as well."""

    class BookFilter(filters.FilterSet):
        tag = filters.CharFilter(field_name="tags__name")
        shop = filters.NumberFilter(field_name="copy__shop")
        odd = filters.BooleanFilter(method="filter_odd")

        class Meta:
            model = Book
            fields = ["author", "rank"]

        def filter_odd(self, queryset: Any, name: str, value: Any) -> Any:
            return queryset

    found = of_consumer(
        consumer(
            filter_backends=[filters.DjangoFilterBackend, SearchFilter, OrderingFilter],
            filterset_class=BookFilter,
            search_fields=["title", "^comments__text"],
        )
    )
    assert told(found) == [
        "tags Book_tags by book_id",
        "comments Comment by book_id",
        "copy_set Copy by book_id",
        "tags Tag",
    ]
    assert found.unresolved == (
        "The filter odd of Books is a method: what it reads can't be seen.",
    )


def test_kept() -> None:
    """Equal results are the same object, and a serializer's class is looked at once."""
    looks = []

    def get_fields(self: Any) -> Any:
        looks.append(self)
        return {"author": STRING()}

    serializer = shows(Book, get_fields=get_fields)
    cls = consumer(serializer_class=serializer)
    first = of(cls, Book.objects.filter(tags__name="x"), serializer)
    second = of(cls, Book.objects.filter(tags__name="y"), serializer)

    assert first is second
    assert len(looks) == 1


def test_threads() -> None:
    """Any number of threads may ask at once, and all get the same."""
    serializer = shows(Book, "title", author=STRING(), tags=STRING(many=True))
    cls = consumer(serializer_class=serializer)
    found: list[Any] = []
    barrier = threading.Barrier(8)

    def ask() -> None:
        barrier.wait()
        found.append(of(cls, Book.objects.filter(category__name="x"), serializer()))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry tells the models of all joins, under the labels of their tables, and the routes."""

    class Books(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
        queryset = Book.objects.filter(Exists(Place.objects.all()))
        serializer_class = shows(
            Book,
            tags=shows(Tag, "name")(many=True),
            author=shows(Author, contributed=STRING(many=True))(),
        )

    monkeypatch.setattr(consumer_registry, "_consumers", {Books})
    labels = [each._meta.label for each in consumer_registry.observed_models()]
    assert labels == sorted(labels, key=str.lower)
    assert set(labels) >= {
        "library.Author",
        "library.Book",
        "library.Book_tags",
        "library.Contribution",
        "library.Place",
        "library.Tag",
    }
    assert consumer_registry.observed_routes() == {
        Book.tags.through: frozenset({"book_id"}),
        Contribution: frozenset({"author_id"}),
    }


def test_annotated() -> None:
    """A value that the queryset annotates is its matter, and no attribute that can't be followed."""
    serializer = shows(Book, n=serializers.IntegerField())

    class Books(GenericAsyncAPIConsumer):
        pass

    found = of(Books, Book.objects.annotate(n=Count("comments")), serializer)
    assert told(found) == ["comments Comment by book_id"]
    assert found.unresolved == ()
    assert of(Books, Book.objects.all(), serializer).unresolved != ()


def test_fields_of_an_instance() -> None:
    """Where instances of a serializer's class differ in their fields, each is looked at."""

    def get_fields(self: Any) -> Any:
        return {name: STRING() for name in self.context.get("names", ())}

    serializer = shows(Book, get_fields=get_fields)
    cls = consumer(serializer_class=serializer)
    books = Book.objects.all()
    made = [serializer(context={"names": names}) for names in ((), ("author",), ("category",))]

    assert [told(of(cls, books, each)) for each in made] == [
        [],
        ["author Author"],
        ["category Category"],
    ]


@pytest.mark.parametrize(
    ("serializer", "expected"),
    [
        (shows(Book, "title", author=STRING()), False),
        (shows(Book, "title", get_fields=dict), True),
        (shows(Author, books=shows(Book, get_fields=dict)(many=True)), True),
        (None, False),
    ],
)
def test_makes_fields(serializer: Any, expected: bool) -> None:
    """A serializer that makes its fields by itself, or has one in it that does, is not its class."""
    assert makes_fields(serializer) is expected
