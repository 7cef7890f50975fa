"""``capture_changes``: what a transaction changed, seen before it ends."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection, transaction
from django.test import TestCase

from pgobserve.errors import ConfigurationError
from pgobserve.mute import muted
from pgobserve.testing import Captured, capture_changes
from pgobserve.triggers import installer, registry
from pgobserve.triggers.server import catalog
from pgobserve.wire import ALONE
from tests.project.models import Item

if TYPE_CHECKING:
    from pgobserve.triggers.trigger_values import Trigger

pytestmark = pytest.mark.django_db


def _leftovers() -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT tgname FROM pg_trigger WHERE tgname LIKE 'pgobserve%'")
        return cursor.fetchall()


def _triggers() -> dict[str, Trigger]:
    (on_table,) = catalog.triggers(connection, ALONE).values()
    return {name: each.trigger for name, each in on_table.items()}


def test_rows_before_and_after() -> None:
    """Each change is there in its order, with the row before and after, whoever made it."""
    with capture_changes(Item) as changes:
        item = Item.objects.create(name="a")
        Item.objects.filter(pk=item.pk).update(name="b")
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM project_item")

    create, update, delete = changes
    assert [each.action for each in changes] == ["create", "update", "delete"]
    assert {each.key for each in changes} == {item.pk}
    assert {each.label for each in changes} == {"project.item"}
    assert create.old is None
    assert create.new is not None
    assert create.new["name"] == "a"
    assert update.changed == {"name"}
    assert delete.old == update.new
    assert delete.new is None
    assert create.changed == set()


def test_so_far() -> None:
    """The changes can be looked at while the block goes on."""
    with capture_changes(Item) as changes:
        assert len(changes) == 0
        assert not changes
        Item.objects.create(name="a")
        assert [each.action for each in changes] == ["create"]
        Item.objects.all().delete()
        assert changes[-1].action == "delete"
        assert changes[:1] == [changes[0]]


def test_no_op_is_silent() -> None:
    """An update that changes nothing is no change."""
    item = Item.objects.create(name="a")
    with capture_changes(Item) as changes:
        item.save()

    assert changes == []


def test_savepoint() -> None:
    """What is rolled back to a savepoint is not among the changes."""
    with capture_changes(Item) as changes:
        with transaction.atomic():  # a savepoint
            Item.objects.create(name="lost")
            transaction.set_rollback(True)
        Item.objects.create(name="kept")

    assert [each.new and each.new["name"] for each in changes] == ["kept"]


def test_outside_the_block() -> None:
    """What was changed before the block, or is changed after it, is not among them."""
    Item.objects.create(name="before")
    with capture_changes(Item) as first:
        Item.objects.create(name="in it")
    with capture_changes(Item) as second:
        Item.objects.create(name="in the second")
    Item.objects.create(name="after")

    assert [each.new and each.new["name"] for each in (*first, *second)] == [
        "in it",
        "in the second",
    ]


def test_nothing_stays() -> None:
    """A table that had no trigger has none afterwards, and there is no outbox."""
    with capture_changes(Item):
        Item.objects.create(name="a")

    assert _leftovers() == []
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regnamespace('pgobserve')")
        assert cursor.fetchone() == (None,)


@pytest.mark.parametrize("transport", ["notify", "outbox"])
def test_triggers_come_back(transport: str) -> None:
    """A table that had triggers has the same again."""
    (registration,) = registry.build(
        [Item], {"project.Item": {"always": True}}, transport=transport
    )
    installer.install(registration, using="default")
    before = _triggers()
    with capture_changes() as changes:
        Item.objects.create(name="a")

    after = _triggers()
    assert [each.action for each in changes] == ["create"]
    assert after == before


def test_exception() -> None:
    """A block that fails is rolled back, triggers and all."""
    with contextlib.suppress(ZeroDivisionError), capture_changes(Item):
        Item.objects.create(name="a")
        raise ZeroDivisionError

    assert _leftovers() == []
    assert not Item.objects.exists()


def test_several_tables() -> None:
    """Changes of several models are in one order, a many-to-many field's through rows included."""
    with capture_changes(User, Group, User.groups.through) as changes:
        user = User.objects.create(username="ada")
        group = Group.objects.create(name="a")
        user.groups.add(group)

    assert [each.label for each in changes] == ["auth.user", "auth.group", "auth.user_groups"]


def test_key_change() -> None:
    """A changed key is one row that goes and one that comes."""
    item = Item.objects.create(name="a")
    with capture_changes(Item) as changes:
        Item.objects.update(id=item.pk + 1)

    assert {(each.action, each.key) for each in changes} == {
        ("delete", item.pk),
        ("create", item.pk + 1),
    }


def test_whole_tables() -> None:
    """TRUNCATE, and what was muted, is told of the table."""
    with capture_changes(Group.permissions.through, Item) as changes:
        with connection.cursor() as cursor:
            cursor.execute("TRUNCATE auth_group_permissions")
        with muted(Item):
            Item.objects.create(name="a")

    assert changes == [
        Captured("auth.group_permissions", "truncate", None),
        Captured("project.item", "muted", None),
    ]
    assert "truncate" in repr(changes)


def test_nothing_to_capture() -> None:
    """Without a model, and without a trigger, there is an error that says what to do."""
    with (
        pytest.raises(ConfigurationError, match=r"no table has triggers\. Name the models"),
        capture_changes(),
    ):
        pass


class InDjangosTestCase(TestCase):
    """It is made for this class."""

    def test_capture(self) -> None:
        """Nothing commits, and the change is seen."""
        with capture_changes(Item) as changes:
            Item.objects.create(name="a")

        assert [each.action for each in changes] == ["create"]
