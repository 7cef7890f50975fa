"""``manage.py pgobserve why``: whom changes of a row reach, and what keeps them from others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections

from pgobserve.install.consumer_registry import observed_models, observed_routes
from pgobserve.triggers import installer, registry
from tests.bookshelf.models import Author, Book, Ebook, Loan, Publisher, Tag
from tests.bookshelf.tables import library
from tests.integration.conftest import free_port, parameters
from tests.integration.doctor.watching import (
    Books,
    Ebooks,
    Items,
    Kiosks,
    Loans,
    Mine,
    Notes,
    Restaurants,
    Unseen,
)
from tests.project import asgi, shapes
from tests.project.models import Item, Note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.models import Model

    from tests.integration.doctor.conftest import Command

    Run = Callable[..., list[Any]]
    Why = Callable[..., dict[str, Any]]

HERE = "tests.integration.doctor.watching"
QUIET = "An UPDATE that leaves what a consumer shows as it was is silent."
NOBODY = "No feed is connected to this database now: nobody is subscribed, here at least."


@pytest.fixture(autouse=True)
def watchers(command: Command, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are these consumers, and no others."""
    settings.ASGI_APPLICATION = f"{asgi.__name__}.application"
    monkeypatch.setattr(
        "pgobserve.install.consumer_registry._consumers", {Items, Books, Ebooks, Loans}
    )
    monkeypatch.setattr("pgobserve.install.consumer_registry._observers", {Notes.on_note})
    monkeypatch.setattr("pgobserve.install.targets.observed_models", observed_models)
    monkeypatch.setattr("pgobserve.install.targets.observed_routes", observed_routes)


@pytest.fixture
def install() -> Callable[..., None]:
    """Install triggers that tell what the consumers need."""

    def install(*models: type[Model], **options: Any) -> None:
        for each in registry.build(models, routes=observed_routes(), **options):
            installer.install(each, using="default")

    return install


@pytest.fixture
def why(command: Command) -> Why:
    """Return what it tells a machine, with the exit code."""

    def why(*arguments: str) -> dict[str, Any]:
        code, out, err = command("why", *arguments, "--json")
        assert code in (0, 1), err
        return {"code": code, **json.loads(out)}

    return why


@pytest.fixture
def books(install: Callable[..., None]) -> Iterator[Book]:
    """The library's tables with their triggers, and a book in them that has everything."""
    with library():
        install(*observed_models())
        author = Author.objects.create(publisher=Publisher.objects.create())
        book = Book.objects.create(author=author)
        book.tags.add(Tag.objects.create())
        Loan.objects.create(card="a", number=1, book=book)
        yield book


def _row(told: dict[str, Any], name: str, table: int = 0) -> tuple[Any, str]:
    (found,) = (w for w in told["tables"][table]["watchers"] if w["name"] == f"{HERE}.{name}")
    return found["watched"], found["row"]


def test_all_is_well(command: Command, install: Callable[..., None]) -> None:
    """People get sentences: that it works, who watches and how, and what else there is to know."""
    install(Item)
    item = Item.objects.create(name="a")
    code, out, err = command("why", "project.item", str(item.pk))

    assert (code, err) == (0, "")
    assert out == (
        f"Changes of project.Item {item.pk} are told to whoever has subscribed.\n"
        "\n"
        "project.Item, table public.project_item: ok, by notify on channel pgobserve\n"
        f"- {HERE}.Items: rows of project.Item, by key; the row is in its queryset.\n"
        f"\n{QUIET}\n{NOBODY}\n"
    )


def test_obstacle(command: Command) -> None:
    """What is in the way comes first, with what to do, and the exit code is 1."""
    code, out, err = command("why", "project.Item")

    assert (code, err) == (1, "1 thing to mend.")
    assert out.startswith(
        "What keeps changes of project.Item from being told:\n"
        "- Changes of project.Item are not observed yet: run manage.py pgobserve install "
        "project.Item (public.project_item lacks "
    )


def test_json(why: Why, books: Book) -> None:
    """``--json`` tells the same to a machine."""
    told = why("library.Loan", '["a", 1]')
    assert told == {
        "code": 0,
        "label": "library.Loan",
        "key": ["a", 1],
        "exists": True,
        "obstacles": [],
        "remarks": [QUIET, NOBODY],
        "tables": [
            {
                "label": "library.Loan",
                "table": f"public.{Loan._meta.db_table}",
                "state": "ok",
                "transport": "notify",
                "channel": "pgobserve",
                "columns": None,
                "routes": ["book_id"],
                "watchers": [
                    {
                        "name": f"{HERE}.Books",
                        "kind": "link",
                        "model": "library.Book",
                        "how": "as loans of rows of library.Book, which are found by book_id in the "
                        "change",
                        "watched": True,
                        "row": f"it belongs now to library.Book {books.pk}",
                    },
                    {
                        "name": f"{HERE}.Loans",
                        "kind": "own",
                        "model": "library.Loan",
                        "how": "rows of library.Loan, by key",
                        "watched": True,
                        "row": "the row is in its queryset",
                    },
                ],
            }
        ],
    }


def test_related(why: Why, books: Book) -> None:
    """A row of another table is led to the watched rows that it belongs to now."""
    told = why("library.Publisher", str(Publisher.objects.get().pk))
    assert (told["code"], _row(told, "Books")[1]) == (
        0,
        f"it belongs now to library.Book {books.pk}",
    )
    assert told["tables"][0]["watchers"][0]["how"] == (
        "as author.publisher of rows of library.Book, which are found by key"
    )

    for _ in range(5):
        Book.objects.create(author=books.author)
    told = why("library.Author", str(books.author_id))
    assert _row(told, "Books") == (True, "it belongs now to more than 5 rows of library.Book")


def test_row_that_belongs_to_none(why: Why, books: Book) -> None:
    """A row that no watched row shows is told to nobody."""
    told = why("library.Tag", str(Tag.objects.create().pk))

    assert told["code"] == 1
    assert _row(told, "Books") == (False, "it belongs now to no row of library.Book")
    assert told["obstacles"] == [
        "The row is none that somebody may watch now, and belongs to none."
    ]
    loan = Loan.objects.create(card="b", number=2)
    told = why("library.Loan", f'["b", {loan.number}]')
    assert told["code"] == 0
    assert _row(told, "Books") == (False, "it belongs now to no row of library.Book")


def test_wide(why: Why, books: Book) -> None:
    """Of a table that can't be led back any change makes all be read again."""
    (told,) = why("library.Fine")["tables"]

    assert [(each["kind"], each["how"]) for each in told["watchers"]] == [
        ("wide", "rows of library.Book, which are all read again at each change")
    ]


def test_tables_of_a_child(why: Why, books: Book) -> None:
    """A child of multi-table inheritance has its parents' tables, which others may watch, too."""
    ebook = Ebook.objects.create()
    told = why("library.Ebook", str(ebook.pk))

    assert told["code"] == 0
    assert [
        (table["label"], [(each["name"], each["kind"]) for each in table["watchers"]])
        for table in told["tables"]
    ] == [
        ("library.Ebook", [(f"{HERE}.Ebooks", "own")]),
        ("library.Book", [(f"{HERE}.Books", "own"), (f"{HERE}.Ebooks", "part")]),
    ]
    assert _row(told, "Ebooks") == (True, "the row is in its queryset")
    assert _row(told, "Books", 1) == (False, "the row is not in its queryset")


def test_tables_of_a_second_parent(
    why: Why, install: Callable[..., None], make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a second parent's table the row has another key, which is not asked for."""
    monkeypatch.setattr("pgobserve.install.consumer_registry._consumers", {Kiosks, Restaurants})
    make(shapes.Tag, shapes.Place, shapes.Restaurant, shapes.Kiosk)
    install(shapes.Kiosk)
    shapes.Restaurant.objects.create(place_ptr_id=1)
    parents = {"place_ptr_id": 2, "of_restaurant_id": 2, "id_tag_id": 1}
    shapes.Restaurant.objects.create(place_ptr_id=2)
    shapes.Tag.objects.create(pk=1)
    shapes.Kiosk(**parents).save_base(raw=True)
    told = why("project.Kiosk", "1")

    assert told["code"] == 0
    assert [
        (t["label"], [(w["kind"], w["watched"]) for w in t["watchers"]]) for t in told["tables"]
    ] == [
        ("project.Kiosk", [("own", True)]),
        ("project.Tag", [("part", True)]),
        ("project.Restaurant", [("wide", None), ("own", None)]),
        ("project.Place", [("wide", None), ("part", None)]),
    ]


def test_row_outside_the_queryset(why: Why, install: Callable[..., None]) -> None:
    """A row that is in no consumer's queryset reaches nobody."""
    install(Item)
    told = why("project.Item", str(Item.objects.create(name="a", rank=1).pk))

    assert told["code"] == 1
    assert _row(told, "Items") == (False, "the row is not in its queryset")
    assert told["obstacles"][0].startswith("The row is none that somebody may watch now")


def test_queryset_of_instances(
    why: Why, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where only a socket's consumer has a queryset, it can't be told which rows are in it."""
    monkeypatch.setattr(Items, "queryset", property(lambda self: Item.objects.all()))
    install(Item)
    told = why("project.Item", str(Item.objects.create(name="a", rank=1).pk))

    watched, says = _row(told, "Items")
    assert watched is None
    assert says.startswith("without a user")


def test_client_decides(
    why: Why, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What depends on the client is said to depend on him, and is no obstacle."""
    monkeypatch.setattr("pgobserve.install.consumer_registry._consumers", {Mine, Unseen})
    install(Item)
    told = why("project.Item", str(Item.objects.create(name="a", rank=1).pk))

    assert told["code"] == 0
    watched, says = _row(told, "Mine")
    assert watched is None
    assert says == (
        "the row is not in its queryset as it is declared; for a client it depends on "
        "get_queryset() and permission_classes"
    )
    with library():
        install(Author)
        told = why("library.Author", str(Author.objects.create().pk))
    assert _row(told, "Unseen") == (
        None,
        "without a user it can't be told which rows get_queryset() returns",
    )


def test_what_can_not_be_seen(
    why: Why, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If nobody is known to watch, those are named who may do it in ways that can't be seen."""
    monkeypatch.setattr("pgobserve.install.consumer_registry._consumers", {Unseen})
    install(Item)
    told = why("project.Item")

    assert told["code"] == 1
    assert told["obstacles"][0].startswith("Nobody watches project.Item: ")
    assert told["remarks"][0].startswith(
        f"{HERE}.Unseen may depend on it all the same: AuthorSerializer.price is a "
        "SerializerMethodField"
    )


def test_row_that_is_gone(why: Why, install: Callable[..., None]) -> None:
    """A row that is not there is said not to be."""
    install(Item)
    told = why("project.Item", "999")

    assert (told["code"], told["exists"]) == (1, False)
    assert told["obstacles"] == ["There is no project.Item 999 in the database 'default'."]
    assert _row(told, "Items") == (None, "")


def test_events(why: Why, install: Callable[..., None], settings: Any) -> None:
    """An observer of events needs the outbox; a setting that says otherwise is in its way."""
    install(Note, transport="outbox")
    (table,) = why("project.Note")["tables"]
    assert table["transport"] == "outbox"
    assert [(each["name"], each["kind"]) for each in table["watchers"]] == [
        (f"{HERE}.Notes.on_note", "events")
    ]

    settings.PGOBSERVE = {"MODELS": {"project.Note": {"transport": "notify"}}}
    install(Note)
    told = why("project.Note")
    assert told["code"] == 1
    (obstacle,) = told["obstacles"]
    assert obstacle.startswith("A model_observer is about project.Note, and its changes don't go")


def test_other_channel(why: Why, install: Callable[..., None]) -> None:
    """Triggers that speak on another channel are not heard."""
    install(Item, channel="elsewhere")
    told = why("project.Item")

    assert "speak on channel elsewhere, and feeds listen on pgobserve" in told["obstacles"][1]


def test_columns(why: Why, install: Callable[..., None], settings: Any) -> None:
    """That only some columns are told is said."""
    settings.PGOBSERVE = {"MODELS": {"project.Item": {"columns": ["name"]}}}
    install(Item, options=settings.PGOBSERVE["MODELS"])
    told = why("project.Item")

    assert told["code"] == 0
    assert told["tables"][0]["columns"] == ["name"]
    assert told["remarks"][0] == (
        "An UPDATE of project.Item is told only if it changes name, or the key."
    )


def test_routes(why: Why, books: Book) -> None:
    """Triggers that don't tell where a row belongs are no obstacle."""
    for each in registry.build([Loan]):
        installer.install(each, using="default")
    told = why("library.Loan")

    assert told["code"] == 0
    assert told["tables"][0]["state"] == "outdated"
    assert told["remarks"][0].startswith("The triggers of library.Loan don't tell book_id, so ")


def test_muted(why: Why, install: Callable[..., None], run: Run) -> None:
    """So are settings of the session that keep triggers silent."""
    install(Item)
    run("SET pgobserve.mute = 'on'")
    try:
        told = why("project.Item")
    finally:
        run("RESET pgobserve.mute")

    assert told["code"] == 1
    assert told["obstacles"][0].startswith("pgobserve.mute is on in sessions of this role")


def test_another_database(
    why: Why, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer that reads from another database hears nothing of this one."""
    install(Item)
    monkeypatch.setattr(Items, "queryset", Item.objects.using("other"))
    told = why("project.Item", str(Item.objects.create(name="a").pk))

    assert told["code"] == 1
    assert told["obstacles"] == [f"{HERE}.Items reads from the database 'other' and listens there."]


def test_replication(why: Why, install: Callable[..., None], run: Run) -> None:
    """What logical replication writes is not told."""
    install(Item)
    run("SET allow_system_table_mods = on")
    try:
        run("INSERT INTO pg_subscription_rel VALUES (1, 'project_item'::regclass, 'r', '0/0')")
        told = why("project.Item")
    finally:
        run("DELETE FROM pg_subscription_rel WHERE srsubid = 1")
        run("RESET allow_system_table_mods")

    assert told["obstacles"][0].startswith("Logical replication writes to public.project_item")


def test_slice(why: Why, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a queryset that can't be filtered it is not said what is in it."""
    install(Item)
    monkeypatch.setattr(Items, "queryset", Item.objects.all()[:10])
    told = why("project.Item", str(Item.objects.create(name="a").pk))

    assert (told["code"], _row(told, "Items")[0]) == (0, None)


@pytest.fixture
def ear(books: Book, writer: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """Somebody who listens."""
    writer.execute("LISTEN pgobserve")
    return writer


def _heard(ear: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    ear.execute("SELECT pg_notify('pgobserve', 'end')")
    heard: list[str] = []
    while "end" not in heard:
        heard += [each.payload for each in ear.notifies(timeout=20, stop_after=1)]
    return [json.loads(each) for each in heard[:-1]]


def test_probe(why: Why, ear: psycopg.Connection[Any], books: Book, run: Run) -> None:
    """A probe says what the trigger says of an UPDATE, and changes nothing."""
    before = run("SELECT xmin::text, ctid::text FROM library_loan")
    told = why("library.Loan", '["a", 1]', "--probe")
    (probe,) = _heard(ear)

    assert told["code"] == 0
    assert told["remarks"][-1].startswith("A probe was sent, as the trigger sends it, and heard.")
    assert run("SELECT xmin::text, ctid::text FROM library_loan") == before
    run("UPDATE library_loan SET book_id = NULL")
    run("UPDATE library_loan SET book_id = %s", books.pk)
    _, real = _heard(ear)
    assert int(probe.pop("x")) < int(real.pop("x"))
    assert probe == real


def test_probe_without_autocommit(
    why: Why, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Django is not in autocommit mode, the probe is committed all the same."""
    install(Item)
    item = Item.objects.create(name="a")
    monkeypatch.setitem(connection.settings_dict, "AUTOCOMMIT", False)
    connection.close()
    try:
        told = why("project.Item", str(item.pk), "--probe")
    finally:
        connection.close()

    assert told["code"] == 0


def test_probe_that_is_not_heard(why: Why, install: Callable[..., None], settings: Any) -> None:
    """A probe that does not arrive where feeds listen is an obstacle."""
    install(Item)
    settings.PGOBSERVE = {"CONNECTION": {"default": {"dbname": "postgres"}}}
    told = why("project.Item", str(Item.objects.create(name="a").pk), "--probe")

    assert told["code"] == 1
    assert told["obstacles"][0].startswith("What was notified by this connection is not heard")


def test_probe_that_nobody_would_hear(
    command: Command, install: Callable[..., None], settings: Any
) -> None:
    """Where the outbox is polled there is nothing to send."""
    install(Item)
    item = Item.objects.create(name="a")
    settings.PGOBSERVE = {"TRANSPORT": "outbox", "OUTBOX_WAKE": "poll"}
    code, _, err = command("why", "project.Item", str(item.pk), "--probe")

    assert (code, err.startswith("A probe is a notification, and nobody listens here")) == (2, True)


def test_feeds(why: Why, install: Callable[..., None]) -> None:
    """That nobody is subscribed is said only if it is so."""
    install(Item)
    assert NOBODY in why("project.Item")["remarks"]
    with psycopg.connect(**parameters(), application_name="pgobserve:1"):
        assert NOBODY not in why("project.Item")["remarks"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope.Nope"], "There is no model nope.Nope."),
        (["auth.User", "x"], "No row of auth.User can have the key 'x'."),
        (
            ["library.Loan", "7"],
            "No row of library.Loan can have the key '7'. Write a JSON array of card, number.",
        ),
        (["library.Loan", "[7"], "No row of library.Loan can have the key '[7'. Write a JSON"),
        (["auth.User", "--probe"], "A probe is about a row: name its key, or leave --probe out."),
        (["auth.User", "--database", "nowhere"], "There is no database alias 'nowhere'."),
    ],
)
def test_bad_input(command: Command, arguments: list[str], message: str) -> None:
    """What can't be answered is said in a sentence, with exit code 2."""
    code, out, err = command("why", *arguments)

    assert (code, out) == (2, "")
    assert err.startswith(message)


def test_broken_application(command: Command, settings: Any) -> None:
    """Without the consumers there is no answer."""
    settings.ASGI_APPLICATION = "tests.nowhere.application"
    code, _, err = command("why", "project.Item")

    assert code == 2
    assert err.startswith("The consumers that say what to observe can't be imported")


def test_no_application(command: Command, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no application is set, that is why nobody is known to watch."""
    settings.ASGI_APPLICATION = None
    monkeypatch.setattr("pgobserve.install.consumer_registry._consumers", set())
    code, out, _ = command("why", "project.Item")

    assert code == 1
    assert "- ASGI_APPLICATION is not set, so it is not known which consumers there are." in out


def test_no_server(
    command: Command, install: Callable[..., None], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that can't be made is told, this command's own or that of feeds."""
    install(Item)
    item = Item.objects.create(name="a")
    settings.PGOBSERVE = {"CONNECTION": {"default": {"port": free_port()}}}
    code, _, err = command("why", "project.Item", str(item.pk), "--probe")
    assert (code, "Run manage.py pgobserve doctor." in err) == (2, True)

    monkeypatch.setattr(type(connections["default"]), "vendor", "sqlite")
    with pytest.raises(CommandError, match="pgobserve needs PostgreSQL"):
        call_command("pgobserve", "why", "project.Item")
