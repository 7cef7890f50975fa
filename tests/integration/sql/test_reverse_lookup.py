"""From changed rows of other tables back to the watched rows that they belong to."""

from __future__ import annotations

import datetime
import json
from copy import deepcopy
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.db.models import Count, Exists, FilteredRelation, OuterRef, Q, Subquery
from django.test.utils import CaptureQueriesContext
from rest_framework import serializers

from pgobserve.dependencies.of_queryset import of_queryset
from pgobserve.sql import reverse_lookup
from pgobserve.sql.keyed_query import KeyedQuery
from pgobserve.sql.keys import identity, key_fields, key_of
from pgobserve.sql.relation_path import Join, RelationPath
from pgobserve.sql.reverse_lookup import is_direct
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
    Publisher,
    Shop,
    Tag,
)
from tests.bookshelf.serializers import shows
from tests.bookshelf.tables import library
from tests.bookshelf.words import of_serializer
from tests.project import keys, shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.models import Model, QuerySet

    Contents = dict[str, dict[Any, dict[str, Any]]]


class Shelves:
    """Some of everything."""

    def __init__(self) -> None:
        self.houses = [Publisher.objects.create(name=n, slug=n) for n in "pqr"]
        self.imprints = [Imprint.objects.create(name="i", publisher=each) for each in self.houses]
        self.authors = [Author.objects.create(name=n, publisher=h) for n, h in self._pairs("abc")]
        root = Category.objects.create(name="all")
        self.categories = [root, *(Category.objects.create(name=n, parent=root) for n in "xy")]
        self.tags = [Tag.objects.create(name=n) for n in "uvw"]
        self.books = [Book.objects.create(title=n, author=self.authors[0]) for n in "de"]
        self.ebooks = [Ebook.objects.create(title=n, author=self.authors[1]) for n in "fg"]
        for book in (*self.books, *self.ebooks):
            book.tags.set(self.tags[:2])
            book.labels.create(text="new")
            Contribution.objects.create(book=book, author=self.authors[2], role="editor")
            Cover.objects.create(book=book, artist="k")
        self.books[0].related.add(self.books[1])
        self.comments = [
            Comment.objects.create(book=b, text="hm", author=self.authors[0])
            for b in (self.books[0], self.ebooks[0])
        ]
        self.shops = [Shop.objects.create(name=n, hours="9-5") for n in "st"]
        self.copies = [Copy.objects.create(book=self.books[0], shop=each) for each in self.shops]
        self.loans = [Loan.objects.create(card="l", number=n, book=self.books[n]) for n in (0, 1)]
        self.fines = [Fine.objects.create(card="l", number=n) for n in (0, 1)]

    def _pairs(self, names: str) -> Iterator[tuple[str, Publisher]]:
        return zip(names, self.houses, strict=True)


@pytest.fixture
def shelves(transactional_db: None) -> Iterator[Shelves]:
    """A library with some of everything."""
    with library():
        yield Shelves()


def contents(model: type[Model]) -> dict[Any, dict[str, Any]]:
    """Return the rows of a model's own table by key, as JSON has them."""
    with connection.cursor() as cursor:
        cursor.execute(f'SELECT to_jsonb(t)::text FROM "{model._meta.db_table}" t')
        rows = [json.loads(row) for (row,) in cursor.fetchall()]
    columns = [str(field.column) for field in key_fields(model)]
    values = [[row[column] for column in columns] for row in rows]
    return {
        tuple(each) if len(each) > 1 else each[0]: row
        for each, row in zip(values, rows, strict=True)
    }


def resolve(
    path: RelationPath, values: Any, connection: Any, *, among: Any = None, limit: int | None = None
) -> list[Any] | None:
    """Resolve JSON values, and return keys as JSON has them."""
    texts = [*map(_text, values)]
    keys = None if among is None else [*map(_text, among)]
    found = reverse_lookup.resolve(path, texts, connection, among=keys, limit=limit)
    return None if found is None else [*map(_json, found)]


def _text(value: Any) -> str:
    return identity([*map(_text, value)]) if isinstance(value, tuple) else str(value)


def _json(text: str) -> Any:
    if text.startswith("["):
        return tuple(map(_json, json.loads(text)))
    return int(text) if text.isdecimal() else text


class Told:
    """What triggers would tell of a change: keys, and old and new values."""

    def __init__(self, models: set[type[Model]]) -> None:
        self._before = {model: contents(model) for model in models}

    def look(self) -> None:
        """See what has changed."""
        self.pairs: dict[type[Model], dict[Any, tuple[Any, Any]]] = {}
        for model, before in self._before.items():
            after = contents(model)
            pairs = {key: (before.get(key), after.get(key)) for key in before | after}
            self.pairs[model] = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}

    def values(self, path: RelationPath) -> list[Any]:
        """Return what is told of the last table of a link."""
        pairs = self.pairs[path.joins[-1].model]
        if path.route is None:
            return list(pairs)
        told = [row[path.column] for pair in pairs.values() for row in pair if row is not None]
        return [each for each in told if each is not None]


def shown(root: type[Model], serializer: Any) -> dict[Any, Any]:
    """Return all rows as they are shown."""
    return {
        row.pk: in_order(json.loads(json.dumps(serializer(row).data)))
        for row in root._default_manager.all()
    }


def in_order(value: Any) -> Any:
    """Return JSON with its lists sorted: nothing says in what order a set of rows is shown."""
    if isinstance(value, dict):
        return {key: in_order(each) for key, each in value.items()}
    return sorted(map(in_order, value), key=json.dumps) if isinstance(value, list) else value


def nested(model: type[Model], *names: str, many: bool = True, **more: Any) -> Any:
    """Return a serializer as a field."""
    source = {"source": more.pop("source")} if "source" in more else {}
    return shows(model, *names, **more)(many=many, read_only=True, **source)


def text(source: str) -> Any:
    """Return a field of a dotted source."""
    return serializers.CharField(source=source, default=None)


Change = Any

#: Each way of belonging together: the root, how it is shown, and changes that concern no others.
KINDS: dict[str, tuple[type[Model], Any, list[Callable[[Shelves], object]]]] = {
    "forward": (
        Book,
        shows(Book, author=serializers.StringRelatedField()),
        [
            lambda s: Author.objects.filter(name="a").update(name="A"),
        ],
    ),
    "forward, over two": (
        Book,
        shows(Book, house=text("author.publisher.name")),
        [
            lambda s: Publisher.objects.filter(slug="p").update(name="P"),
            lambda s: Author.objects.filter(name="b").update(publisher=s.houses[2]),
            lambda s: s.houses[0].delete(),
        ],
    ),
    "reverse": (
        Book,
        shows(Book, comments=nested(Comment, "text")),
        [
            lambda s: s.books[1].comments.create(text="new"),
            lambda s: s.comments[0].delete(),
            lambda s: Comment.objects.filter(pk=s.comments[1].pk).update(text="other"),
            lambda s: Comment.objects.filter(pk=s.comments[1].pk).update(book=s.books[1]),
        ],
    ),
    "reverse, keys only": (
        Book,
        shows(Book, "comments"),
        [lambda s: s.comments[0].delete(), lambda s: s.books[1].comments.create()],
    ),
    "reverse, then forward": (
        Book,
        shows(Book, comments=nested(Comment, author=serializers.StringRelatedField())),
        [
            lambda s: Comment.objects.update(author=s.authors[1]),
            lambda s: Author.objects.filter(name="a").update(name="A"),
        ],
    ),
    "one to one": (
        Book,
        shows(Book, cover=nested(Cover, "artist", many=False)),
        [
            lambda s: Cover.objects.filter(book=s.books[0]).update(artist="z"),
            lambda s: Cover.objects.filter(book=s.ebooks[0]).delete(),
        ],
    ),
    "one to one, from its other end": (
        Cover,
        shows(Cover, title=text("book.title")),
        [lambda s: Book.objects.filter(title="d").update(title="D")],
    ),
    "many to many": (
        Book,
        shows(Book, tags=nested(Tag, "name")),
        [
            lambda s: Tag.objects.filter(name="u").update(name="U"),
            lambda s: s.books[0].tags.add(s.tags[2]),
            lambda s: s.books[1].tags.clear(),
            lambda s: s.tags[1].delete(),
        ],
    ),
    "many to many, keys only": (
        Book,
        shows(Book, "tags"),
        [lambda s: s.books[0].tags.add(s.tags[2]), lambda s: s.tags[0].delete()],
    ),
    "many to many, from its other end": (
        Tag,
        shows(Tag, books=nested(Book, "title")),
        [
            lambda s: Book.objects.filter(title="d").update(title="D"),
            lambda s: s.books[0].tags.set([s.tags[2]]),
        ],
    ),
    "many to many with itself": (
        Book,
        shows(Book, related=nested(Book, "title")),
        [lambda s: s.books[0].related.add(s.ebooks[0]), lambda s: s.books[1].related.clear()],
    ),
    "through": (
        Book,
        shows(Book, contributors=nested(Author, "name")),
        [
            lambda s: Author.objects.filter(name="c").update(name="C"),
            lambda s: s.books[0].contributors.add(s.authors[0]),
            lambda s: s.books[1].contributors.clear(),
        ],
    ),
    "through, with what it says": (
        Book,
        shows(Book, contributions=nested(Contribution, "role", who=text("author.name"))),
        [
            lambda s: Contribution.objects.filter(book=s.books[0]).update(role="author"),
            lambda s: Contribution.objects.filter(book=s.books[0]).update(book=s.books[1]),
            lambda s: Author.objects.filter(name="c").update(name="C"),
        ],
    ),
    "generic": (
        Book,
        shows(Book, labels=nested(Label, "text")),
        [
            lambda s: s.books[0].labels.update(text="old"),
            lambda s: s.books[0].labels.update(object_id=s.books[1].pk),
            lambda s: s.books[1].labels.all().delete(),
        ],
    ),
    "generic, over two": (
        Author,
        shows(Author, books=nested(Book, labels=nested(Label, "text"))),
        [lambda s: s.books[0].labels.update(text="old")],
    ),
    "parts of a related row": (
        Copy,
        shows(Copy, shop=nested(Shop, "name", "hours", many=False)),
        [
            lambda s: Shop.objects.filter(pk=s.shops[0].pk).update(name="S"),
            lambda s: Shop.objects.filter(pk=s.shops[0].pk).update(hours="never"),
        ],
    ),
    "from a child": (
        Ebook,
        shows(Ebook, author=serializers.StringRelatedField()),
        [lambda s: Author.objects.filter(name="b").update(name="B")],
    ),
    "from a child, reverse": (
        Ebook,
        shows(Ebook, comments=nested(Comment, "text")),
        [lambda s: s.ebooks[0].comments.update(text="x"), lambda s: s.comments[1].delete()],
    ),
    "to a child": (
        Book,
        shows(Book, format=text("ebook.format")),
        [lambda s: Ebook.objects.filter(title="f").update(format="pdf")],
    ),
    "composite key": (
        Loan,
        shows(Loan, title=text("book.title")),
        [lambda s: Book.objects.filter(title="d").update(title="D")],
    ),
    "composite key, reverse": (
        Book,
        shows(Book, loans=nested(Loan, "card", "number")),
        [lambda s: s.loans[0].delete(), lambda s: s.books[0].loans.create(card="m", number=3)],
    ),
    "several columns": (
        Fine,
        shows(Fine, title=text("loan.book.title")),
        [
            lambda s: Book.objects.filter(title="d").update(title="D"),
            lambda s: Loan.objects.filter(number=1).update(book=s.books[0]),
        ],
    ),
    "itself": (
        Category,
        shows(Category, parent=nested(Category, "name", many=False)),
        [lambda s: Category.objects.filter(name="all").update(name="none")],
    ),
    "itself, reverse": (
        Category,
        shows(Category, children=nested(Category, "name")),
        [
            lambda s: Category.objects.filter(name="x").update(name="X"),
            lambda s: Category.objects.filter(name="y").update(parent=s.categories[1]),
        ],
    ),
    "a column that is not the key": (
        Imprint,
        shows(Imprint, house=text("publisher.name")),
        [lambda s: Publisher.objects.filter(slug="q").update(name="Q")],
    ),
    "reverse, over two": (
        Author,
        shows(Author, books=nested(Book, tags=nested(Tag, "name"))),
        [
            lambda s: Tag.objects.filter(name="u").update(name="U"),
            lambda s: s.books[0].tags.clear(),
            lambda s: Book.objects.filter(title="f").update(author=s.authors[2]),
        ],
    ),
}


class Watched:
    """All rows of a kind, and what they looked like."""

    def __init__(self, kind: str) -> None:
        self.root, self.serializer, self.changes = KINDS[kind]
        self.found = of_serializer(self.root, self.serializer)
        self.own = {self.root, *self.root._meta.get_parent_list()}
        self.told = Told(self.own | {path.joins[-1].model for path in self.found.paths})
        self.before = shown(self.root, self.serializer)

    def after(
        self, shelves: Shelves, change: Callable[[Shelves], object]
    ) -> tuple[set[Any], set[Any]]:
        """
        Make a change, and take it back.

        Returns:
            The keys of the rows that looked different, and of those that it led to; not of rows that
            were changed themselves.
        """
        with transaction.atomic():
            change(deepcopy(shelves))
            self.told.look()
            after = shown(self.root, self.serializer)
            traced = {
                key
                for path in self.found.paths
                for key in resolve(path, self.told.values(path), connection) or ()
            }
            transaction.set_rollback(True)
        themselves = {key for model in self.own for key in self.told.pairs[model]}
        different = {key for key in after if self.before.get(key) != after[key]}
        return different - themselves, traced & after.keys() - themselves


@pytest.mark.parametrize("kind", KINDS)
def test_exact(shelves: Shelves, kind: str) -> None:
    """A change leads to the rows that are shown differently then, and to no others."""
    watched = Watched(kind)
    assert (watched.found.full_refresh, watched.found.unresolved) == ((), ())
    for change in watched.changes:
        different, traced = watched.after(shelves, change)

        assert different
        assert traced == different


@pytest.mark.parametrize("kind", KINDS)
def test_complete(shelves: Shelves, kind: str) -> None:
    """Whatever is changed, it leads to all rows that are shown differently then."""
    watched = Watched(kind)
    for _, _, changes in KINDS.values():
        for change in changes:
            different, traced = watched.after(shelves, change)

            assert traced >= different


#: Querysets whose rows depend on other tables, none of which needs all rows to be read again.
FILTERS: dict[str, QuerySet[Any]] = {
    "forward": Book.objects.filter(author__name__in=["a", "B"]),
    "forward, over two": Book.objects.filter(author__publisher__name="p"),
    "reverse": Book.objects.filter(comments__text="hm"),
    "many to many": Book.objects.filter(tags__name="u"),
    "through": Book.objects.filter(contributors__name="c"),
    "generic": Book.objects.filter(labels__text="new"),
    "from a child": Ebook.objects.filter(author__name="b", comments__text="hm"),
    "composite key": Loan.objects.filter(book__title="d"),
    "aggregate": Book.objects.annotate(n=Count("comments")).filter(n=1),
    "aggregate, with a filter": Book.objects.annotate(
        n=Count("comments", filter=Q(comments__author__name="a"))
    ).filter(n=0),
    "filtered relation": Book.objects.annotate(
        hm=FilteredRelation("comments", condition=Q(comments__text="hm"))
    ).filter(hm__author__name="a"),
    "none of many": Book.objects.exclude(comments__text="hm"),
    "none of many, over two": Book.objects.exclude(comments__author__name="A"),
    "none of many to many": Book.objects.exclude(tags__name="u"),
    "none, from a child": Ebook.objects.exclude(comments__text="x"),
    "in keys": Book.objects.filter(pk__in=Comment.objects.filter(text="hm").values("book")),
    "in keys, over two": Book.objects.filter(
        pk__in=Contribution.objects.filter(author__name="c").values("book")
    ),
    "in rows": Book.objects.filter(author__in=Author.objects.filter(publisher__name="p")),
    "not in rows": Book.objects.exclude(author__in=Author.objects.filter(name="a")),
    "in rows by another column": Imprint.objects.filter(
        publisher__in=Publisher.objects.filter(name="p")
    ),
    "in rows of many": Book.objects.filter(tags__in=Tag.objects.filter(name__in=["u", "w"])),
    "in itself": Book.objects.filter(pk__in=Book.objects.filter(comments__text="hm")),
    "exists": Book.objects.filter(
        Exists(Comment.objects.filter(book=OuterRef("pk"), author__name="a"))
    ),
    "exists not": Book.objects.filter(
        ~Exists(Comment.objects.filter(author__name="a", book_id=OuterRef("id")))
    ),
    "exists, in each other": Author.objects.filter(
        Exists(
            Book.objects.filter(
                Exists(Comment.objects.filter(book=OuterRef("pk"), author=OuterRef("author"))),
                author=OuterRef("pk"),
            )
        )
    ),
    "exists, over a join": Book.objects.filter(
        Exists(Publisher.objects.filter(pk=OuterRef("author__publisher"), name="p"))
    ),
    "a value": Book.objects.annotate(
        last=Subquery(
            Comment.objects.filter(book=OuterRef("pk")).order_by("-pk").values("text")[:1]
        )
    ).filter(last="hm"),
    "a number": Book.objects.annotate(
        n=Subquery(
            Comment.objects.filter(book=OuterRef("pk"))
            .order_by()
            .values("book")
            .annotate(c=Count("pk"))
            .values("c")
        )
    ).filter(n=1),
}


@pytest.mark.parametrize("name", FILTERS)
def test_membership(shelves: Shelves, name: str) -> None:
    """A change leads to all rows that come into a queryset or leave it."""
    queryset = FILTERS[name]
    root, found = queryset.model, of_queryset(queryset)
    own = {root, *root._meta.get_parent_list()}
    told = Told(own | {each.joins[-1].model for each in found.paths})
    before = set(queryset.values_list("pk", flat=True))
    moved = set()
    for _, _, changes in KINDS.values():
        for change in changes:
            with transaction.atomic():
                change(deepcopy(shelves))
                told.look()
                after = set(queryset.values_list("pk", flat=True))
                traced = {
                    key
                    for each in found.paths
                    for key in resolve(each, told.values(each), connection) or ()
                }
                transaction.set_rollback(True)
            themselves = {key for model in own for key in told.pairs[model]}
            moved |= before ^ after

            assert traced | themselves >= before ^ after

    assert (found.full_refresh, found.unresolved) == ((), ())
    assert moved


def path(queryset: QuerySet[Any], number: int = 0) -> RelationPath:
    """Return one of the links of a queryset."""
    return of_queryset(queryset).paths[number]


@pytest.fixture
def asked(shelves: Shelves) -> Iterator[CaptureQueriesContext]:
    """The queries that are asked."""
    with CaptureQueriesContext(connection) as queries:
        yield queries


def test_nothing_to_ask(asked: CaptureQueriesContext) -> None:
    """Without values, or without rows to choose among, nothing is asked."""
    authors = path(Book.objects.filter(author__active=True))

    assert resolve(authors, [], connection) == []
    assert resolve(authors, [1], connection, among=[]) == []
    assert len(asked) == 0


def test_one_query(asked: CaptureQueriesContext) -> None:
    """Over any number of tables it is one query."""
    tags = path(Publisher.objects.filter(authors__books__tags__name="u"), 3)

    assert [join.model for join in tags.joins] == [Author, Book, Book.tags.through, Tag]
    assert resolve(tags, list(Tag.objects.values_list("pk", flat=True)), connection)
    queries = [each["sql"] for each in asked if "pg_attribute" not in each["sql"]]
    assert len(queries) == 2


def test_direct(asked: CaptureQueriesContext) -> None:
    """Where the values are the root's keys already, nothing is asked."""
    comments = path(Book.objects.filter(comments__hidden=True))

    assert is_direct(comments, connection)
    assert resolve(comments, [3, "4", 3], connection) == [3, 4]
    assert resolve(comments, [3, 4], connection, among=[4, 5]) == [4]
    assert resolve(comments, [3, 4], connection, limit=2) == [3, 4]
    assert resolve(comments, [3, 4], connection, limit=1) is None
    assert len(asked) == 0


@pytest.mark.parametrize(
    ("queryset", "expected"),
    [
        (Book.objects.filter(author__active=True), False),
        (Book.objects.filter(tags=1), True),
        (Book.objects.filter(labels__text=""), False),
        (Ebook.objects.filter(comments__hidden=True), True),
        (Cover.objects.filter(book__title=""), True),
        (Loan.objects.filter(book__title=""), False),
        (Fine.objects.filter(loan__book=1), False),
        (Publisher.objects.filter(imprint__name=""), False),
    ],
)
@pytest.mark.django_db
def test_is_direct(queryset: QuerySet[Any], expected: bool) -> None:
    """It is told beforehand whether something must be asked; parents' tables need not be."""
    assert is_direct(path(queryset), connection) is expected


def test_among(shelves: Shelves) -> None:
    """Only rows that are among those asked for are returned; composite keys, too."""
    books = [each.pk for each in shelves.books]
    authors = path(Book.objects.filter(author__active=True))
    titles = path(Loan.objects.filter(book__title=""))

    author = shelves.authors[0].pk
    assert sorted(resolve(authors, [author], connection) or ()) == books
    assert resolve(authors, [author], connection, among=[books[1], 77]) == [books[1]]
    assert resolve(titles, books, connection, among=[("l", 1), ("l", 7)]) == [("l", 1)]


def test_limit(shelves: Shelves) -> None:
    """More rows than the limit are not returned."""
    authors = path(Book.objects.filter(author__active=True))
    values = [shelves.authors[0].pk]

    assert len(resolve(authors, values, connection, limit=2) or ()) == 2
    assert resolve(authors, values, connection, limit=1) is None


def test_gone(shelves: Shelves) -> None:
    """Rows that refer to a row are found also when that is gone."""
    authors = path(Book.objects.filter(author__active=True))
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("DELETE FROM library_author")
        cursor.execute("RESET session_replication_role")

    assert len(resolve(authors, [shelves.authors[0].pk], connection) or ()) == 2


def test_each_once(shelves: Shelves) -> None:
    """A row that is led to in several ways is returned once."""
    tags = path(Book.objects.filter(tags__name=""), 1)

    found = resolve(tags, [each.pk for each in shelves.tags], connection) or []
    assert len(found) == len(set(found)) == 4


def test_values_of_other_types(shelves: Shelves) -> None:
    """What a generic relation has as text is looked for as the key that it stands for."""
    labels = path(Author.objects.filter(books__labels__text="new"), 1)
    book = shelves.books[0].pk

    assert labels.column == "object_id"
    assert resolve(labels, [str(book), "no number", "99999999999999999999"], connection) == [
        shelves.authors[0].pk
    ]


def test_names(transactional_db: None) -> None:
    """Names are quoted as Django quotes them, percent signs and braces included."""
    root, other = shapes.MixedCase, shapes.Quoted
    join = Join(other, ((root._meta.get_field("name"), other._meta.get_field("name")),))
    with connection.schema_editor() as editor:
        editor.create_model(root)
        editor.create_model(other)
    try:
        root.objects.create(id=1, name="50%")
        other.objects.create(id=2, name="50%")

        assert resolve(RelationPath(root, (join,)), [2], connection) == [1]
        assert resolve(
            RelationPath(root, (join,), other._meta.get_field("name")), ["50%"], connection
        ) == [1]
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(other)
            editor.delete_model(root)


@pytest.mark.parametrize(
    ("model", "key"),
    [
        (shapes.UuidKey, UUID("12345678-1234-5678-1234-567812345678")),
        (shapes.TextKey, "it's {%s}"),
        (shapes.DateKey, datetime.date(2026, 1, 2)),
        (shapes.MomentKey, datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC)),
        (shapes.TimeKey, datetime.time(3, 4)),
        (shapes.AmountKey, Decimal("1.50")),
        (keys.AddressKey, "192.0.2.1"),
        (keys.SpanKey, datetime.timedelta(seconds=5)),
        (keys.TinyKey, 7),
        (keys.FloatKey, 1.5),
    ],
)
def test_key_types(transactional_db: None, model: type[Model], key: Any) -> None:
    """Keys of every type are compared by PostgreSQL, however they are written; others are not understood."""
    name = model._meta.get_field("name")
    join = Join(model, ((name, name),))
    with connection.schema_editor() as editor:
        editor.create_model(model)
    try:
        model._default_manager.create(pk=key, name="x")

        (row,) = model._default_manager.all()
        given = key_of(row, connection)
        path = RelationPath(model, (join,))
        queryset = model._default_manager.all()
        (key,) = KeyedQuery(queryset, connection).fetch([given], connection)[1]

        for each in (given, key):
            assert reverse_lookup.resolve(path, [each], connection) == [key]
            assert reverse_lookup.resolve(path, [each], connection, among=[each]) == [key]
        assert reverse_lookup.resolve(path, ["\0"], connection) is None
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(model)
