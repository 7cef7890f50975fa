"""A key comes back from JSON as the ORM has it, for every type that PostgreSQL writes."""

from __future__ import annotations

import datetime
import json
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.db import connection
from django.db.models import Max

from pgobserve.sql.keyed_query import KeyedQuery
from pgobserve.sql.keys import (
    array_types,
    as_parameters,
    key_fields,
    key_of,
    to_key,
)
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

    yield make
    for model in made:
        with connection.schema_editor() as editor:
            editor.delete_model(model)


def told(writer: Writer, model: Model) -> list[Any]:
    """Return the keys as a payload has them: as ``to_json`` writes the columns."""
    quote = connection.ops.quote_name
    columns = [f"to_json({quote(field.column)})" for field in key_fields(model)]
    shown = columns[0] if len(columns) == 1 else f"json_build_array({', '.join(columns)})"
    texts = writer.rows(f"SELECT ({shown})::text FROM {quote(model._meta.db_table)}")
    return [json.loads(text, parse_float=Decimal) for (text,) in texts]


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "Europe/Amsterdam"])
@pytest.mark.parametrize(("model", "keys"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_round_trip(
    table: Callable[[Model], None], writer: Writer, model: Model, keys: list[Any], zone: str
) -> None:
    """A payload's key, whatever the writer's time zone, the instance's and the one to read by are one."""
    table(model)
    model._default_manager.bulk_create([model(pk=key) for key in keys])
    instances = list(model._default_manager.all())
    writer.rows(f"SET TIME ZONE '{zone}'")
    of_payload = {to_key(model, value) for value in told(writer, model)}

    assert of_payload == {key_of(instance) for instance in instances}
    assert len(of_payload) == len(keys)
    _, found = KeyedQuery(model._default_manager.all(), connection).fetch(
        list(of_payload), connection
    )
    assert {key: instance.pk for key, instance in found.items()} == {
        key_of(instance): instance.pk for instance in instances
    }
    assert found.keys() == of_payload


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
    params = as_parameters(model, [key_of(model(pk=key)) for key in keys], connection)
    connection.ensure_connection()
    raw = connection.connection
    raw.execute("SET enable_seqscan = off")
    types = array_types(model, connection)
    assert len(types) == len(params)
    with psycopg.Cursor(raw) as cursor:
        plan = "\n".join(row[0] for row in cursor.execute(f"EXPLAIN {statement.text}", params))
    raw.execute("RESET enable_seqscan")

    assert "Index" in plan or "Bitmap" in plan, plan
    assert "Seq Scan" not in plan, plan


@pytest.mark.parametrize(
    ("model", "there", "other"),
    [
        (more.CodeKey, "0123456789", "0123456789x"),
        (shapes.AmountKey, Decimal("1.50"), Decimal("1.499")),
        (shapes.AmountKey, Decimal("1.50"), Decimal("99999999999999.99")),
    ],
)
def test_key_that_does_not_fit(
    table: Callable[[Model], None], model: Model, there: Any, other: Any
) -> None:
    """A key that is longer or finer than the column finds nothing; it is not cut to fit."""
    table(model)
    model._default_manager.create(pk=there)

    assert KeyedQuery(model._default_manager.all(), connection).fetch([other], connection)[1] == {}


def test_no_keys(transactional_db: None) -> None:
    """To read by no keys finds nothing."""
    snapshot, found = KeyedQuery(Item.objects.all(), connection).fetch([], connection)

    assert found == {}
    assert snapshot.xmax > 0


def test_serial(transactional_db: None) -> None:
    """A key that the database made is the instance's."""
    item = Item.objects.create(name="x")

    assert key_of(item) == item.pk == Item.objects.aggregate(top=Max("pk"))["top"]
