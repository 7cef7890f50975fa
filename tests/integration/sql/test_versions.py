"""Which transaction was the last to write rows, what belongs to them, and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, transaction

from pgobserve.dependencies.relations import join_along
from pgobserve.hub.snapshot import Snapshot
from pgobserve.sql.full_query import one_snapshot
from pgobserve.sql.versions import newest, newest_definition, widened
from tests.bookshelf.models import (
    Author,
    Book,
    Category,
    Comment,
    Copy,
    Ebook,
    Imprint,
    Loan,
    Publisher,
    Shop,
)
from tests.bookshelf.tables import library
from tests.integration.deliver.conftest import execute
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.models import Model

    from pgobserve.sql.relation_path import Join

WRAP = 2**32


@pytest.fixture
def shelves(transactional_db: None) -> Iterator[None]:
    """The library's tables, empty."""
    with library():
        yield


def xid(connection: Any = connection) -> int:
    """Return the id that the next transaction will have, or a later one."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
        return int(cursor.fetchone()[0])


def new_since(then: int, model: type[Model], *path: str, refers: bool = False) -> set[Any]:
    """Return the keys of a model's rows that were written since, or to which something belongs."""
    joins: list[Join] = []
    for name in path:
        field: Any = joins[-1].model._meta.get_field(name) if joins else model._meta.get_field(name)
        joins += [join_along(info.join_field) for info in field.path_infos]
    keys = list(model._base_manager.values_list("pk", flat=True))
    with one_snapshot(connection) as now:
        found = newest(model, joins, keys, now, connection, refers=refers)
    assert set(found) == set(keys)
    return {key for key, version in found.items() if version >= then}


@pytest.mark.parametrize(
    ("xmin", "xmax", "wide"),
    [
        (5, 10, 5),
        (9, 10, 9),
        (10, 10, 10 - WRAP),
        (20, 10, 20 - WRAP),
        (5, WRAP + 10, WRAP + 5),
        (11, WRAP + 10, 11),
        (WRAP - 1, WRAP + 10, WRAP - 1),
        (3, 7 * WRAP + 3, 6 * WRAP + 3),
        (1, 7 * WRAP, 0),
        (2, 7 * WRAP, 0),
    ],
)
def test_widened(xmin: int, xmax: int, wide: int) -> None:
    """A row's transaction is the latest of its 32 bits that is not future; special ones are oldest."""
    assert widened(xmin, Snapshot(xmax, xmax, frozenset())) == wide


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_wrap_around(transactional_db: None, epoch: int) -> None:
    """The server's arithmetic is that of `widened`, whatever the epoch."""
    old, new = (Item.objects.create(name=name) for name in "on")
    with one_snapshot(connection) as real, connection.cursor() as cursor:
        cursor.execute("SELECT id, xmin::text::bigint FROM project_item")
        versions = dict(cursor.fetchall())
        for xmax in (real.xmax + epoch * WRAP, versions[new.pk] + epoch * WRAP):
            now = Snapshot(xmax, xmax, frozenset())
            found = newest(Item, (), [old.pk, new.pk], now, connection)

            assert found == {key: widened(xmin, now) for key, xmin in versions.items()}


def test_own_rows(transactional_db: None) -> None:
    """A row that was written is newer than one that was only locked."""
    items = [Item.objects.create(name=name) for name in "abc"]
    then = xid()
    Item.objects.filter(pk=items[0].pk).update(name="x")
    with transaction.atomic():
        list(Item.objects.select_for_update().filter(pk=items[1].pk))
    execute("VACUUM FREEZE project_item")

    assert new_since(then, Item) == {items[0].pk}


def test_keys_that_are_not_there(transactional_db: None) -> None:
    """Nothing is told of keys of which there is no row."""
    with one_snapshot(connection) as now:
        assert newest(Item, (), [-1], now, connection) == {}
        assert newest(Item, (), [], now, connection) == {}


def test_composite_key(shelves: None) -> None:
    """A key may have several parts, as may the rows that lead on from there."""
    author = Author.objects.create()
    book = Book.objects.create(author=author)
    loans = [Loan.objects.create(card=c, number=1, book=book) for c in "xy"]
    then = xid()
    Loan.objects.filter(pk=loans[1].pk).update(book=None)

    assert new_since(then, Loan) == {("y", 1)}
    Author.objects.update(name="n")
    assert new_since(then, Loan, "book", "author", refers=True) == {("x", 1)}


def test_parts_in_parents_tables(shelves: None) -> None:
    """Rows of parents count where they are asked for."""
    ebooks = [Ebook.objects.create(title=t) for t in "ab"]
    then = xid()
    Book.objects.filter(pk=ebooks[0].pk).update(rank=1)

    assert new_since(then, Ebook) == set()
    assert new_since(then, Ebook, "book_ptr", refers=True) == {ebooks[0].pk}


def test_what_is_referred_to(shelves: None) -> None:
    """A row that others refer to is new for all of them."""
    authors = [Author.objects.create(name=n) for n in "ab"]
    books = [Book.objects.create(author=a) for a in (*authors, None)]
    then = xid()
    Author.objects.filter(pk=authors[0].pk).update(name="x")

    assert new_since(then, Book, "author", refers=True) == {books[0].pk}


def test_by_another_column(shelves: None) -> None:
    """What is referred to by another column than the key counts the same."""
    houses = [Publisher.objects.create(slug=s) for s in "ab"]
    imprints = [Imprint.objects.create(publisher=h) for h in houses]
    then = xid()
    Publisher.objects.filter(slug="b").update(name="x")

    assert new_since(then, Imprint, "publisher", refers=True) == {imprints[1].pk}


def test_what_refers(shelves: None) -> None:
    """The newest of many rows that refer to one counts; a row without any is as old as can be."""
    books = [Book.objects.create(title=t) for t in "abc"]
    for book in books[:2]:
        Comment.objects.create(book=book)
    then = xid()
    Comment.objects.create(book=books[0])

    assert new_since(then, Book, "comments") == {books[0].pk}
    assert new_since(1, Book, "comments") == {book.pk for book in books[:2]}


def test_itself(shelves: None) -> None:
    """A table may lead to itself."""
    root = Category.objects.create(name="r")
    child = Category.objects.create(name="c", parent=root)
    then = xid()
    Category.objects.filter(pk=root.pk).update(name="x")

    assert new_since(then, Category, "parent", refers=True) == {child.pk}


def test_over_two_tables_of_one_row(shelves: None) -> None:
    """What is referred to may have a parent's table, too."""
    shop = Shop.objects.create(name="s", hours="h")
    copy = Copy.objects.create(book=Book.objects.create(), shop=shop)
    then = xid()
    execute("UPDATE library_place SET name = 'x'")

    assert new_since(then, Copy, "shop", refers=True) == set()
    assert new_since(then, Copy, "shop", "place_ptr") == {copy.pk}


def test_missing_reference(shelves: None) -> None:
    """Where a row refers to one that is not there, it may have gone at any time."""
    execute("ALTER TABLE library_book DROP CONSTRAINT " + _constraint("library_book", "author"))
    book = Book.objects.create(author=Author.objects.create())
    other = Book.objects.create()
    execute("DELETE FROM library_author")

    assert new_since(xid(), Book, "author") == set()
    with one_snapshot(connection) as now:
        joins = [join_along(i.join_field) for i in Book._meta.get_field("author").path_infos]
        found = newest(Book, joins, [book.pk, other.pk], now, connection, refers=True)
        assert found == {book.pk: now.xmax - 1, other.pk: 0}


def _constraint(table: str, column: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT quote_ident(conname) FROM pg_constraint"
            " WHERE conrelid = %s::regclass AND contype = 'f' AND conname LIKE %s",
            [table, f"%{column}%"],
        )
        return str(cursor.fetchone()[0])


@pytest.mark.parametrize(
    ("statement", "is_new"),
    [
        ("TRUNCATE project_item CASCADE", True),
        ("VACUUM FULL project_item", True),
        ("ALTER TABLE project_item ALTER rank SET DEFAULT 1", True),
        (
            "ALTER TABLE project_item RENAME rank TO r; ALTER TABLE project_item RENAME r TO rank",
            True,
        ),
        ("VACUUM ANALYZE project_item", False),
        ("UPDATE project_item SET rank = 1", False),
        ("CREATE INDEX i ON project_item (rank); DROP INDEX i", False),
    ],
)
def test_definition(transactional_db: None, statement: str, is_new: bool) -> None:
    """Whoever empties, rebuilds or alters a table makes it new; whoever writes to it does not."""
    Item.objects.create(name="a")
    then = xid()
    execute(statement)

    with one_snapshot(connection) as now:
        assert (newest_definition("project_item", now, connection) >= then) is is_new


def test_definition_of_what_is_not_there(transactional_db: None) -> None:
    """A table that is not there may have gone at any time."""
    with one_snapshot(connection) as now:
        assert newest_definition("nowhere", now, connection) == now.xmax - 1


def test_partitions(transactional_db: None) -> None:
    """A partition that is attached makes the table new."""
    execute("CREATE TABLE parts (id int) PARTITION BY LIST (id)")
    execute("CREATE TABLE part (id int)")
    try:
        then = xid()
        with one_snapshot(connection) as now:
            assert newest_definition("parts", now, connection) < then
        execute("ALTER TABLE parts ATTACH PARTITION part FOR VALUES IN (1)")

        with one_snapshot(connection) as now:
            assert newest_definition("parts", now, connection) >= then
    finally:
        execute("DROP TABLE parts")


def test_triggers(transactional_db: None) -> None:
    """A trigger that is made, switched off and on, or replaced is told if it is asked for."""

    def look(then: int) -> tuple[bool, bool]:
        with one_snapshot(connection) as now:
            plain = newest_definition("project_item", now, connection)
            return (
                plain >= then,
                newest_definition("project_item", now, connection, triggers=True) >= then,
            )

    body = "RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    execute(f"CREATE FUNCTION t() {body}")
    execute("CREATE TRIGGER t AFTER INSERT ON project_item EXECUTE FUNCTION t()")
    try:
        then = xid()
        assert look(then) == (False, False)
        execute(f"CREATE OR REPLACE FUNCTION t() {body}")
        assert look(then) == (False, True)
        then = xid()
        execute("ALTER TABLE project_item DISABLE TRIGGER t")
        execute("ALTER TABLE project_item ENABLE TRIGGER t")
        assert look(then) == (False, True)
    finally:
        execute("DROP FUNCTION t CASCADE")
