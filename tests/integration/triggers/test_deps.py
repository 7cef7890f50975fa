"""``manage.py pgobserve deps``: what consumers' rows depend on, and how it is watched."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from rest_framework import serializers

from pgobserve.cli.deps import HINT
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.install.consumer_registry import observed_models, observed_routes
from pgobserve.observer.generics import ObserverModelInstanceMixin
from pgobserve.triggers import installer, registry
from tests.bookshelf.models import Author, Book, Loan, Tag
from tests.bookshelf.serializers import shows
from tests.bookshelf.tables import library
from tests.project import asgi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Command = Callable[..., tuple[int, str, str]]


class Books(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    queryset = Book.objects.filter(loans__fines__amount=0)
    serializer_class = shows(
        Book,
        author=shows(Author, house=serializers.CharField(source="publisher.name"))(),
        tags=shows(Tag, "name")(many=True),
        price=serializers.SerializerMethodField(),
    )


class Loans(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    queryset = Loan.objects.all()
    serializer_class = shows(Loan, "card", "number")


NAME = f"{__name__}.Books"


@pytest.fixture(autouse=True)
def alone(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are no other consumers, and what these need is installed."""
    monkeypatch.setattr("pgobserve.install.consumer_registry._consumers", {Loans, Books})
    monkeypatch.setattr("pgobserve.install.targets.observed_routes", observed_routes)


@pytest.fixture
def tables(command: Command) -> Iterator[None]:
    """The library's tables; some have their triggers."""
    with library():
        for each in registry.build([Book, Author]):
            installer.install(each, using="default")
        for each in registry.build([Book.tags.through]):  # without its route
            installer.install(each, using="default")
        yield


@pytest.mark.usefixtures("tables")
def test_table(command: Command) -> None:
    """A table shows the end of each path, how its changes are resolved, and the state of its triggers."""
    code, out, err = command("deps", "Books")

    assert (code, err) == (0, "")
    assert out == (
        f"{NAME}\n"
        "PATH              MODEL              TABLE              FOUND BACK                TRIGGERS\n"
        "-                 library.Book       library_book       by key                    ok\n"
        "author            library.Author     library_author     by key                    ok\n"
        "tags              library.Book_tags  library_book_tags  by book_id in the change  outdated\n"
        "loans             library.Loan       library_loan       by book_id in the change  missing\n"
        "author.publisher  library.Publisher  library_publisher  by key                    missing\n"
        "tags              library.Tag        library_tag        by key                    missing\n"
        "-                 library.Fine       library_fine       reads all again           missing\n"
        "Not seen: BookSerializer.price is a SerializerMethodField: what it reads of other tables "
        "can't be seen.\n"
        f"\n{HINT}\n"
    )


@pytest.mark.usefixtures("tables")
def test_json(command: Command) -> None:
    """``--json`` prints the same facts as JSON."""
    code, out, _ = command("deps", NAME, "--json")

    (told,) = json.loads(out)
    assert code == 0
    assert told["consumer"] == NAME
    assert told["models"] == [{"label": "library.Book", "table": "library_book", "triggers": "ok"}]
    assert told["links"][1] == {
        "path": "tags",
        "label": "library.Book_tags",
        "table": "library_book_tags",
        "triggers": "outdated",
        "column": "book_id",
    }
    assert [each["path"] for each in told["links"]] == [
        "author",
        "tags",
        "loans",
        "author.publisher",
        "tags",
    ]
    assert [each["label"] for each in told["wide"]] == ["library.Fine"]
    assert len(told["unseen"]) == 1


@pytest.mark.usefixtures("tables")
def test_install(command: Command, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """``install`` covers every table, with and without labels, and the columns that lead back."""
    settings.ASGI_APPLICATION = f"{asgi.__name__}.application"
    monkeypatch.setattr("pgobserve.install.targets.observed_models", observed_models)

    assert (
        command("install", "library.Loan")[1]
        == f"library.Loan: installed on public.{Loan._meta.db_table}\n"
    )
    told = command("install")[1]
    assert (
        f"library.Book_tags: updated on public.{Book.tags.through._meta.db_table} (was outdated)"
        in told
    )
    assert "library.Loan: unchanged" in told
    (books,) = json.loads(command("deps", "Books", "--json")[1])
    tables = [*books["models"], *books["links"], *books["wide"]]
    assert {each["triggers"] for each in tables} == {"ok"}


def test_all(command: Command, settings: Any) -> None:
    """Without a name, all consumers that the application imports are printed by name."""
    settings.ASGI_APPLICATION = f"{asgi.__name__}.application"

    _, out, _ = command("deps", "--json")
    assert [each["consumer"] for each in json.loads(out)] == [NAME, f"{__name__}.Loans"]


def test_graph(command: Command) -> None:
    """``--dot`` draws consumers, tables and joins for Graphviz, without a database query."""
    code, out, err = command("deps", "Books", "--dot", "--database", "nowhere")

    assert (code, err) == (0, "")
    assert out == (
        "digraph pgobserve {\n"
        "  rankdir=LR;\n"
        "  node [shape=box];\n"
        f'  "{NAME}" [shape=ellipse];\n'
        '  "library.Author" -> "library.Publisher" [label="publisher_id = id"];\n'
        '  "library.Book" -> "library.Author" [label="author_id = id"];\n'
        '  "library.Book" -> "library.Book_tags" [label="id = book_id"];\n'
        '  "library.Book" -> "library.Loan" [label="id = book_id"];\n'
        '  "library.Book_tags" -> "library.Tag" [label="tag_id = id"];\n'
        f'  "{NAME}" -> "library.Book";\n'
        f'  "{NAME}" -> "library.Fine" [style=dashed, label="reads all"];\n'
        "}\n"
    )


def test_no_database(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the database can't be reached, all but the triggers is printed, with the reason."""
    with monkeypatch.context() as patched:
        patched.setattr(BaseDatabaseWrapper, "ensure_connection", _refuse)
        code, out, err = command("deps", "Loans")

    assert code == 0
    assert out.splitlines()[2].split() == ["-", "library.Loan", "library_loan", "by", "key", "?"]
    assert err == (
        "The state of the triggers is unknown. The database 'default' can't be reached: gone\n"
    )


def _refuse(self: BaseDatabaseWrapper) -> None:
    raise OperationalError("gone")


def test_unknown(command: Command) -> None:
    """An unknown consumer is refused with the known ones."""
    code, out, err = command("deps", "Nobody")

    assert (code, out) == (2, "")
    assert err.startswith("There is no consumer Nobody that clients may subscribe with. There is: ")
    assert NAME in err


def test_no_application(command: Command) -> None:
    """Without an application and a name, the command fails."""
    code, _, err = command("deps")

    assert code == 2
    assert err.startswith("ASGI_APPLICATION is not set, so no consumer is known.")


def test_between_many_and_many(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A through table appears once, with the path of its many-to-many field."""

    class Tagged(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
        queryset = Book.objects.all()
        serializer_class = shows(Book, "tags")
        observer_many_to_many_relationships = True

    monkeypatch.setattr("pgobserve.install.consumer_registry._consumers", {Tagged})
    _, out, _ = command("deps", "Tagged", "--json")
    (told,) = json.loads(out)
    assert [each["label"] for each in told["models"]] == ["library.Book"]
    assert {each["path"] for each in told["links"]} == {"tags", "related", "contributions"}
