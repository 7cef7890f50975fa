"""Models' relations as joins."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pgobserve.dependencies.relations import PathNode, query_names, relations_of
from tests.bookshelf.models import Book, Category, Comment, Ebook


def test_names() -> None:
    """Relations have the names that attributes have, and those that filters have."""
    assert {"comments", "copy_set", "author", "tags", "labels", "cover"} <= relations_of(
        Book
    ).keys()
    assert query_names(Book)["copy"] is relations_of(Book)["copy_set"]


def test_inherited() -> None:
    """A parent's relations are a child's, by one join more."""
    own, inherited = relations_of(Book)["author"], relations_of(Ebook)["author"]

    assert inherited.joins[1:] == own.joins
    assert (own.ancestors, inherited.ancestors) == (0, 1)


def test_strangers() -> None:
    """A field that only looks like a relation is none."""

    class Odd:
        field: Any = SimpleNamespace(is_relation=True, related_model=Book, name="odd")
        _meta = SimpleNamespace(get_fields=lambda: [Odd.field])

    assert relations_of(Odd) == {}  # type: ignore[arg-type]


def test_only_keys_on_the_way() -> None:
    """A row whose key alone leads on need not be watched."""
    to_book = PathNode(Comment, Comment).follow(relations_of(Comment)["book"])
    to_tags = to_book.follow(relations_of(Book)["tags"])
    to_category = to_book.follow(relations_of(Book)["category"])
    to_children = to_category.follow(relations_of(Category)["children"])

    assert to_book.key == ()
    assert [each.joins[-1].model for each in to_tags.dependencies] == [Book.tags.through]  # type: ignore[union-attr]
    assert [each.joins[-1].model for each in to_category.dependencies] == [Book]  # type: ignore[union-attr]
    assert [each.joins[-1].model for each in to_children.dependencies] == [Book, Category]  # type: ignore[union-attr]
