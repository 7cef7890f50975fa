"""A key is read by its text, whatever the settings of the session that wrote it."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.db import connection

from pgobserve.sql.columns import forget, type_of
from pgobserve.sql.full_query import FullQuery, one_snapshot
from pgobserve.sql.key_sql import written_keys
from pgobserve.sql.keyed_query import KeyedQuery, fetch_many
from pgobserve.sql.keys import arrays, key_fields, key_of, shown
from tests.project import keys as more
from tests.project import shapes
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgobserve.sql.keys import Model
    from tests.integration.conftest import Writer

UTC = datetime.UTC
EAST = datetime.timezone(datetime.timedelta(hours=5, minutes=45))


CODE = uuid.UUID(int=2**128 - 1)
MOMENTS = [
    datetime.datetime(2024, 7, 1, 12, tzinfo=UTC),
    datetime.datetime(2024, 7, 1, 12, 0, 0, 123456, tzinfo=EAST),
    datetime.datetime(1900, 1, 1, tzinfo=UTC),
    datetime.datetime(1, 1, 2, tzinfo=UTC),
    datetime.datetime(9999, 12, 30, tzinfo=UTC),
]

CASES: list[tuple[Model, list[Any]]] = [
    (shapes.SmallKey, [0, 1, -1, 2**31 - 1, -(2**31)]),
    (more.TinyKey, [0, 2**15 - 1, -(2**15)]),
    (Item, [1, 2**63 - 1, -(2**63)]),
    (more.ItemKey, [1, 2**63 - 1]),
    (shapes.UuidKey, [uuid.UUID(int=0), CODE]),
    (
        shapes.TextKey,
        ["", " ", "é\U0001f600", "\"'\\", "%s %% {}", "\x01\n\t\x7f", "\u2028", "NULL"],
    ),
    (more.CodeKey, ["a", "A", " a ", "0123456789", "{a,b}", '"', "\\"]),
    (shapes.DateKey, [datetime.date(2024, 2, 29), datetime.date.max, datetime.date.min]),
    (shapes.MomentKey, MOMENTS),
    (shapes.TimeKey, [datetime.time(0), datetime.time(23, 59, 59, 999999)]),
    (shapes.AmountKey, [Decimal("1.50"), Decimal("-0.01"), Decimal(0), Decimal("9999999999.99")]),
    (more.AddressKey, ["127.0.0.1", "::1", "2001:db8::ff00:42:8329"]),
    (more.FloatKey, [0.1, -1e-300, 1e300, 3.0, 5e-324]),
    (more.SpanKey, [datetime.timedelta(days=-3, seconds=5, microseconds=7), datetime.timedelta(0)]),
    (shapes.PairKey, [("a,b", 1), ('"\\', -1), ("", 0)]),
    (
        more.TripleKey,
        [(MOMENTS[1], Decimal("1.50"), CODE), (MOMENTS[2], Decimal(-2), uuid.UUID(int=1))],
    ),
]


@pytest.fixture
def table(transactional_db: None) -> Iterator[Callable[[Model], None]]:
    """Return a function that makes a model's table."""
    made: list[Model] = []

    def make(model: Model) -> None:
        if not model._meta.managed:
            with connection.schema_editor() as editor:
                editor.create_model(model)
            made.append(model)
            # An earlier test may have altered a table of this name.
            forget(model._meta.db_table, connection.alias)

    yield make
    for model in made:
        with connection.schema_editor() as editor:
            editor.delete_model(model)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu"])
@pytest.mark.parametrize(("model", "keys"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_round_trip(
    table: Callable[[Model], None], model: Model, keys: list[Any], zone: str
) -> None:
    """A row is read by its identity, which does not depend on the session, nor on how the key is given."""
    table(model)
    model._default_manager.bulk_create([model(pk=key) for key in keys])
    given = [key_of(model(pk=key), connection) for key in keys]
    statement = KeyedQuery(model._default_manager.all(), connection)
    with connection.cursor() as cursor:
        cursor.execute(f"SET TIME ZONE '{zone}'; SET extra_float_digits = 0")
        _, found = statement.fetch(given, connection)
        # Not RESET: the server's zone may differ from the connection's, which Django has set.
        zone = connection.timezone_name
        cursor.execute(f"SET TIME ZONE '{zone}'; RESET extra_float_digits")
    _, again = statement.fetch([*found], connection)

    assert len(found) == len(keys)
    assert found.keys() == again.keys()
    assert {each.pk for each in again.values()} == {*keys}
    assert {written_keys(model, [key], connection).get(key, key) for key in given} == {*found}


@pytest.mark.parametrize(
    ("model", "keys"),
    [case for case in CASES if case[0] is not Item],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_one_query_by_its_index(
    table: Callable[[Model], None], model: Model, keys: list[Any]
) -> None:
    """Rows are looked up by the primary key's index, so no cast hides the column."""
    table(model)
    statement = KeyedQuery(model._default_manager.all(), connection)
    given = [key_of(model(pk=key), connection) for key in keys]
    types = tuple(type_of(field, connection) for field in key_fields(model))
    connection.ensure_connection()
    raw = connection.connection
    raw.execute("SET enable_seqscan = off")
    with psycopg.Cursor(raw) as cursor:
        text = statement.at(types, connection).text
        plan = "\n".join(
            row[0] for row in cursor.execute(f"EXPLAIN {text}", arrays(given, len(types)))
        )
    raw.execute("RESET enable_seqscan")

    assert "Index" in plan or "Bitmap" in plan, plan
    assert "Seq Scan" not in plan, plan


@pytest.mark.parametrize(
    ("model", "there", "other"),
    [
        (more.CodeKey, "0123456789", "0123456789x"),
        (shapes.AmountKey, Decimal("1.50"), "1.499"),
        (shapes.AmountKey, Decimal("1.50"), "99999999999999.99"),
    ],
)
def test_key_that_does_not_fit(
    table: Callable[[Model], None], model: Model, there: Any, other: Any
) -> None:
    """A key that is longer or finer than the column finds nothing; it is not cut to fit."""
    table(model)
    model._default_manager.create(pk=there)

    assert KeyedQuery(model._default_manager.all(), connection).fetch([other], connection)[1] == {}


def test_unknown_keys(transactional_db: None) -> None:
    """Texts that are no keys of a table are named, and the rows of the others are read."""
    item = Item.objects.create(name="x")
    bad = ["x", "", "9" * 30, "\0", "1.5"]
    found = fetch_many(
        [(KeyedQuery(Item.objects.all(), connection), [*bad, str(item.pk)])], connection
    )

    assert found.unknown == {*bad}
    assert found.instances == [{str(item.pk): item}]


def test_altered_column(table: Callable[[Model], None], writer: Writer) -> None:
    """A key's column that was widened, or has another type by now, is looked up in the catalog again."""
    table(shapes.SmallKey)
    statement = KeyedQuery(shapes.SmallKey._default_manager.all(), connection)
    whole = FullQuery(shapes.SmallKey._default_manager.all(), connection)
    assert statement.fetch(["1"], connection)[1] == {}
    for kind, key in [("bigint", "3000000000"), ("timestamptz USING now()", "infinity")]:
        writer.rows(f"ALTER TABLE project_smallkey ALTER id TYPE {kind}")
        writer.rows("DELETE FROM project_smallkey")
        writer.rows(f"INSERT INTO project_smallkey (id, name) VALUES ('{key}', '')")
        if key != "infinity":
            assert statement.fetch([key], connection)[1].keys() == {key}
            with one_snapshot(connection):
                assert whole.read(connection).keys() == {key}
    writer.rows("UPDATE project_smallkey SET id = '2024-01-01 00:00+02'")
    with one_snapshot(connection):
        assert whole.read(connection).keys() == {"2023-12-31 22:00:00+00"}
    assert [*statement.fetch(["2024-01-01 00:00+02"], connection)[1]] == ["2023-12-31 22:00:00+00"]


def test_no_keys(transactional_db: None) -> None:
    """To read by no keys finds nothing."""
    snapshot, found = KeyedQuery(Item.objects.all(), connection).fetch([], connection)

    assert found == {}
    assert snapshot.xmax > 0


def test_shown_while_its_table_must_be_read_again(transactional_db: None) -> None:
    """A key is shown by the columns as they were last read; a text that PostgreSQL never writes, as it is."""
    type_of(Item._meta.pk, connection)
    assert forget(Item._meta.db_table, connection.alias)

    assert shown(Item, "25", connection.alias) == 25
    assert shown(Item, str(2**63 - 1), connection.alias) == 2**63 - 1
    assert shown(Item, "025", connection.alias) == "025"
