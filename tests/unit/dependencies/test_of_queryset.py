"""Which tables a queryset looks at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User
from django.db.models import (
    Count,
    Exists,
    FilteredRelation,
    OuterRef,
    Q,
    Subquery,
)
from django.db.models.expressions import RawSQL

from pgobserve.dependencies.of_queryset import of_queryset
from tests.bookshelf.models import (
    Author,
    Book,
    Category,
    Comment,
    Cover,
    Ebook,
    Fine,
    Imprint,
    Label,
    Loan,
    Publisher,
    Tag,
)
from tests.bookshelf.serializers import shows
from tests.bookshelf.words import of_serializer, told

if TYPE_CHECKING:
    from django.db.models import QuerySet


@pytest.mark.parametrize(
    ("queryset", "expected"),
    [
        (Book.objects.all(), []),
        (Book.objects.none(), []),
        (Book.objects.filter(title="x", author=1, author__in=[1, 2]), []),
        (Book.objects.order_by("author__name"), []),
        (Book.objects.select_related("author").prefetch_related("tags"), []),
        (Book.objects.filter(author__active=True), ["author Author"]),
        (
            Book.objects.filter(author__publisher__slug="x"),
            ["author Author", "author.publisher Publisher"],
        ),
        (Book.objects.filter(tags=1), ["tags Book_tags by book_id"]),
        (Book.objects.filter(tags__name="x"), ["tags Book_tags by book_id", "tags Tag"]),
        (Tag.objects.filter(books__rank=1), ["books Book_tags by tag_id", "books Book"]),
        (
            Book.objects.filter(related__rank=1),
            ["related Book_related by from_book_id", "related Book"],
        ),
        (
            Book.objects.filter(contributions__author__active=True),
            ["contributions Contribution by book_id", "contributors Author"],
        ),
        (Book.objects.filter(labels__text="x"), ["labels Label by object_id"]),
        (Book.objects.filter(cover__artist="x"), ["cover Cover by book_id"]),
        (
            Book.objects.filter(copy__shop__name="x"),
            ["copy_set Copy by book_id", "copy_set.shop Shop", "copy_set.shop.place_ptr Place"],
        ),
        (Ebook.objects.filter(title="x"), []),
        (Ebook.objects.filter(author__active=True), ["author Author"]),
        (Book.objects.filter(ebook__format="x"), ["ebook Ebook by book_ptr_id"]),
        (Fine.objects.filter(loan__book__rank=1), ["loan Loan", "loan.book Book"]),
        (Loan.objects.filter(fines__amount=1), ["all of Fine"]),
        (Book.objects.annotate(n=Count("comments")), ["comments Comment by book_id"]),
        (
            Book.objects.annotate(n=Count("pk", filter=Q(comments__author__active=True))),
            ["comments Comment by book_id", "comments.author Author"],
        ),
        (
            Book.objects.annotate(
                shown=FilteredRelation("comments", condition=Q(comments__hidden=False))
            ).filter(shown__text="x"),
            ["comments Comment by book_id"],
        ),
        (
            Book.objects.filter(Q(author__active=True) | Q(category__name="x")),
            ["author Author", "category Category"],
        ),
        (Book.objects.exclude(comments__hidden=True), ["comments Comment by book_id"]),
        (Category.objects.filter(parent__name="x"), ["parent Category"]),
    ],
)
def test_joins(queryset: QuerySet[Any], expected: list[str]) -> None:
    """What a queryset joins is watched; what it only fetches or orders by is not."""
    assert told(of_queryset(queryset)) == expected


@pytest.mark.parametrize(
    ("queryset", "expected"),
    [
        (
            Book.objects.filter(pk__in=Comment.objects.filter(author__active=True).values("book")),
            ["comments Comment by book_id", "comments.author Author"],
        ),
        (
            Book.objects.filter(author__in=Author.objects.filter(publisher__slug="x")),
            ["author Author", "author.publisher Publisher"],
        ),
        (
            Book.objects.exclude(author__in=Author.objects.filter(active=False)),
            ["author Author"],
        ),
        (
            Imprint.objects.filter(publisher__in=Publisher.objects.filter(name="x")),
            ["publisher Publisher by slug"],
        ),
        (
            Book.objects.filter(pk__in=Book.objects.filter(comments__hidden=True)),
            ["(library.Book).comments Comment by book_id"],
        ),
        (
            Book.objects.filter(Exists(Comment.objects.filter(book=OuterRef("pk")))),
            ["comments Comment by book_id"],
        ),
        (
            Book.objects.filter(~Exists(Comment.objects.filter(hidden=True, book=OuterRef("pk")))),
            ["comments Comment by book_id"],
        ),
        (
            Book.objects.annotate(
                last=Subquery(Comment.objects.filter(book=OuterRef("pk")).values("text")[:1])
            ),
            ["comments Comment by book_id"],
        ),
        (
            Book.objects.filter(author__name__in=Publisher.objects.values("name")),
            ["author Author", "author.(library.Publisher) Publisher by name"],
        ),
        (
            User.objects.filter(groups__in=User(pk=3).groups.all()),
            [
                "groups User_groups by user_id",
                "groups Group",
                "groups.user_set User_groups by group_id",
            ],
        ),
    ],
)
def test_subqueries(queryset: QuerySet[Any], expected: list[str]) -> None:
    """A subquery is followed where a column ties it to the rows around."""
    assert told(of_queryset(queryset)) == expected


@pytest.mark.parametrize(
    ("queryset", "expected"),
    [
        (Book.objects.filter(Exists(Comment.objects.filter(hidden=True))), ["all of Comment"]),
        (
            Book.objects.filter(
                Exists(Comment.objects.filter(Q(book=OuterRef("pk")) | Q(text="x")))
            ),
            ["all of Comment"],
        ),
        (
            Book.objects.filter(Exists(Comment.objects.exclude(book=OuterRef("pk")))),
            ["all of Comment"],
        ),
        (
            Book.objects.filter(pk__in=Comment.objects.order_by("pk").values("book")[:3]),
            ["all of Comment"],
        ),
        (Book.objects.filter(author__in=Comment.objects.values("author")), ["all of Comment"]),
        (
            Book.objects.filter(pk__in=Author.objects.values("contributions__book")),
            ["all of Author", "all of Contribution"],
        ),
        (
            Book.objects.filter(
                pk__in=Comment.objects.values("book")
                .annotate(n=Count("pk"))
                .filter(n=2)
                .values("book")
            ),
            ["all of Comment"],
        ),
        (Book.objects.annotate(n=Subquery(Author.objects.values("name")[:1])), ["all of Author"]),
        (
            Book.objects.filter(
                rank__gt=Subquery(
                    Cover.objects.filter(Exists(Tag.objects.all())).values("book")[:1]
                )
            ),
            ["all of Cover", "all of Tag"],
        ),
        (
            Book.objects.filter(author__active=True).union(Book.objects.all()),
            ["all of Author", "all of Book"],
        ),
        (
            Book.objects.filter(pk__in=Ebook.objects.filter(title="x").order_by("pk")[:1]),
            ["all of Book", "all of Ebook"],
        ),
    ],
)
def test_wide(queryset: QuerySet[Any], expected: list[str]) -> None:
    """Any change concerns all rows where a subquery does not say to which it belongs."""
    assert told(of_queryset(queryset)) == expected


@pytest.mark.parametrize(
    ("queryset", "what"),
    [
        (Book.objects.extra(where=["1 = 1"]), "extra()"),
        (Book.objects.extra(select={"x": "1"}), "extra()"),
        (Book.objects.annotate(x=RawSQL("1", [])), "RawSQL"),
        (Book.objects.filter(Exists(Tag.objects.filter(name=RawSQL("1", [])))), "RawSQL"),
        (Book.objects.filter(author__in=Author.objects.extra(where=["1 = 1"])), "extra()"),
    ],
)
def test_sql(queryset: QuerySet[Any], what: str) -> None:
    """SQL can't be looked into."""
    assert of_queryset(queryset).unresolved == (
        f"The queryset of library.Book uses {what}, whose SQL can't be looked into.",
    )


def test_same_links() -> None:
    """What queryset and serializer both lead to is one link."""
    queryset = Ebook.objects.filter(author__publisher__name="x", tags__name="x", labels__text="x")
    shown = shows(
        Ebook,
        author=shows(Author, publisher=shows(Publisher, "name")())(),
        tags=shows(Tag, "name")(many=True),
        labels=shows(Label, "text")(many=True),
    )

    assert of_queryset(queryset) is of_serializer(Ebook, shown())


def test_wide_tables_need_no_links() -> None:
    """Where any change of a table makes all rows be read again, there is nothing to lead back."""
    queryset = Book.objects.filter(author__active=True).filter(Exists(Author.objects.all()))

    assert told(of_queryset(queryset)) == ["all of Author"]
