"""Tables of every shape send the right label, and keys that can be read back."""

from __future__ import annotations

import datetime
import json
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import Group, User
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgobserve.wire import MAX_PAYLOAD_BYTES
from tests.integration.triggers.conftest import by_each_transport
from tests.project import shapes
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.models import Model

    from tests.integration.triggers.conftest import Ear

TEXTS = [
    "plain",
    "",
    'it\'s "quoted"',
    "back\\slash",
    "a,b;c",
    "{braces} [brackets]",
    "line\nfeed\r\ttab \x01\x7f",
    "100 % %s %%",
    "größer 日本語 🙂",
    "x" * 250,
    "é" * 900,
    "$pgobserve$ || pg_sleep(1) --",
    "null",
    "\u2028",
]
UUIDS = [uuid.UUID(int=0), uuid.UUID("12345678-1234-5678-1234-567812345678")]


@by_each_transport
@pytest.mark.parametrize(
    ("model", "keys"),
    [
        (shapes.SmallKey, [1, -5, 2147483647]),
        (Item, [1, -(2**63), 2**63 - 1]),
        (shapes.UuidKey, UUIDS),
        (shapes.TextKey, TEXTS),
        (shapes.DateKey, [datetime.date(1, 1, 1), datetime.date(2026, 11, 24)]),
        (
            shapes.MomentKey,
            [
                datetime.datetime(2026, 11, 24, 8, 0, 0, 123456, datetime.UTC),
                datetime.datetime(
                    1950, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=9))
                ),
            ],
        ),
        (shapes.TimeKey, [datetime.time(0), datetime.time(23, 59, 59, 999999)]),
        (shapes.AmountKey, [Decimal("0.10"), Decimal("-9999999999.99")]),
        (shapes.MixedCase, [1, 2]),
        (shapes.Quoted, [1, 2]),
        (shapes.LongName, [1, 2]),
        (shapes.Computed, [1, 2]),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_key(
    ear: Ear,
    make: Callable[..., None],
    install: Callable[..., Any],
    model: type[Model],
    keys: list[Any],
) -> None:
    """Inserted, updated and deleted rows send keys that the field reads back."""
    if not model._meta.managed:
        make(model)
    install(model)

    model.objects.bulk_create([model(pk=key, name="before") for key in keys])
    model.objects.update(name="after")
    model.objects.update(name="after")
    model.objects.all().delete()

    told = [json.loads(text, parse_float=Decimal) for text in ear.texts()]
    read = [
        (each["t"], each["o"], {model._meta.pk.to_python(key) for key in each["k"]})
        for each in told
    ]
    label = model._meta.label_lower
    assert read == [(label, operation, set(keys)) for operation in "IUD"]


@by_each_transport
def test_composite_key(ear: Ear, make: Callable[..., None], install: Callable[..., Any]) -> None:
    """A composite key is sent as a list; a changed part makes it another key."""
    make(shapes.PairKey)
    install(shapes.PairKey)

    shapes.PairKey.objects.create(left='a"b', right=1)
    shapes.PairKey.objects.create(left="", right=2)
    shapes.PairKey.objects.filter(right=2).update(name="x")
    shapes.PairKey.objects.filter(right=2).update(right=3)
    shapes.PairKey.objects.filter(right=1).delete()

    label = "project.pairkey"
    assert ear.changes() == [
        (label, "I", [['a"b', 1]]),
        (label, "I", [["", 2]]),
        (label, "U", [["", 2]]),
        (label, "U", [["", 2], ["", 3]]),
        (label, "D", [['a"b', 1]]),
    ]


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    keys=st.sets(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=120),
        min_size=1,
        max_size=200,
    )
)
def test_any_text_key(ear_on_text: Ear, keys: set[str]) -> None:
    """Whatever the keys, all are sent, each once, in payloads that PostgreSQL accepts."""
    shapes.TextKey.objects.bulk_create([shapes.TextKey(pk=key) for key in keys])
    shapes.TextKey.objects.all().delete()

    texts = ear_on_text.texts()

    assert max(len(text.encode()) for text in texts) <= MAX_PAYLOAD_BYTES
    told = [json.loads(text) for text in texts]
    for operation in "ID":
        heard = [key for each in told if each["o"] == operation for key in each["k"]]
        assert sorted(heard) == sorted(keys)


@pytest.fixture
def ear_on_text(make: Callable[..., None], install: Callable[..., Any], ear: Ear) -> Ear:
    """Listen to a table with text keys."""
    make(shapes.TextKey)
    install(shapes.TextKey)
    return ear


@by_each_transport
def test_long_names_do_not_collide(
    ear: Ear, make: Callable[..., None], install: Callable[..., Any]
) -> None:
    """Two tables whose 63-byte names differ in the last letter have functions of their own."""
    make(shapes.LongName, shapes.LongTwin)
    install(shapes.LongName, shapes.LongTwin)

    shapes.LongName.objects.create(pk=1)
    shapes.LongTwin.objects.create(pk=2)

    assert ear.changes() == [("project.longname", "I", [1]), ("project.longtwin", "I", [2])]


@by_each_transport
def test_another_schema(ear: Ear, run: Callable[..., Any], install: Callable[..., Any]) -> None:
    """A table of another schema is found by the name that carries quotes already."""
    run("CREATE SCHEMA elsewhere CREATE TABLE thing (id bigint PRIMARY KEY, name text)")
    try:
        (outcome,) = install(shapes.Elsewhere)
        shapes.Elsewhere.objects.create(pk=1)
    finally:
        run("DROP SCHEMA elsewhere CASCADE")

    assert outcome.table == "elsewhere.thing"
    assert ear.changes() == [("project.elsewhere", "I", [1])]


@by_each_transport
def test_proxy(ear: Ear, install: Callable[..., Any]) -> None:
    """A proxy model's changes have the label of the concrete model."""
    install(shapes.ItemProxy)

    item = shapes.ItemProxy.objects.create(name="a")

    assert ear.changes() == [("project.item", "I", [item.pk])]


@by_each_transport
def test_two_models_on_one_table(ear: Ear, install: Callable[..., Any]) -> None:
    """An unmanaged twin shares the triggers of the model that Django manages."""
    outcomes = install(shapes.ItemTwin, Item)

    item = Item.objects.create(name="a")

    assert [outcome.title for outcome in outcomes] == ["project.Item"]
    assert ear.changes() == [("project.item", "I", [item.pk])]


@by_each_transport
def test_multi_table_inheritance(
    ear: Ear, make: Callable[..., None], install: Callable[..., Any]
) -> None:
    """A child's row is sent by each table that holds a part of it."""
    make(shapes.Place, shapes.Restaurant, shapes.Pizzeria)
    install(shapes.Pizzeria)

    shapes.Pizzeria.objects.create(pk=1, name="a", stars=2, ovens=3)
    shapes.Place.objects.update(name="b")
    shapes.Restaurant.objects.update(stars=4)
    shapes.Pizzeria.objects.update(ovens=5)

    assert ear.changes() == [
        ("project.place", "I", [1]),
        ("project.restaurant", "I", [1]),
        ("project.pizzeria", "I", [1]),
        ("project.place", "U", [1]),
        ("project.restaurant", "U", [1]),
        ("project.pizzeria", "U", [1]),
    ]


@by_each_transport
def test_many_to_many(ear: Ear, install: Callable[..., Any]) -> None:
    """An auto-created through table is a table like any other."""
    install(User.groups.through)
    user = User.objects.create_user("ada")
    group = Group.objects.create(name="a")

    user.groups.add(group)
    row = User.groups.through.objects.get()
    user.groups.clear()

    assert ear.changes() == [
        ("auth.user_groups", "I", [row.pk]),
        ("auth.user_groups", "D", [row.pk]),
    ]


@pytest.fixture
def raw(run: Callable[..., Any], clean: None) -> Iterator[Callable[[str], None]]:
    """Make the table of ``Raw`` with given columns."""

    def raw(columns: str) -> None:
        run(f"CREATE TABLE project_raw (id bigint PRIMARY KEY, {columns})")

    yield raw
    run("DROP TABLE IF EXISTS project_raw CASCADE")


@by_each_transport
@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("json", '{"a":1}', '{"a":2}'),
        ("point", "(1,2)", "(1,3)"),
        ("xml", "<a/>", "<b/>"),
        ("polygon", "((0,0),(1,1))", "((0,0),(2,2))"),
        ("jsonb", '{"a":1}', '{"a":2}'),
        ("text[]", "{a}", "{a,b}"),
        ("tsvector", "a", "b"),
        ("bytea", "\\x00", "\\x01"),
    ],
)
def test_column_without_equality(
    ear: Ear,
    run: Callable[..., Any],
    raw: Callable[[str], None],
    install: Callable[..., Any],
    kind: str,
    before: str,
    after: str,
) -> None:
    """Columns of types without equality can be updated, and are sent only if they change."""
    raw(f"value {kind}")
    install(shapes.Raw)
    try:
        run(f"INSERT INTO project_raw VALUES (1, %s::{kind})", before)
    except Exception as error:
        if "unsupported XML feature" not in str(error):
            raise
        pytest.skip("this PostgreSQL was built without XML")
    run("UPDATE project_raw SET value = value")
    run(f"UPDATE project_raw SET value = %s::{kind}", before)
    run(f"UPDATE project_raw SET value = %s::{kind}", after)

    assert ear.changes() == [("project.raw", "I", [1]), ("project.raw", "U", [1])]


@by_each_transport
def test_toasted_column(
    ear: Ear, run: Callable[..., Any], raw: Callable[[str], None], install: Callable[..., Any]
) -> None:
    """Values stored out of line are compared by what they hold."""
    raw("value text, other int")
    run("ALTER TABLE project_raw ALTER value SET STORAGE EXTERNAL")
    install(shapes.Raw)
    run("INSERT INTO project_raw VALUES (1, repeat('x', 100000), 0)")
    run("UPDATE project_raw SET value = repeat('x', 100000)")
    run("UPDATE project_raw SET value = repeat('x', 99999) || 'y'")

    assert ear.changes() == [("project.raw", "I", [1]), ("project.raw", "U", [1])]


@by_each_transport
def test_virtual_generated_column(
    ear: Ear, run: Callable[..., Any], raw: Callable[[str], None], install: Callable[..., Any]
) -> None:
    """A virtual generated column changes with what it is made of, and disturbs nothing."""
    ((version,),) = run("SHOW server_version_num")
    if int(version) < 180000:
        pytest.skip("virtual generated columns came with PostgreSQL 18")
    raw("a int, b int GENERATED ALWAYS AS (a * 2) VIRTUAL")
    install(shapes.Raw)
    run("INSERT INTO project_raw VALUES (1, 1)")
    run("UPDATE project_raw SET a = 1")
    run("UPDATE project_raw SET a = 2")

    assert ear.changes() == [("project.raw", "I", [1]), ("project.raw", "U", [1])]


@by_each_transport
def test_columns_named_like_ours(
    ear: Ear, run: Callable[..., Any], raw: Callable[[str], None], install: Callable[..., Any]
) -> None:
    """Columns named like the variables and aliases of the trigger are no trouble."""
    raw('keys int, longest int, body text, head text, n int, o int, k int, s int, p int, "N" int')
    install(shapes.Raw)
    run("INSERT INTO project_raw (id, n, k) VALUES (1, 1, 1)")
    run("UPDATE project_raw SET n = 2, k = 2")
    run("DELETE FROM project_raw")

    assert [each[1:] for each in ear.changes()] == [("I", [1]), ("U", [1]), ("D", [1])]


@by_each_transport
def test_dropped_column(
    ear: Ear, run: Callable[..., Any], raw: Callable[[str], None], install: Callable[..., Any]
) -> None:
    """A column added or dropped under the triggers is no trouble, within one session."""
    raw("a int, b int")
    install(shapes.Raw)
    run("INSERT INTO project_raw VALUES (1, 1, 1)")
    run("UPDATE project_raw SET a = 2")
    run("ALTER TABLE project_raw DROP a")
    run("UPDATE project_raw SET b = 2")
    run("ALTER TABLE project_raw ADD c int DEFAULT 5")
    run("UPDATE project_raw SET c = 5")
    run("UPDATE project_raw SET c = 6")

    assert [each[1:] for each in ear.changes()] == [("I", [1]), ("U", [1]), ("U", [1]), ("U", [1])]
