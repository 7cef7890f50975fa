"""A muted block sends only a mark of each table, at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import Group
from django.db import connection, transaction

from pgobserve.mute import announce, muted
from tests.integration.triggers.conftest import by_each_transport
from tests.project.models import Item
from tests.project.shapes import ItemProxy

if TYPE_CHECKING:
    from collections.abc import Callable

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
