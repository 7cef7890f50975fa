"""``manage.py pgobserve why``: which subscribers a row's changes reach, and what prevents it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections

from pgobserve.install.consumer_registry import observed_models, observed_routes, read_columns
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
QUIET = "An UPDATE that changes nothing that a consumer shows sends no frame."
NO_FEED = "No feed is connected to this database now, so it has no subscribers."


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
    monkeypatch.setattr("pgobserve.install.targets.read_columns", read_columns)


@pytest.fixture
def install() -> Callable[..., None]:
    """Install the triggers that the consumers need."""

    def install(*models: type[Model], **options: Any) -> None:
        for each in registry.build(models, routes=observed_routes(), **options):
            installer.install(each, using="default")

    return install


@pytest.fixture
def why(command: Command) -> Why:
    """Return the JSON output, with the exit code."""

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


def _row(result: dict[str, Any], name: str, table: int = 0) -> tuple[Any, str]:
    (found,) = (w for w in result["tables"][table]["watchers"] if w["name"] == f"{HERE}.{name}")
    return found["watched"], found["row"]


def test_all_is_well(command: Command, install: Callable[..., None]) -> None:
    """The output says in sentences that it works, and lists watchers and remarks."""
    install(Item)
    item = Item.objects.create(name="a")
    code, out, err = command("why", "project.item", str(item.pk))

    assert (code, err) == (0, "")
    assert out == (
        f"Changes of project.Item {item.pk} reach all subscribers.\n"
        "\n"
        "project.Item, table public.project_item: ok, by notify on channel pgobserve\n"
        f"- {HERE}.Items: rows of project.Item, by key; the row is in its queryset.\n"
        f"\n{QUIET}\n{NO_FEED}\n"
    )


def test_obstacle(command: Command) -> None:
    """Obstacles come first, with their remedy, and the exit code is 1."""
    code, out, err = command("why", "project.Item")

    assert (code, err) == (1, "1 thing to fix.")
    assert out.startswith(
        "What prevents the delivery of changes of project.Item:\n"
        "- Changes of project.Item are not observed yet: run manage.py pgobserve install "
        "project.Item (public.project_item lacks "
    )


def test_json(why: Why, books: Book) -> None:
    """``--json`` prints the same facts as JSON."""
    result = why("library.Loan", '["a", 1]')
    assert result == {
        "code": 0,
        "label": "library.Loan",
        "key": '["a", "1"]',
        "exists": True,
        "obstacles": [],
        "remarks": [QUIET, NO_FEED],
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
                        "how": "as loans of rows of library.Book, resolved by book_id in the change",
                        "watched": True,
                        "row": f"now shown by library.Book {books.pk}",
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
    """A row of another table is resolved to the watched rows that show it now."""
    result = why("library.Publisher", str(Publisher.objects.get().pk))
    assert (result["code"], _row(result, "Books")[1]) == (
        0,
        f"now shown by library.Book {books.pk}",
    )
    assert result["tables"][0]["watchers"][0]["how"] == (
        "as author.publisher of rows of library.Book, resolved by key"
    )

    for _ in range(5):
        Book.objects.create(author=books.author)
    result = why("library.Author", str(books.author_id))
    assert _row(result, "Books") == (True, "more than 5 rows of library.Book depend on it now")


def test_row_that_belongs_to_none(why: Why, books: Book) -> None:
    """A row that no watched row shows reaches no subscriber."""
    result = why("library.Tag", str(Tag.objects.create().pk))

    assert result["code"] == 1
    assert _row(result, "Books") == (False, "no row of library.Book depends on it now")
    assert result["obstacles"] == [
        "No client can watch this row now, and no watched row depends on it."
    ]
    loan = Loan.objects.create(card="b", number=2)
    result = why("library.Loan", f'["b", {loan.number}]')
    assert result["code"] == 0
    assert _row(result, "Books") == (False, "no row of library.Book depends on it now")


def test_wide(why: Why, books: Book) -> None:
    """A table that can't be resolved makes all watched rows be read again."""
    (table,) = why("library.Fine")["tables"]

    assert [(each["kind"], each["how"]) for each in table["watchers"]] == [
        ("wide", "rows of library.Book, all read again at each change")
    ]


def test_tables_of_a_child(why: Why, books: Book) -> None:
    """A child of multi-table inheritance reports its parents' tables too."""
    ebook = Ebook.objects.create()
    result = why("library.Ebook", str(ebook.pk))

    assert result["code"] == 0
    assert [
        (table["label"], [(each["name"], each["kind"]) for each in table["watchers"]])
        for table in result["tables"]
    ] == [
        ("library.Ebook", [(f"{HERE}.Ebooks", "own")]),
        ("library.Book", [(f"{HERE}.Books", "own"), (f"{HERE}.Ebooks", "part")]),
    ]
    assert _row(result, "Ebooks") == (True, "the row is in its queryset")
    assert _row(result, "Books", 1) == (False, "the row is not in its queryset")


def test_tables_of_a_second_parent(
    why: Why, install: Callable[..., None], make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a second parent's table the row has another key, which is not looked up."""
    monkeypatch.setattr("pgobserve.install.consumer_registry._consumers", {Kiosks, Restaurants})
    make(shapes.Tag, shapes.Place, shapes.Restaurant, shapes.Kiosk)
    install(shapes.Kiosk)
    shapes.Restaurant.objects.create(place_ptr_id=1)
    parents = {"place_ptr_id": 2, "of_restaurant_id": 2, "id_tag_id": 1}
    shapes.Restaurant.objects.create(place_ptr_id=2)
    shapes.Tag.objects.create(pk=1)
    shapes.Kiosk(**parents).save_base(raw=True)
    result = why("project.Kiosk", "1")

    assert result["code"] == 0
    assert [
        (t["label"], [(w["kind"], w["watched"]) for w in t["watchers"]]) for t in result["tables"]
    ] == [
        ("project.Kiosk", [("own", True)]),
        ("project.Tag", [("part", True)]),
        ("project.Restaurant", [("wide", None), ("own", None)]),
        ("project.Place", [("wide", None), ("part", None)]),
    ]


def test_row_outside_the_queryset(why: Why, install: Callable[..., None]) -> None:
    """A row that is in no consumer's queryset reaches no subscriber."""
    install(Item)
    result = why("project.Item", str(Item.objects.create(name="a", rank=1).pk))

    assert result["code"] == 1
    assert _row(result, "Items") == (False, "the row is not in its queryset")
    assert result["obstacles"][0].startswith("No client can watch this row now")


def test_queryset_of_instances(
    why: Why, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queryset property of instances is reported as depending on the user."""
    monkeypatch.setattr(Items, "queryset", property(lambda self: Item.objects.all()))
    install(Item)
    result = why("project.Item", str(Item.objects.create(name="a", rank=1).pk))

    watched, says = _row(result, "Items")
    assert watched is None
    assert says == "the rows of get_queryset() depend on the user"


def test_client_decides(
    why: Why, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row whose visibility depends on the client is no obstacle."""
    monkeypatch.setattr("pgobserve.install.consumer_registry._consumers", {Mine, Unseen})
    install(Item)
    result = why("project.Item", str(Item.objects.create(name="a", rank=1).pk))

    assert result["code"] == 0
    watched, says = _row(result, "Mine")
    assert watched is None
    assert says == (
        "the row is not in its queryset as declared; for a client that depends on "
        "get_queryset() and permission_classes"
    )
    with library():
        install(Author)
        result = why("library.Author", str(Author.objects.create().pk))
    assert _row(result, "Unseen") == (
        None,
        "the rows of get_queryset() depend on the user",
    )


def test_what_can_not_be_seen(
    why: Why, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a known watcher, consumers whose dependencies can't be determined are named."""
    monkeypatch.setattr("pgobserve.install.consumer_registry._consumers", {Unseen})
    install(Item)
    result = why("project.Item")

    assert result["code"] == 1
    assert result["obstacles"][0].startswith("No consumer watches project.Item: ")
    assert result["remarks"][0].startswith(
        f"{HERE}.Unseen may depend on it nevertheless: AuthorSerializer.price is a "
        "SerializerMethodField"
    )


def test_row_that_is_gone(why: Why, install: Callable[..., None]) -> None:
    """A missing row is an obstacle."""
    install(Item)
    result = why("project.Item", "999")

    assert (result["code"], result["exists"]) == (1, False)
    assert result["obstacles"] == ["There is no project.Item 999 in the database 'default'."]
    assert _row(result, "Items") == (None, "")


def test_events(why: Why, install: Callable[..., None], settings: Any) -> None:
    """An observer of events needs the outbox; another transport is an obstacle."""
    install(Note, transport="outbox")
    (table,) = why("project.Note")["tables"]
    assert table["transport"] == "outbox"
    assert [(each["name"], each["kind"]) for each in table["watchers"]] == [
        (f"{HERE}.Notes.on_note", "events")
    ]

    settings.PGOBSERVE = {"MODELS": {"project.Note": {"transport": "notify"}}}
    install(Note)
    result = why("project.Note")
    assert result["code"] == 1
    (obstacle,) = result["obstacles"]
    assert obstacle.startswith("A model_observer observes project.Note, whose changes do not go")


def test_other_channel(why: Why, install: Callable[..., None]) -> None:
    """Triggers that notify on another channel are an obstacle."""
    install(Item, channel="elsewhere")
    result = why("project.Item")

    assert "notify on channel elsewhere, and feeds listen on pgobserve" in result["obstacles"][1]


def test_columns(why: Why, install: Callable[..., None], settings: Any) -> None:
    """A remark names the columns that decide whether an UPDATE is published; those left out obstruct."""
    settings.PGOBSERVE = {"MODELS": {"project.Item": {"columns": ["name"]}}}
    install(Item, options=settings.PGOBSERVE["MODELS"])
    lacking = why("project.Item")
    settings.PGOBSERVE = {"MODELS": {"project.Item": {"columns": ["name", "rank"]}}}
    install(Item, options=settings.PGOBSERVE["MODELS"])
    result = why("project.Item")

    assert "Add rank to PGOBSERVE" in lacking["obstacles"][0]

    assert result["code"] == 0
    assert result["tables"][0]["columns"] == ["name", "rank"]
    assert result["remarks"][0] == (
        "An UPDATE of project.Item is published only if it changes name, rank, or the key."
    )


def test_routes(why: Why, books: Book) -> None:
    """Triggers without values of routes are no obstacle."""
    for each in registry.build([Loan]):
        installer.install(each, using="default")
    result = why("library.Loan")

    assert result["code"] == 0
    assert result["tables"][0]["state"] == "outdated"
    assert result["remarks"][0].startswith("The triggers of library.Loan do not send book_id, so ")


def test_muted(why: Why, install: Callable[..., None], run: Run) -> None:
    """A setting of the session that mutes triggers is an obstacle."""
    install(Item)
    run("SET pgobserve.mute = 'on'")
    try:
        result = why("project.Item")
    finally:
        run("RESET pgobserve.mute")

    assert result["code"] == 1
    assert result["obstacles"][0].startswith("pgobserve.mute is on in sessions of this role")


def test_another_database(
    why: Why, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer that reads from another database receives nothing of this one."""
    install(Item)
    monkeypatch.setattr(Items, "queryset", Item.objects.using("other"))
    result = why("project.Item", str(Item.objects.create(name="a").pk))

    assert result["code"] == 1
    assert result["obstacles"] == [
        f"{HERE}.Items reads from the database 'other' and listens there."
    ]


def test_replication(why: Why, install: Callable[..., None], run: Run) -> None:
    """Logical replication into the table is an obstacle."""
    install(Item)
    run("SET allow_system_table_mods = on")
    try:
        run("INSERT INTO pg_subscription_rel VALUES (1, 'project_item'::regclass, 'r', '0/0')")
        result = why("project.Item")
    finally:
        run("DELETE FROM pg_subscription_rel WHERE srsubid = 1")
        run("RESET allow_system_table_mods")

    assert result["obstacles"][0].startswith("Logical replication writes to public.project_item")


def test_slice(why: Why, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A queryset that can't be filtered is no obstacle."""
    install(Item)
    monkeypatch.setattr(Items, "queryset", Item.objects.all()[:10])
    result = why("project.Item", str(Item.objects.create(name="a").pk))

    assert (result["code"], _row(result, "Items")[0]) == (0, None)


@pytest.fixture
def ear(books: Book, writer: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A connection that listens."""
    writer.execute("LISTEN pgobserve")
    return writer


def _heard(ear: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    ear.execute("SELECT pg_notify('pgobserve', 'end')")
    heard: list[str] = []
    while "end" not in heard:
        heard += [each.payload for each in ear.notifies(timeout=60, stop_after=1)]
    return [json.loads(each) for each in heard[:-1]]


def test_probe(why: Why, ear: psycopg.Connection[Any], books: Book, run: Run) -> None:
    """A probe equals the trigger's notification of an UPDATE, and changes nothing."""
    before = run("SELECT xmin::text, ctid::text FROM library_loan")
    result = why("library.Loan", '["a", 1]', "--probe")
    (probe,) = _heard(ear)

    assert result["code"] == 0
    assert result["remarks"][-1].startswith(
        "A probe was sent as the trigger sends it, and arrived."
    )
    assert run("SELECT xmin::text, ctid::text FROM library_loan") == before
    run("UPDATE library_loan SET book_id = NULL")
    run("UPDATE library_loan SET book_id = %s", books.pk)
    _, real = _heard(ear)
    assert int(probe.pop("x")) < int(real.pop("x"))
    # Readers take a number for its text.
    probe, real = (json.loads(json.dumps(each), parse_int=str) for each in (probe, real))
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
        result = why("project.Item", str(item.pk), "--probe")
    finally:
        connection.close()

    assert result["code"] == 0


def test_probe_that_is_not_heard(why: Why, install: Callable[..., None], settings: Any) -> None:
    """A probe that does not arrive where feeds listen is an obstacle."""
    install(Item)
    settings.PGOBSERVE = {"CONNECTION": {"default": {"dbname": "postgres"}}}
    result = why("project.Item", str(Item.objects.create(name="a").pk), "--probe")

    assert result["code"] == 1
    assert result["obstacles"][0].startswith("A notification from this connection does not arrive")


def test_probe_that_nobody_would_hear(
    command: Command, install: Callable[..., None], settings: Any
) -> None:
    """Where feeds poll the outbox, a probe is refused."""
    install(Item)
    item = Item.objects.create(name="a")
    settings.PGOBSERVE = {"TRANSPORT": "outbox", "OUTBOX_WAKE": "poll"}
    code, _, err = command("why", "project.Item", str(item.pk), "--probe")

    assert (code, err.startswith("A probe is a notification, and no feed listens here")) == (
        2,
        True,
    )


def test_feeds(why: Why, install: Callable[..., None]) -> None:
    """A remark says that no feed is connected, only while none is."""
    install(Item)
    assert NO_FEED in why("project.Item")["remarks"]
    with psycopg.connect(**parameters(), application_name="pgobserve:1"):
        assert NO_FEED not in why("project.Item")["remarks"]


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
    """A wrong argument gets a sentence and exit code 2."""
    code, out, err = command("why", *arguments)

    assert (code, out) == (2, "")
    assert err.startswith(message)


def test_broken_application(command: Command, settings: Any) -> None:
    """Without the consumers there is no answer."""
    settings.ASGI_APPLICATION = "tests.nowhere.application"
    code, _, err = command("why", "project.Item")

    assert code == 2
    assert err.startswith("The consumers can't be imported")


def test_no_application(command: Command, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing ASGI_APPLICATION is named as the reason why no watcher is known."""
    settings.ASGI_APPLICATION = None
    monkeypatch.setattr("pgobserve.install.consumer_registry._consumers", set())
    code, out, _ = command("why", "project.Item")

    assert code == 1
    assert "- ASGI_APPLICATION is not set, so the consumers are not known." in out


def test_no_server(
    command: Command, install: Callable[..., None], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that fails gets a sentence, the command's own or a feed's."""
    install(Item)
    item = Item.objects.create(name="a")
    settings.PGOBSERVE = {"CONNECTION": {"default": {"port": free_port()}}}
    code, _, err = command("why", "project.Item", str(item.pk), "--probe")
    assert (code, "Run manage.py pgobserve doctor." in err) == (2, True)

    monkeypatch.setattr(type(connections["default"]), "vendor", "sqlite")
    with pytest.raises(CommandError, match="pgobserve needs PostgreSQL"):
        call_command("pgobserve", "why", "project.Item")
