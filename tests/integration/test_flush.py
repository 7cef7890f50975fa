"""The short way to empty the tables after a test."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.test import TransactionTestCase

from tests.flush import Flush
from tests.project.models import Item


class Case:
    """A test on the default database."""

    available_apps = None
    serialized_rollback = False

    def _databases_names(self, *, include_mirrors: bool) -> list[str]:
        return ["default"]


@pytest.fixture
def flush(transactional_db: None) -> Flush:
    """A flush that knows the state in which a test begins."""
    flush = Flush()
    flush.prepare("default")
    return flush


def test_rows(flush: Flush) -> None:
    """Rows go, those that point at them too; content types and permissions stay."""
    user = User.objects.create(username="ann")
    user.groups.add(Group.objects.create(name="staff"))
    user.user_permissions.add(Permission.objects.all()[0])
    Item.objects.create(name="one")
    types, permissions = ContentType.objects.count(), Permission.objects.count()

    flush(Case())

    for model in (User, User.groups.through, User.user_permissions.through, Group, Item):
        assert not model._default_manager.exists()
    assert (ContentType.objects.count(), Permission.objects.count()) == (types, permissions)


def test_untouched(flush: Flush, django_assert_num_queries: Any) -> None:
    """After a test that wrote nothing, nothing is truncated."""
    with django_assert_num_queries(2):
        flush(Case())


def test_permissions_changed(flush: Flush) -> None:
    """Permissions that a test changed are written anew."""
    names = {*Permission.objects.values_list("codename", flat=True)}
    Permission.objects.filter(codename="add_user").delete()
    Permission.objects.create(
        codename="fly", name="Can fly", content_type=ContentType.objects.get_for_model(User)
    )
    ContentType.objects.create(app_label="none", model="none")

    flush(Case())

    assert {*Permission.objects.values_list("codename", flat=True)} == names
    assert not ContentType.objects.filter(app_label="none").exists()


def test_in_use(transactional_db: None) -> None:
    """Every test's tables are emptied in this way."""
    assert TransactionTestCase._fixture_teardown.__module__ == "tests.conftest"
