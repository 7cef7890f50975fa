"""A queryset read as a whole, in one snapshot."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from django.db import OperationalError, connection, connections
from django.db.models import Count, Q
from django.test.utils import CaptureQueriesContext

from pgobserve.errors import ConfigurationError
from pgobserve.sql.full_query import FullQuery, one_snapshot, read_many
from tests.project.models import Item, Membership

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def items(transactional_db: None) -> list[Item]:
    """Three rows."""
    return [Item.objects.create(name=name, rank=rank) for rank, name in enumerate("abc")]


def read(queryset: Any, limit: int | None = None) -> list[Any]:
    """Return the keys of a queryset's rows."""
    with one_snapshot(connection):
        return [row.pk for row in FullQuery(queryset, connection).read(connection, limit).values()]


def elsewhere(write: Callable[[], object]) -> None:
    """Write over another connection, and return when it is committed."""

    def work() -> None:
        write()
        connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_order(items: list[Item]) -> None:
    """Rows come in the queryset's order."""
    assert read(Item.objects.order_by("-rank")) == [item.pk for item in reversed(items)]


def test_limit(items: list[Item]) -> None:
    """No more rows are read than asked for, and the first ones."""
    assert read(Item.objects.order_by("-rank"), 2) == [items[2].pk, items[1].pk]


def test_each_row_once(items: list[Item]) -> None:
    """A row that a join finds twice is on the list once."""
    for user in "xy":
        Membership.objects.create(item=items[0], user=user)
    queryset = Item.objects.filter(membership__user__in="xy")

    assert read(queryset) == [items[0].pk]
    with one_snapshot(connection):
        assert FullQuery(queryset, connection).count(connection) == 1


@pytest.mark.parametrize(
    "queryset",
    [
        lambda: Item.objects.all(),
        lambda: Item.objects.filter(Q(rank=1) | Q(name__contains="%s 100%")),
        lambda: Item.objects.annotate(number=Count("membership")).filter(number=0),
        lambda: Item.objects.none(),
    ],
)
def test_finds_what_django_finds(items: list[Item], queryset: Any) -> None:
    """Rows and their number are those of the ORM."""
    Item.objects.create(name="of %s 100% sure", rank=7)
    wanted = queryset()

    assert sorted(read(wanted)) == sorted(item.pk for item in wanted)
    with one_snapshot(connection):
        assert FullQuery(wanted, connection).count(connection) == len(wanted)


def read_together(*querysets: Any, limit: int = 10) -> list[list[Any] | None]:
    """Return the keys of the rows of several querysets, read together."""
    wholes = [FullQuery(queryset, connection) for queryset in querysets]
    with one_snapshot(connection):
        found = read_many(wholes, connection, limit)
    return [None if rows is None else [row.pk for row in rows.values()] for rows in found]


@pytest.mark.parametrize("column", ["rank", "name"])
def test_many_by_one_query(items: list[Item], column: str) -> None:
    """Querysets that differ in a number or a text are read by one query, each in its own order."""
    more = [Item.objects.create(name=name, rank=rank) for rank, name in enumerate("abc")]
    values: dict[str, list[Any]] = {"rank": [2, 0, 7], "name": ["c", "a", "100%"]}
    wanted = [Item.objects.filter(**{column: v}).order_by("-id") for v in values[column]]
    with CaptureQueriesContext(connection) as queries:
        found = read_together(*wanted)

    assert found == [[more[2].pk, items[2].pk], [more[0].pk, items[0].pk], []]
    assert len([q for q in queries if "project_item" in q["sql"]]) == 1


def test_many_of_several_shapes(items: list[Item]) -> None:
    """Querysets that have nothing in common are read one after the other."""
    ranked = Item.objects.filter(rank__gte=1).order_by("-rank")

    assert read_together(ranked, Item.objects.filter(name="a"), ranked) == [
        [items[2].pk, items[1].pk],
        [items[0].pk],
        [items[2].pk, items[1].pk],
    ]


def test_too_many_among_many(items: list[Item]) -> None:
    """A queryset that finds more rows than it may is left out, as if it had not been read."""
    few, many = Item.objects.filter(rank__gte=2), Item.objects.filter(rank__gte=0)

    assert read_together(few, many, limit=2) == [[items[2].pk], None]


def test_one_snapshot(items: list[Item]) -> None:
    """What is committed meanwhile is not seen, in any query, nor by the snapshot."""
    with one_snapshot(connection) as snapshot:
        elsewhere(lambda: Item.objects.update(name="new"))
        found = FullQuery(Item.objects.all(), connection).read(connection)
        xid = _xid_of(items[0])
    assert {item.name for item in found.values()} == {"a", "b", "c"}  # type: ignore[attr-defined]
    assert snapshot.sees(xid)
    assert not snapshot.sees(_xid_of(items[0]))


def _xid_of(item: Item) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT xmin::text::bigint FROM project_item WHERE id = %s", [item.pk])
        return int(cursor.fetchone()[0])


def test_lost_connection_stays_lost(items: list[Item]) -> None:
    """A connection that ended within is not replaced: it is seen to have ended, not the query."""

    pid = connection.connection.info.backend_pid

    def end() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

    def read_and_end() -> None:
        with one_snapshot(connection):
            elsewhere(end)
            FullQuery(Item.objects.all(), connection).read(connection)

    with pytest.raises(OperationalError):
        read_and_end()

    assert connection.connection is None


def test_related_rows_in_one_query(items: list[Item]) -> None:
    """Prefetched rows are read once for all."""
    queryset = Item.objects.prefetch_related("membership_set")
    with CaptureQueriesContext(connection) as queries, one_snapshot(connection):
        found = FullQuery(queryset, connection).read(connection)
        assert [list(item.membership_set.all()) for item in found.values()] == [[]] * 3  # type: ignore[attr-defined]

    assert sum("membership" in each["sql"] for each in queries) == 1


def test_text_identifies(items: list[Item]) -> None:
    """Equal querysets have equal texts; another order or value makes another list."""

    def text(queryset: Any) -> str:
        return FullQuery(queryset, connection).text

    assert text(Item.objects.filter(rank=1)) == text(Item.objects.filter(rank=1))
    assert text(Item.objects.filter(rank=1)) != text(Item.objects.filter(rank=2))
    assert text(Item.objects.order_by("rank")) != text(Item.objects.order_by("name"))


@pytest.mark.parametrize(
    "queryset",
    [
        lambda: Item.objects.all()[:2],
        lambda: Item.objects.values("id"),
        lambda: Item.objects.filter(rank=1).union(Item.objects.filter(rank=2)),
        lambda: Item.objects.order_by("rank").distinct("rank"),
    ],
)
def test_refused(transactional_db: None, queryset: Any) -> None:
    """What can't be watched row by row can't be watched as a list."""
    with pytest.raises(ConfigurationError):
        FullQuery(queryset(), connection)
