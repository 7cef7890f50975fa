"""Row images become instances with the types that the ORM gives them, whatever the table is now."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from django.contrib.auth.models import User
from django.db import connection

from pgobserve.outbox.cursor import GapReason
from pgobserve.outbox.event import Event, EventAction, Reset
from tests.integration.outbox.conftest import DELETE, INSERT, UPDATE, Reading, execute, install
from tests.project import shapes
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.models import Model


@pytest.fixture
def make(boxed: None) -> Iterator[Callable[[type[Model]], None]]:
    """Make the table of a model that Django does not manage, with triggers."""
    made: list[type[Model]] = []

    def make(model: type[Model]) -> None:
        with connection.schema_editor() as editor:
            editor.create_model(model)
        made.append(model)
        install(model)

    yield make
    for model in reversed(made):
        with connection.schema_editor() as editor:
            editor.delete_model(model)


@pytest.fixture
def altered(boxed: None) -> Iterator[None]:
    """The table of items is as it was when the test has ended."""
    yield
    execute("ALTER TABLE project_item DROP COLUMN IF EXISTS extra")
    execute("ALTER TABLE project_item ADD COLUMN IF NOT EXISTS rank integer NOT NULL DEFAULT 0")
    execute("ALTER TABLE project_item ALTER rank DROP DEFAULT")


def events(reading: Reading, *labels: str) -> list[Event]:
    """Return what is new, of which nothing is a reset."""
    found = reading.events(*labels)
    assert all(isinstance(each, Event) for each in found)
    return [each for each in found if isinstance(each, Event)]


def test_create_update_delete(reading: Reading) -> None:
    """An event has the row before, the row after, and what differs."""
    execute(INSERT, 1, "one")
    execute(UPDATE, "two", 1)
    execute(DELETE, 1)
    create, update, delete = events(reading)

    assert [each.action for each in (create, update, delete)] == [*EventAction]
    assert {each.key for each in (create, update, delete)} == {1}
    assert create.old is None
    assert isinstance(create.new, Item)
    assert (create.new.pk, create.new.name, create.new.rank) == (1, "one", 0)
    assert isinstance(update.old, Item)
    assert isinstance(update.new, Item)
    assert (update.old.name, update.new.name) == ("one", "two")
    assert update.changed == {"name"}
    assert create.changed == {"id", "name", "rank"}
    assert isinstance(delete.old, Item)
    assert (delete.old.name, delete.new) == ("two", None)
    assert delete.instance is delete.old
    assert update.instance is update.new


def test_says_when_and_by_which_transaction(reading: Reading) -> None:
    """An event has the time, in UTC, and the transaction."""
    execute("BEGIN")
    ((xid, before),) = execute("SELECT pg_current_xact_id()::text::bigint, clock_timestamp()")
    execute(INSERT, 1, "one")
    execute("COMMIT")
    (event,) = events(reading)

    assert event.xid == xid
    assert event.at.tzinfo is datetime.UTC
    assert before <= event.at <= datetime.datetime.now(datetime.UTC)


def test_instance_can_be_saved(reading: Reading) -> None:
    """An instance knows that it is a row of its database."""
    execute(INSERT, 1, "one")
    (event,) = events(reading)
    assert isinstance(event.new, Item)
    event.new.name = "saved"
    event.new.save()

    assert execute("SELECT name FROM project_item") == [("saved",)]


def test_types(reading: Reading) -> None:
    """Values have the types that the ORM gives them."""
    install(User)
    joined = datetime.datetime(2024, 2, 29, 12, 30, 0, 123456, tzinfo=datetime.UTC)
    user = User.objects.create(username='Ann \\ "ö" \U0001f600', date_joined=joined)
    (event,) = events(reading, "auth.user")
    (stored,) = User.objects.all()

    assert isinstance(event.new, User)
    for field in User._meta.concrete_fields:
        assert getattr(event.new, field.attname) == getattr(stored, field.attname)
    assert event.new.date_joined == joined
    # Not Model.delete(): it would look in tables that other tests make and drop.
    execute("DELETE FROM auth_user WHERE id = %s", user.pk)


@pytest.mark.parametrize(
    ("model", "key"),
    [
        (shapes.AmountKey, Decimal("12345678.50")),
        (shapes.TextKey, 'a"b\\c ] , ö'),
        (shapes.DateKey, datetime.date(2024, 2, 29)),
        (shapes.PairKey, ("left", 2)),
        (shapes.MixedCase, 7),
        (shapes.Quoted, 7),
    ],
)
def test_keys(
    make: Callable[[type[Model]], None], reading: Reading, model: type[Model], key: object
) -> None:
    """Keys are what the ORM has, whatever their type, number and column."""
    make(model)
    model._default_manager.create(pk=key, name="one")
    model._default_manager.filter(pk=key).update(name="two")
    create, update = events(reading, model._meta.label_lower)

    assert create.key == update.key == key
    assert create.instance.pk == key
    assert update.changed == {"name"}
    assert update.new.name == "two"  # type: ignore[union-attr]


def test_column_added_since(altered: None, reading: Reading) -> None:
    """A column that a table got after the change, and the model does not know, is left out."""
    execute(INSERT, 1, "one")
    execute("ALTER TABLE project_item ADD COLUMN extra text DEFAULT 'x'")
    (event,) = events(reading)

    assert (event.new.name, hasattr(event.new, "extra")) == ("one", False)  # type: ignore[union-attr]


def test_column_of_the_model_added_since(altered: None, reading: Reading) -> None:
    """A column that a row did not have when it was written is deferred: the server knows its default."""
    execute("ALTER TABLE project_item DROP COLUMN rank")
    execute("INSERT INTO project_item (id, name) VALUES (1, 'one')")
    execute("ALTER TABLE project_item ADD COLUMN rank integer NOT NULL DEFAULT 5")
    (event,) = events(reading)

    assert event.instance.get_deferred_fields() == {"rank"}
    assert event.changed == {"id", "name"}
    assert (event.new.name, event.new.rank) == ("one", 5)  # type: ignore[union-attr]


def test_column_dropped_since(altered: None, reading: Reading) -> None:
    """A column that the table has no more, and the model still has, is what the row was."""
    execute("INSERT INTO project_item (id, name, rank) VALUES (1, 'one', 3)")
    execute("ALTER TABLE project_item DROP COLUMN rank")
    (event,) = events(reading)

    assert (event.new.name, event.new.rank) == ("one", 3)  # type: ignore[union-attr]


def test_type_changed_since(
    altered: None, reading: Reading, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a row that does not fit the table any more, everything is what the row was."""
    execute("ALTER TABLE project_item ALTER rank TYPE text")
    execute("INSERT INTO project_item (id, name, rank) VALUES (1, 'one', 'high'), (2, 'two', '7')")
    execute("ALTER TABLE project_item ALTER rank TYPE integer USING 0")
    one, two = [e for e in events(reading) if e.action is EventAction.CREATE]

    assert (one.new.name, one.new.rank) == ("one", "high")  # type: ignore[union-attr]
    assert (two.new.name, two.new.rank) == ("two", 7)  # type: ignore[union-attr]
    assert "project.Item.rank" in caplog.text


def test_truncate_is_a_reset(reading: Reading) -> None:
    """TRUNCATE of a table is a reset that names it, in its place among the events."""
    execute(INSERT, 1, "one")
    execute("TRUNCATE project_item CASCADE")
    execute(INSERT, 2, "two")
    create, reset, again = reading.events()

    assert isinstance(create, Event)
    assert isinstance(reset, Reset)
    assert (reset.label, reset.why) == ("project.item", GapReason.WHOLE_TABLE)
    assert isinstance(again, Event)
    assert again.key == 2


def test_model_that_is_gone(reading: Reading, caplog: pytest.LogCaptureFixture) -> None:
    """Changes of a model that was removed since are left out, and the log says so."""
    execute(
        "INSERT INTO pgobserve.outbox (slot, xid, label, op, keys, new, at) VALUES "
        "(0, pg_current_xact_id(), 'project.gone', 'I', '[1]', '[{\"id\":1}]', now())"
    )
    execute(INSERT, 1, "one")

    assert [e.label for e in events(reading, "project.gone", "project.item")] == ["project.item"]
    assert "project.gone" in caplog.text
