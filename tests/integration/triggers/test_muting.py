"""A muted block sends only a mark of each table, at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import Group
from django.db import connection, transaction

from pgobserve.mute import announce, muted
from pgobserve.wire import ALONE
from tests.integration.triggers.conftest import by_each_transport
from tests.project.models import Item
from tests.project.shapes import ItemProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.triggers.conftest import Ear

MARK = ("project.item", "U", None)


@pytest.fixture(autouse=True)
def item(install: Callable[..., Any]) -> None:
    """Install the triggers of a plain table."""
    install(Item)


@by_each_transport
def test_muted(ear: Ear) -> None:
    """A muted block sends one marker per installed table, in its own transaction."""
    with muted():
        Item.objects.create(name="a")
        Item.objects.update(name="b")
        Item.objects.all().delete()
    Item.objects.create(name="c")

    marker, insert = ear.payloads()
    assert marker == {"v": 1, "t": "project.item", "o": "U", "x": marker["x"], "k": None}
    assert int(marker["x"]) < int(insert["x"])
    assert insert["o"] == "I"


@by_each_transport
def test_muted_names_tables(ear: Ear, install: Callable[..., Any]) -> None:
    """With models only their tables are marked; a proxy stands for its table."""
    install(Group)
    with muted(ItemProxy):
        Group.objects.create(name="not told")
        Item.objects.create(name="a")

    assert ear.changes() == [MARK]


@by_each_transport
def test_exception_tells_nothing(ear: Ear) -> None:
    """A muted block that fails is rolled back, sends nothing, and unmutes the triggers."""
    with pytest.raises(ZeroDivisionError), transaction.atomic(), muted():
        raise ZeroDivisionError
    item = Item.objects.create(name="a")

    assert ear.changes() == [("project.item", "I", [item.pk])]


@by_each_transport
def test_failure_within_a_transaction(ear: Ear) -> None:
    """So it is inside a transaction that goes on."""
    with transaction.atomic():
        with pytest.raises(ZeroDivisionError), muted():
            Item.objects.create(name="lost").rank = 1 // 0
        item = Item.objects.create(name="told")

    assert ear.changes() == [("project.item", "I", [item.pk])]


def test_nested(ear: Ear) -> None:
    """An inner block ends no outer one; afterwards the transaction is loud again."""
    with transaction.atomic():
        with muted():
            with muted():
                Item.objects.create(name="a")
            Item.objects.create(name="b")
        item = Item.objects.create(name="c")

    assert ear.changes() == [MARK, ("project.item", "I", [item.pk])]


@by_each_transport
def test_announce(ear: Ear) -> None:
    """After a change that fired no trigger, ``announce`` marks the table."""
    announce(Item)
    announce()

    assert ear.changes() == [MARK, MARK]


@by_each_transport
def test_channel_of_the_installation(ear: Ear) -> None:
    """Markers go where the table's triggers send: the comment says which channel that is."""
    from pgobserve.triggers import installer, registry
    from tests.integration.triggers.conftest import Ear as OtherEar

    (registration,) = registry.build([Item], channel="elsewhere")
    installer.install(registration, using="default")
    other = OtherEar("elsewhere")
    try:
        with muted(Item):
            Item.objects.create(name="a")
        Item.objects.update(name="b")
        assert [operation for _, operation, _ in other.changes()] == ["U", "U"]
    finally:
        other.close()

    assert ear.texts() == []
    assert not connection.in_atomic_block


@by_each_transport
def test_without_comments(ear: Ear, run: Callable[..., Any], transport: str) -> None:
    """A database that was restored without comments is marked as before, on the triggers' channel."""
    from pgobserve.triggers import installer, registry
    from tests.integration.triggers.conftest import Ear as OtherEar

    (registration,) = registry.build([Item], channel="elsewhere", transport=transport)
    installer.install(registration, using="default")
    for name in [*ALONE.triggers, *(ALONE.writers if transport == "outbox" else ())]:
        run(f"COMMENT ON TRIGGER {name} ON project_item IS NULL")
    here = ear if transport == "outbox" else OtherEar("elsewhere")
    here.texts()
    try:
        for models in ((), (Item,)):
            with muted(*models):
                Item.objects.create(name="a")
            assert here.changes() == [MARK]
            announce(*models)
            assert here.changes() == [MARK]
    finally:
        if here is not ear:
            here.close()


@pytest.fixture
def loader(run: Callable[..., Any]) -> Iterator[str]:
    """A role without rights."""
    run("CREATE ROLE loader")
    yield "loader"
    run("RESET ROLE")
    run("DROP OWNED BY loader")
    run("DROP ROLE loader")


GRANT = "GRANT {} ON project_item TO loader;"
INSERT = "INSERT INTO project_item (id, name, rank) VALUES (9, 'i', 1)"
RULE = "CREATE RULE keep AS ON UPDATE TO project_item DO INSTEAD NOTHING"
REFUSAL = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END';
    CREATE TRIGGER refuse BEFORE UPDATE OR DELETE ON project_item
      FOR EACH STATEMENT EXECUTE FUNCTION refuse()
"""
IDENTITY = """
    ALTER TABLE project_item ALTER id DROP IDENTITY IF EXISTS,
      ALTER id ADD GENERATED ALWAYS AS IDENTITY (START 50)
"""
DEFINER = """
    CREATE FUNCTION load() RETURNS void LANGUAGE sql SECURITY DEFINER
      AS 'UPDATE project_item SET rank = 6'
"""
#: What a role may do with a table of which shape, and its load.
LOADS = {
    GRANT.format("UPDATE (rank)"): "UPDATE project_item SET rank = 5",
    GRANT.format("INSERT"): INSERT,
    GRANT.format("INSERT (name, id, rank)"): INSERT,
    GRANT.format("DELETE"): "DELETE FROM project_item",
    GRANT.format("ALL") + RULE: INSERT,
    GRANT.format("ALL") + REFUSAL: INSERT,
    GRANT.format("INSERT") + IDENTITY: "INSERT INTO project_item (name, rank) VALUES ('i', 1)",
}
#: Loads by roles that could run no other statement.
ONLY_LOADS = {
    "GRANT TRUNCATE ON ALL TABLES IN SCHEMA public TO loader": "TRUNCATE project_item CASCADE",
    DEFINER: "SELECT load()",
}


@pytest.mark.parametrize("transport", ["outbox"])
def test_rights_of_the_load(ear: Ear, run: Callable[..., Any], loader: str) -> None:
    """The mark needs only the rights of the load, whatever rules and triggers the table has."""
    for setup, load in (LOADS | ONLY_LOADS).items():
        with transaction.atomic():
            run("INSERT INTO project_item OVERRIDING SYSTEM VALUE VALUES (1, 'a', 1)")
            run(setup)
            run(f"SET ROLE {loader}")
            with muted(Item):
                run(load)
                run(load.replace("9", "10"))
            run("RESET ROLE")
            marks = run("SELECT op, keys IS NULL FROM pgobserve.outbox ORDER BY at")
            transaction.set_rollback(True)
        assert marks == [("I", False), ("U", True)], setup
    assert ear.texts() == []


@pytest.mark.parametrize("transport", ["outbox"])
def test_announce_by_rights(ear: Ear, run: Callable[..., Any], loader: str) -> None:
    """``announce`` finds a statement that the role may run, and that reaches the trigger."""
    for setup in LOADS:
        with transaction.atomic():
            run(setup)
            run(f"SET ROLE {loader}")
            announce(Item)
            run("RESET ROLE")
            marks = run("SELECT op, keys IS NULL FROM pgobserve.outbox")
            transaction.set_rollback(True)
        assert marks == [("U", True)], setup
    assert ear.texts() == []


@pytest.mark.parametrize("transport", ["outbox"])
def test_announce_without_rights(
    run: Callable[..., Any], loader: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A role that may not write notifies the readers of rows, and the log says what is missing."""
    from tests.integration.triggers.conftest import Ear as NotifyEar

    ear = NotifyEar()
    try:
        run(f"SET ROLE {loader}")
        announce(Item)
        run("RESET ROLE")
        assert ear.changes() == [MARK]
    finally:
        ear.close()
    (record,) = [each for each in caplog.records if each.name == "pgobserve.triggers.muting"]
    assert "event observers receive no reset" in record.getMessage()


@pytest.mark.parametrize("transport", ["outbox"])
def test_load_rolled_back_to_a_savepoint(ear: Ear) -> None:
    """A mark that a savepoint took back is written at the end of the block."""
    with muted(Item), pytest.raises(ZeroDivisionError), transaction.atomic():
        Item.objects.create(name="lost").rank = 1 // 0

    assert ear.changes() == [MARK]
