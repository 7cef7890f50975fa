"""From tables to what their changes may concern."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from pgobserve.hub.table_dependencies import DependencyIndex, TableDependencies


@dataclass(frozen=True)
class FakeLink:
    """As much of a link as an index looks at."""

    table: str
    column: str | None = None


def subject(paths: Any = ()) -> TableDependencies:
    return TableDependencies(("book",), ("shelf",), tuple(paths))


@pytest.fixture
def index() -> DependencyIndex:
    return DependencyIndex()


def test_finds_tables(index: DependencyIndex) -> None:
    """A subject's own tables, wide ones and those at the end of links concern it."""
    index.add(subject([FakeLink("author")]))

    assert index.tables() == ["book", "shelf", "author"]
    assert all(table in index for table in ("book", "shelf", "author"))
    assert "other" not in index


def test_forgets(index: DependencyIndex) -> None:
    """Of two subjects that share tables, one may go; with the last nothing is left."""
    one, other = subject(), subject([FakeLink("author"), FakeLink("author", "book_id")])
    index.add(one)
    index.add(other)

    index.remove(other)
    assert index.tables() == ["book", "shelf"]
    index.remove(one)
    assert index.tables() == []


def test_routes(index: DependencyIndex) -> None:
    """The columns that lead back are known by table; links by key have none."""
    paths = [FakeLink("author"), FakeLink("comment", "book_id"), FakeLink("comment", "reply_id")]
    index.add(subject(paths))

    assert index.routes() == {"comment": {"book_id", "reply_id"}}


def test_equal_subjects_are_one() -> None:
    """Subjects of equal parts are equal, whatever object they are."""
    assert subject([FakeLink("author")]) == subject([FakeLink("author")])
    assert hash(subject([FakeLink("author")])) == hash(subject([FakeLink("author")]))
    assert subject() != subject([FakeLink("author")])
