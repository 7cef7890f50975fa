"""Which rows were on a list at an earlier time, by what the outbox has of them."""

from __future__ import annotations

import datetime
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from django.contrib.postgres.functions import RandomUUID, TransactionNow
from django.db import connection, models
from django.db.models import Case, Count, F, Func, Q, Value, When
from django.db.models.functions import Coalesce, Lower, Now, Random, Upper
from django.test.utils import CaptureQueriesContext

from pgobserve.cohorts.reconstruct import OldRows, Past
from pgobserve.outbox.since import entries_since
from pgobserve.sql.full_query import one_snapshot
from pgobserve.sql.model_tables import labels_of
from pgobserve.wire import ALONE
from tests.bookshelf.models import Book, Ebook
from tests.integration.outbox.conftest import execute, install
from tests.project import shapes
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.models import Model, QuerySet


@contextmanager
def made(*models: type[Model]) -> Iterator[None]:
    """Make tables whose triggers write to the outbox."""
    with connection.schema_editor() as editor:
        for each in models:
            editor.create_model(each)
    try:
        install(*models)
        yield
    finally:
        with connection.schema_editor() as editor:
            for each in reversed(models):
                editor.delete_model(each)
        execute("DROP SCHEMA IF EXISTS pgobserve CASCADE")


def past(queryset: QuerySet[Any], write: Callable[[], object]) -> Past | None:
    """Return what became of a list's rows while something was written."""
    table = queryset.model._meta.db_table
    with one_snapshot(connection) as seen:
        pass
    write()
    with one_snapshot(connection):
        entries = entries_since(seen, labels_of(table), connection, ALONE)
        assert entries is not None
        return OldRows(queryset).past(entries, connection)


@pytest.fixture
def items(transactional_db: None) -> Iterator[list[Item]]:
    """Rows of rank 0 to 5, whose table writes to the outbox."""
    install(Item)
    yield [Item.objects.create(id=n, name="n", rank=n) for n in range(6)]
    execute("DROP SCHEMA IF EXISTS pgobserve CASCADE")


HIGH = Item.objects.filter(rank__gte=3)


def test_had(items: list[Item]) -> None:
    """Rows that were written and were on the list before are told from those that were not."""

    def write() -> None:
        Item.objects.filter(pk=1).update(rank=9)
        Item.objects.filter(pk=3).update(rank=0)
        Item.objects.filter(pk=4).delete()
        Item.objects.create(id=7, rank=9)

    assert past(HIGH, write) == Past(frozenset({1, 3, 4, 7}), frozenset({3, 4}), frozenset({1, 7}))


def test_the_first_change_counts(items: list[Item]) -> None:
    """How a row was before the first of several changes, in whatever transactions, is what counts."""

    def write() -> None:
        for rank in (0, 9, 0):
            Item.objects.filter(pk=3).update(rank=rank)
            Item.objects.filter(pk=1).update(rank=rank)

    assert past(HIGH, write) == Past(frozenset({1, 3}), frozenset({3}), frozenset({1}))


def test_nothing_was_written(items: list[Item]) -> None:
    """Without changes nothing is asked."""
    with one_snapshot(connection), CaptureQueriesContext(connection) as queries:
        assert OldRows(HIGH).past((), connection) == Past(frozenset(), frozenset(), frozenset())
    assert not queries.captured_queries


def test_whole_table(items: list[Item]) -> None:
    """TRUNCATE does not say which rows there were."""
    assert past(HIGH, lambda: execute("TRUNCATE project_item CASCADE")) is None


def test_nothing_but_images_is_read(items: list[Item]) -> None:
    """The list's SQL reads the images in place of the table."""
    with CaptureQueriesContext(connection) as queries:
        assert past(HIGH, lambda: Item.objects.filter(pk=3).update(rank=0)) is not None
    (query,) = (q["sql"] for q in queries if q["sql"].startswith("WITH"))
    plan = "\n".join(row[0] for row in execute(f"EXPLAIN {query.replace('%', '%%')}"))

    assert "json_populate_record" in plan
    assert "project_item_pkey" not in plan
    assert " on project_item" not in plan


def test_order_and_relations_do_not_matter(items: list[Item]) -> None:
    """What only orders the list, or is fetched along with it, is not read."""
    queryset = (
        HIGH.order_by("membership__user", "-rank").prefetch_related("membership_set").distinct()
    )
    with CaptureQueriesContext(connection) as queries:
        past(queryset, lambda: Item.objects.filter(pk=3).update(rank=0))

    assert not any('"project_membership"' in query["sql"] for query in queries)


def test_conditions(items: list[Item]) -> None:
    """Whatever a queryset asks of a row is asked of the row as it was."""
    querysets = [
        Item.objects.filter(Q(name__icontains="N") & ~Q(rank=3) | Q(pk=5)),
        Item.objects.annotate(twice=F("rank") * 2).filter(twice__gt=6),
        Item.objects.alias(u=Upper("name")).filter(u="N", rank__in=[3, 4]).exclude(pk=4),
        Item.objects.annotate(w=Case(When(rank__lt=3, then=Value("l")), default=Value("h"))).filter(
            w="h"
        ),
        Item.objects.annotate(number=Count("pk")).filter(number=1),
        Item.objects.all(),
        Item.objects.none(),
    ]
    expected = [set(each.values_list("pk", flat=True)) for each in querysets]

    for queryset, on_list in zip(querysets, expected, strict=True):
        assert OldRows(queryset).decides_alone
        found = past(queryset, lambda: Item.objects.update(rank=F("rank") + 100))
        Item.objects.update(rank=F("rank") - 100)

        assert found is not None
        assert found.had == on_list


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (shapes.UuidKey, [UUID(int=n) for n in (1, 2)]),
        (shapes.TextKey, ['a"b', "%s\\ '"]),
        (shapes.DateKey, [datetime.date(2020, 1, 1), datetime.date(9999, 12, 31)]),
        (
            shapes.MomentKey,
            [datetime.datetime(2020, 1, n, 12, 0, 0, 1, tzinfo=datetime.UTC) for n in (1, 2)],
        ),
        (shapes.TimeKey, [datetime.time(1, 2, 3), datetime.time(23, 59, 59, 999999)]),
        (shapes.AmountKey, [Decimal("1.50"), Decimal("-2.00")]),
        (shapes.PairKey, [("a", 1), ("a", 2)]),
        (shapes.MixedCase, [1, 2]),
        (shapes.Computed, [1, 2]),
    ],
)
def test_keys_of_every_type(transactional_db: None, model: Any, values: list[Any]) -> None:
    """Keys are what they are for the ORM, whatever the type and the name of their columns."""
    with made(model):
        for value in values:
            model.objects.create(pk=value, name="a")
        queryset = model.objects.filter(name="a")

        assert OldRows(queryset).decides_alone
        assert past(queryset, lambda: model.objects.update(name="b")) == Past(
            frozenset(values), frozenset(values), frozenset()
        )


def test_columns_of_every_type(transactional_db: None) -> None:
    """JSON and nulls are read as they were."""
    with made(shapes.Wide):
        shapes.Wide.objects.create(id=1, facts={"a": [1, {"b": None}]})
        shapes.Wide.objects.create(id=2, facts=None)
        by_value = shapes.Wide.objects.filter(facts__a__1__b=None, facts__a__0=1)
        by_null = shapes.Wide.objects.filter(facts__isnull=True)

        def write() -> None:
            shapes.Wide.objects.update(shown="x")

        assert (past(by_value, write) or Past(*[frozenset()] * 3)).had == {1}
        shapes.Wide.objects.update(shown="")
        assert (past(by_null, write) or Past(*[frozenset()] * 3)).had == {2}


class Shout(models.Transform):
    lookup_name = "shout"
    function = "UPPER"


@pytest.mark.parametrize(
    "queryset",
    [
        Item.objects.filter(name=Lower("name")),
        Item.objects.filter(rank__gt=F("id") + 1),
        Item.objects.annotate(c=Coalesce("name", Value(""))),
        Item.objects.order_by(Now()),
    ],
)
def test_lasting(queryset: Any) -> None:
    """What looks at nothing but the row holds at any time."""
    assert OldRows(queryset).decides_alone


@pytest.mark.parametrize(
    "queryset",
    [
        Item.objects.alias(now=Now()).filter(now__year=2020),
        Item.objects.alias(chance=Random()).filter(chance__gt=0.5),
        Item.objects.annotate(a=Coalesce(TransactionNow(), TransactionNow())),
        Item.objects.annotate(a=RandomUUID()),
        Item.objects.annotate(
            a=Func(function="pg_backend_pid", output_field=models.IntegerField())
        ),
        Item.objects.annotate(a=Lower("name", function="current_setting")),
        Item.objects.annotate(a=Shout("name")),
        Item.objects.annotate(a=models.expressions.RawSQL("random()", ())),
        Item.objects.extra(where=["random() > 0.5"]),
        Item.objects.filter(membership__user="u"),
        Item.objects.filter(pk__in=Item.objects.filter(rank=1)),
        Item.objects.annotate(number=Count("membership")),
        Ebook.objects.all(),
        Book.objects.filter(related__title="x"),
        shapes.Quoted.objects.all(),
        shapes.Elsewhere.objects.all(),
    ],
)
def test_not_decided_by_the_row_alone(queryset: Any) -> None:
    """Where the clock, chance, a setting or another row decides, nothing is reconstructed."""
    assert not OldRows(queryset).decides_alone


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE project_item ENABLE ROW LEVEL SECURITY",
        "CREATE TABLE child () INHERITS (project_item)",
    ],
)
def test_tables_that_are_more_than_rows(items: list[Item], statement: str) -> None:
    """Policies hide rows, and other tables add some: nothing is reconstructed."""
    execute(statement)
    try:
        assert past(HIGH, lambda: Item.objects.filter(pk=3).update(rank=0)) is None
    finally:
        execute("DROP TABLE IF EXISTS child")
        execute("ANALYZE project_item")  # which notes that it has no child any more
        execute("ALTER TABLE project_item DISABLE ROW LEVEL SECURITY")


def test_images_that_can_not_be_read(items: list[Item]) -> None:
    """What does not fit into the table any more is not guessed at, and the transaction goes on."""
    execute("ALTER TABLE project_item ALTER name TYPE text")
    try:
        with one_snapshot(connection) as seen:
            pass
        Item.objects.filter(pk=3).update(name="not a number")
        Item.objects.filter(pk=3).update(name="5")
        Item.objects.exclude(pk=3).delete()
        execute("ALTER TABLE project_item ALTER name TYPE integer USING 1")
        with one_snapshot(connection):
            entries = entries_since(seen, ["project.item"], connection, ALONE)
            assert entries is not None
            assert OldRows(HIGH).past(entries, connection) is None
            assert execute("SELECT 1") == [(1,)]
    finally:
        execute("ALTER TABLE project_item ALTER name TYPE varchar(200)")
