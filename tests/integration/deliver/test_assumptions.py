"""What is assumed of tables is checked, and what the refusal advises helps."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import sync_to_async
from django.core import checks
from django.core.management import CommandError, call_command
from django.db import connections
from django.db.models.expressions import RawSQL
from rest_framework import serializers

from pgobserve.dependencies import row_dependencies
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.install import consumer_registry, unseen_tables
from pgobserve.mixins import ListModelMixin
from pgobserve.observer.generics import ObserverModelInstanceMixin, ObserverModelListMixin
from tests.installing import install
from tests.integration.deliver.conftest import execute, run_sql
from tests.integration.deliver.test_instance import ItemSerializer
from tests.project.models import Item, Membership
from tests.project.shapes import Raw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Lists(ObserverModelListMixin, ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    queryset = Item.objects.filter(rank__lt=9).order_by("pk")
    serializer_class = ItemSerializer


class RawSerializer(serializers.ModelSerializer[Raw]):
    class Meta:
        model = Raw
        fields = ["id"]


class OfView(Lists):
    queryset = Raw.objects.order_by("pk")
    serializer_class = RawSerializer


class OfTables(OfView):
    observe_related = ["project.Item"]


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that lets only some consumer classes exist."""

    def keep(*classes: type) -> None:
        monkeypatch.setattr(consumer_registry, "_consumers", {*classes})

    return keep


@pytest.fixture
def view(observed: None) -> Iterator[None]:
    """A view that a model names."""
    execute("CREATE VIEW project_raw AS SELECT id FROM project_item WHERE rank < 9")
    yield
    execute("DROP VIEW project_raw")


def status(*arguments: str) -> str:
    """Return what ``status`` prints, however it ends."""
    out = io.StringIO()
    try:
        call_command("pgobserve", *(arguments or ("status",)), stdout=out, stderr=out)
    except CommandError as error:
        out.write(str(error))
    return out.getvalue()


async def test_view(connect: Callable[..., Any], view: None, item: Item) -> None:
    """A view is refused with the tables to declare in its place, and then followed by them."""
    refused = await (await connect(OfView)).ask("subscribe_list", request_id=1)
    assert refused["response_status"] == 503
    assert "observe_related of the consumer: ['project.Item']" in refused["errors"][0]
    assert "pgobserve install" not in refused["errors"][0]
    socket = await connect(OfTables)
    listed = await socket.ask("subscribe_list", request_id=1)
    assert listed["data"]["results"] == [{"id": item.pk}]

    await run_sql("UPDATE project_item SET rank = 9")

    assert (await socket.receive())["action"] == "delete"


def test_view_in_status(view: None, only: Callable[..., None]) -> None:
    """``status`` and ``install`` accept a view when each of its consumers declares the tables."""
    only(OfTables)
    assert "project.Raw: unchanged" in status("install", "project.Raw")
    assert re.search(r"project\.Raw +public\.project_raw +ok", status("status"))
    only(OfTables, OfView)

    assert "project.Raw can't be observed" in status("install", "project.Raw")
    assert "not a table" in status("status")


def test_columns(observed: None, settings: Any, only: Callable[..., None]) -> None:
    """All commands name the columns by which a list filters and that the option leaves out."""
    only(Lists)
    options = {"project.Item": {"columns": ["name"]}}
    settings.PGOBSERVE = {**settings.PGOBSERVE, "MODELS": options}

    said = [status("install"), status("status"), status("doctor")]
    found = checks.run_checks(databases=["default"], tags=[checks.Tags.database])
    connections.close_all()

    assert all("Add rank to PGOBSERVE" in each for each in said), said
    (warning,) = [each for each in found if each.id == "pgobserve.W022"]
    assert "an UPDATE of rank alone is not published" in warning.msg


def test_key(observed: None, only: Callable[..., None]) -> None:
    """A key that is not unique is named."""
    only(OfView)
    execute("CREATE TABLE project_raw AS SELECT id FROM project_item")
    try:
        install("project.Raw")
        assert "has no unique index on id" in status("status")
        execute("ALTER TABLE project_raw ADD PRIMARY KEY (id)")
        assert "not as wanted" not in status("status", "project.Raw")
    finally:
        execute("DROP TABLE project_raw")


# Tables in SQL


class Member(ListModelMixin, Lists):
    """Its queryset reads a table that only its SQL names."""

    queryset = Item.objects.filter(
        pk__in=RawSQL("SELECT m.item_id FROM project_membership m WHERE m.user <> %s", ["x"])
    ).order_by("pk")


async def test_table_in_raw_sql(connect: Callable[..., Any], items: list[Item]) -> None:
    """A table that raw SQL names is watched, and all tables that lack triggers are named at once."""
    socket = await connect(Member)
    refused = await socket.ask("subscribe_list", request_id=1)
    assert "pgobserve install project.Membership" in refused["errors"][0]
    await sync_to_async(call_command)("pgobserve", "install", "project.Membership", verbosity=0)
    assert (await socket.ask("subscribe_list", request_id=1))["data"] == {"results": []}

    member = await Membership.objects.acreate(user="ann", item=items[1])
    assert (await socket.receive())["data"]["id"] == items[1].pk
    await member.adelete()

    assert (await socket.receive())["action"] == "delete"


def test_table_without_a_model() -> None:
    """A table in raw SQL that no model has is named with the remedy."""

    class Stranger(Lists):
        queryset = Item.objects.filter(pk__in=RawSQL("SELECT id FROM log_entry", []))

    consumer_registry._consumers.discard(Stranger)  # other tests check all that are there
    found = row_dependencies.of_consumer(Stranger)

    (sentence,) = unseen_tables.of_consumer("shop.Stranger", found)
    assert sentence.startswith(
        "shop.Stranger: The queryset of project.Item reads the table log_entry"
    )
    assert "observe_related" in sentence


class Router:
    """Items are in another database."""

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return "crm" if model is Item else None

    def allow_migrate(self, db: str, app_label: str, model_name: Any = None, **hints: Any) -> Any:
        return (db == "crm") == (model_name == "item")


class MembershipSerializer(serializers.ModelSerializer[Membership]):
    item = ItemSerializer()

    class Meta:
        model = Membership
        fields = ["id", "item"]


class Members(ObserverModelListMixin, GenericAsyncAPIConsumer):
    queryset = Membership.objects.all()
    serializer_class = MembershipSerializer


class Alone(Members):
    observe_related = ["-item"]


def test_other_database(settings: Any, only: Callable[..., None]) -> None:
    """A nested row in another database is named, with what leaves it out; then nothing is."""
    settings.DATABASE_ROUTERS = [Router()]
    only(Members, Alone)

    (sentence,) = unseen_tables.of("default")

    assert sentence.startswith(f"{__name__}.Members shows item: rows of project.Item, which are in")
    assert "the database 'crm'" in sentence
    assert 'observe_related = ["-item"]' in sentence


async def test_all_missing_tables(connect: Callable[..., Any], transactional_db: None) -> None:
    """A refusal names all tables that lack triggers, with one command."""
    await run_sql("DROP SCHEMA IF EXISTS pgobserve CASCADE")  # an earlier test may have left some
    frame = await (await connect(Members)).ask("subscribe_list", request_id=1)

    (sentence,) = frame["errors"]
    assert sentence == (
        "Changes of project.Membership, project.Item are not observed yet: run manage.py pgobserve "
        "install project.Membership project.Item"
    )
