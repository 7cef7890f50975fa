"""Which tables a serializer shows rows of."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework import serializers

from tests.bookshelf.models import (
    Author,
    Book,
    Category,
    Comment,
    Contribution,
    Copy,
    Cover,
    Ebook,
    Fine,
    Imprint,
    Label,
    Loan,
    Place,
    Publisher,
    Shop,
    Tag,
)
from tests.bookshelf.serializers import shows
from tests.bookshelf.words import of_serializer, told

PK = serializers.PrimaryKeyRelatedField
STRING = serializers.StringRelatedField
SLUG = serializers.SlugRelatedField
LINK = serializers.HyperlinkedRelatedField


def text(source: str) -> Any:
    """Return a field of a dotted source."""
    return serializers.CharField(source=source)


AUTHOR = shows(Author, "name")
COMMENT = shows(Comment, "text")


@pytest.mark.parametrize(
    ("serializer", "expected"),
    [
        (shows(Book, "title", "author", "category"), []),
        (shows(Book, author=AUTHOR()), ["author Author"]),
        (shows(Book, author=shows(Author, "id")()), []),
        (
            shows(Book, author=shows(Author, publisher=shows(Publisher, "name")())()),
            ["author Author", "author.publisher Publisher"],
        ),
        (shows(Book, "author", depth=1), ["author Author"]),
        (shows(Book, "author", depth=2), ["author Author", "author.publisher Publisher"]),
        (shows(Book, x=text("author.name")), ["author Author"]),
        (shows(Book, x=text("author.pk"), y=text("author_id"), z=text("author.id")), []),
        (shows(Book, x=text("author.publisher_id")), ["author Author"]),
        (shows(Book, x=text("author.publisher.id")), ["author Author"]),
        (
            shows(Book, x=text("author.publisher.name")),
            ["author Author", "author.publisher Publisher"],
        ),
        (shows(Book, author=STRING()), ["author Author"]),
        (shows(Book, author=serializers.ReadOnlyField()), ["author Author"]),
        (shows(Book, author=SLUG("name", read_only=True)), ["author Author"]),
        (shows(Book, author=SLUG("id", read_only=True)), []),
        (
            shows(Book, author=SLUG("publisher__name", read_only=True)),
            ["author Author", "author.publisher Publisher"],
        ),
        (shows(Book, author=LINK("author", read_only=True)), []),
        (
            shows(Book, author=LINK("author", lookup_field="name", read_only=True)),
            ["author Author"],
        ),
        (shows(Book, x=serializers.HyperlinkedIdentityField("book")), []),
        (shows(Book, x=serializers.HyperlinkedIdentityField("book", lookup_field="rank")), []),
        (shows(Imprint, "publisher"), []),
        (shows(Imprint, publisher=PK(read_only=True)), []),
        (shows(Imprint, publisher=SLUG("slug", read_only=True)), []),
        (shows(Imprint, publisher=LINK("x", lookup_field="slug", read_only=True)), []),
        (shows(Imprint, x=text("publisher.id")), ["publisher Publisher"]),
        (shows(Book, author=PK(queryset=Author.objects.all(), write_only=True)), []),
    ],
)
def test_forward(serializer: Any, expected: list[str]) -> None:
    """A row that is referred to is watched if more of it is shown than what refers to it."""
    assert told(of_serializer(serializer.Meta.model, serializer())) == expected


@pytest.mark.parametrize(
    ("serializer", "expected"),
    [
        (shows(Book, "comments"), ["comments Comment by book_id"]),
        (shows(Book, comments=COMMENT(many=True)), ["comments Comment by book_id"]),
        (shows(Book, comments=STRING(many=True)), ["comments Comment by book_id"]),
        (shows(Book, n=text("comments.count")), ["comments Comment by book_id"]),
        (shows(Book, x=text("comments.first.text")), ["comments Comment by book_id"]),
        (
            shows(Book, x=COMMENT(source="comments.all", many=True)),
            ["comments Comment by book_id"],
        ),
        (
            shows(Book, x=serializers.ListField(child=COMMENT(), source="comments.all")),
            ["comments Comment by book_id"],
        ),
        (
            shows(Book, comments=shows(Comment, author=AUTHOR())(many=True)),
            ["comments Comment by book_id", "comments.author Author"],
        ),
        (shows(Book, cover=PK(read_only=True)), ["cover Cover by book_id"]),
        (shows(Book, x=text("cover.artist")), ["cover Cover by book_id"]),
        (shows(Cover, "artist", "book"), []),
        (shows(Cover, x=text("book.title")), ["book Book"]),
        (shows(Author, books=shows(Book, "title")(many=True)), ["books Book by author_id"]),
        (shows(Book, x=text("author.books.count")), ["author.books Book by author_id"]),
        (shows(Category, "children"), ["children Category by parent_id"]),
        (
            shows(Book, labels=shows(Label, "text")(many=True)),
            ["labels Label by object_id"],
        ),
        (
            shows(
                Author, books=shows(Book, labels=SLUG("text", many=True, read_only=True))(many=True)
            ),
            ["books Book by author_id", "books.labels Label by object_id"],
        ),
        (shows(Loan, fines=shows(Fine, "amount")(many=True)), ["all of Fine"]),
        (shows(Fine, x=text("loan.number")), []),
        (shows(Fine, x=text("loan.book.title")), ["loan Loan", "loan.book Book"]),
    ],
)
def test_reverse(serializer: Any, expected: list[str]) -> None:
    """Rows that refer to the watched one are watched by what they refer to."""
    assert told(of_serializer(serializer.Meta.model, serializer())) == expected


@pytest.mark.parametrize(
    ("serializer", "expected"),
    [
        (shows(Book, "tags"), ["tags Book_tags by book_id"]),
        (shows(Book, tags=SLUG("pk", many=True, read_only=True)), ["tags Book_tags by book_id"]),
        (
            shows(Book, tags=SLUG("name", many=True, read_only=True)),
            ["tags Book_tags by book_id", "tags Tag"],
        ),
        (shows(Book, "tags", depth=1), ["tags Book_tags by book_id", "tags Tag"]),
        (shows(Book, "contributors"), ["contributions Contribution by book_id"]),
        (
            shows(Book, contributors=STRING(many=True)),
            ["contributions Contribution by book_id", "contributors Author"],
        ),
        (
            shows(
                Book,
                contributions=shows(Contribution, "role", who=AUTHOR(source="author"))(many=True),
            ),
            ["contributions Contribution by book_id", "contributors Author"],
        ),
        (
            shows(Tag, books=shows(Book, "title")(many=True)),
            ["books Book_tags by tag_id", "books Book"],
        ),
        (shows(Book, "related"), ["related Book_related by from_book_id"]),
        (
            shows(Book, related=STRING(many=True)),
            ["related Book_related by from_book_id", "related Book"],
        ),
        (
            shows(Author, books=shows(Book, "tags")(many=True)),
            ["books Book by author_id", "books.tags Book_tags by book_id"],
        ),
        (
            shows(Comment, x=shows(Tag, "name")(source="book.tags", many=True)),
            ["book.tags Book_tags by book_id", "book.tags Tag"],
        ),
    ],
)
def test_many_to_many(serializer: Any, expected: list[str]) -> None:
    """Of many to many the table between is watched, and the other if more than its keys is shown."""
    assert told(of_serializer(serializer.Meta.model, serializer())) == expected


@pytest.mark.parametrize(
    ("serializer", "expected"),
    [
        (shows(Copy, shop=shows(Shop, "hours")()), ["shop Shop", "shop.place_ptr Place"]),
        (shows(Copy, x=text("shop.name")), ["shop Shop", "shop.place_ptr Place"]),
        (shows(Copy, "shop"), []),
        (shows(Ebook, "title", "format"), []),
        (shows(Ebook, x=text("book_ptr.title")), []),
        (shows(Ebook, author=AUTHOR()), ["author Author"]),
        (
            shows(Ebook, "comments", "labels"),
            ["labels Label by object_id", "comments Comment by book_id"],
        ),
        (
            shows(Book, x=text("ebook.format")),
            ["ebook Ebook by book_ptr_id", "ebook.book_ptr Book"],
        ),
        (
            shows(Place, x=text("shop.hours")),
            ["shop Shop by place_ptr_id", "shop.place_ptr Place"],
        ),
    ],
)
def test_inheritance(serializer: Any, expected: list[str]) -> None:
    """A related row has several tables; parents' tables of the watched rows are watched anyway."""
    assert told(of_serializer(serializer.Meta.model, serializer())) == expected


def test_plain_serializer() -> None:
    """A serializer need not know its model."""

    class Plain(serializers.Serializer[Any]):
        name = serializers.CharField(source="author.name")
        tags = SLUG("name", many=True, read_only=True)

    expected = ["author Author", "tags Book_tags by book_id", "tags Tag"]
    assert told(of_serializer(Book, Plain(many=True))) == expected
    nested = type("Nested", (serializers.Serializer,), {"inner": Plain(source="*")})
    assert told(of_serializer(Book, nested())) == expected


class Branch(serializers.ModelSerializer[Category]):
    class Meta:
        model = Category
        fields = ["name"]

    def get_fields(self) -> Any:
        return {**super().get_fields(), "children": Branch(many=True), "parent": STRING()}


def test_recursion() -> None:
    """A serializer that shows itself ends, and any change of what it shows is watched."""
    assert told(of_serializer(Category, Branch())) == ["all of Category"]


def test_endless() -> None:
    """So does one that makes a new class on each level."""

    def fields(self: Any) -> Any:
        return {"children": branch()(many=True)}

    def branch() -> Any:
        return shows(Category, "name", get_fields=fields)

    assert told(of_serializer(Category, branch()())) == ["all of Category"]


ROWS = "what it reads of other tables can't be seen."


@pytest.mark.parametrize(
    ("serializer", "sentence"),
    [
        (
            shows(Book, x=serializers.SerializerMethodField(), get_x=lambda self, book: book.tags),
            f"BookSerializer.x is a SerializerMethodField: {ROWS} It mentions tags.",
        ),
        (
            shows(Book, x=text("author.house")),
            (
                'BookSerializer.x shows "house", which is a property of library.Author: '
                f"{ROWS} It mentions publisher."
            ),
        ),
        (
            shows(Book, x=text("shout")),
            f'BookSerializer.x shows "shout", which is a method of library.Book: {ROWS}',
        ),
        (
            shows(Book, x=text("nothing")),
            f'BookSerializer.x shows "nothing", which is no field of library.Book: {ROWS}',
        ),
        (
            shows(Label, x=text("content_object")),
            (
                'LabelSerializer.x shows "content_object", which is a generic foreign key of '
                f"library.Label: {ROWS}"
            ),
        ),
        (
            shows(Book, x=text("comments.latest_of_all")),
            f'BookSerializer.x calls "latest_of_all" of a manager: {ROWS}',
        ),
        (
            shows(Book, x=serializers.CharField(source="*")),
            f"BookSerializer.x is given the whole library.Book: {ROWS}",
        ),
        (
            shows(Book, category=STRING()),
            "BookSerializer.category shows str() of library.Category, which mentions parent.",
        ),
        (
            shows(Book, to_representation=lambda self, book: {}),
            f"BookSerializer overrides to_representation(): {ROWS}",
        ),
        (
            shows(Book, author=type("Own", (serializers.RelatedField,), {})(read_only=True)),
            f"BookSerializer.author is a custom relational field: {ROWS}",
        ),
        (
            shows(Book, x=type("Bare", (serializers.BaseSerializer,), {})(source="author")),
            f"Bare is a serializer without fields: {ROWS}",
        ),
        (
            shows(Book, "no_such_field"),
            (
                "The fields of BookSerializer can't be determined (ImproperlyConfigured: Field name "
                f"`no_such_field` is not valid for model `Book` in `{__name__}.BookSerializer`.): {ROWS}"
            ),
        ),
    ],
)
def test_unseen(serializer: Any, sentence: str) -> None:
    """What can't be followed is told in a sentence."""
    found = of_serializer(Book if serializer is None else serializer.Meta.model, serializer())

    assert [each.replace("rest_framework.serializers", __name__) for each in found.unresolved] == [
        sentence
    ]


def test_unseen_still_followed() -> None:
    """What leads to something that can't be followed is watched all the same."""
    found = of_serializer(Book, shows(Book, x=text("author.house"))())

    assert told(found) == ["author Author"]


def test_instantiation() -> None:
    """A class that can't be made an instance is told."""

    def fail(self: Any, *args: Any, **kwargs: Any) -> None:
        raise KeyError("tenant")

    found = of_serializer(Book, shows(Book, __init__=fail))
    assert found.unresolved == (f"BookSerializer could not be tried (KeyError: 'tenant'): {ROWS}",)
