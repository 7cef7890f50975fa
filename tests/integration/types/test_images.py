"""A row image is what the row was: for each type, whatever the writer's settings."""

from __future__ import annotations

import ast
import contextlib
import datetime
import json
from collections import defaultdict
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from django.apps.registry import Apps
from django.db import DatabaseError, connection, models, transaction

from pgobserve.outbox import event, outbox_page
from pgobserve.triggers import installer
from pgobserve.triggers.registry import Registration
from pgobserve.triggers.server import catalog
from pgobserve.triggers.trigger_statements import install_statements
from tests.integration.conftest import parameters
from tests.integration.outbox.conftest import Reading, drop_outbox
from tests.integration.types.samples import NO_KEYS, SAMPLES, Raw, available

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.integration.conftest import Writer
    from tests.integration.types.samples import Sample

    Pairs = dict[tuple[str, int], list[Any]]

#: Settings that the texts of values obey; the last writer has what a server has by default.
ODD: Final = """
SET DateStyle = 'German'; SET IntervalStyle = 'iso_8601'; SET extra_float_digits = -15;
SET bytea_output = 'escape'; SET TimeZone = 'Asia/Kathmandu'; SET lc_monetary = 'C.utf8';
SET lc_numeric = 'C.utf8'; SET search_path = ''; SET quote_all_identifiers = on;
SET xmloption = 'document'; SET standard_conforming_strings = off; SET client_encoding = 'LATIN1'
"""
ODDER: Final = """
SET DateStyle = 'SQL, DMY'; SET IntervalStyle = 'sql_standard'; SET extra_float_digits = 0;
SET TimeZone = 'America/New_York'; SET search_path = pg_catalog, samples
"""
WRITERS: Final = (ODD, ODDER)
UNREADABLE: Final = "unreadable"


@pytest.fixture
def samples(transactional_db: None, writer: Writer) -> Iterator[list[Sample]]:
    """The samples of the types that this server has, in a schema of their own."""
    writer.rows("DROP SCHEMA IF EXISTS samples CASCADE")
    writer.rows("CREATE SCHEMA samples")
    writer.rows("SET search_path TO samples, public")
    yield available(writer.rows, (*SAMPLES, *NO_KEYS))
    writer.rows("DROP SCHEMA samples CASCADE")
    drop_outbox()


#: Types of the server that have no values of users.
NO_VALUES: Final = (
    *("gtsvector", "pg_brin_bloom_summary", "pg_brin_minmax_multi_summary", "pg_dependencies"),
    *("pg_mcv_list", "pg_ndistinct", "pg_node_tree"),
)


def test_every_type_has_a_sample(samples: list[Sample], writer: Writer) -> None:
    """A base or range type that the server gets has samples."""
    query = (
        "SELECT oid::regtype::text, typname FROM pg_type WHERE typtype IN ('b', 'r', 'm') "
        "AND typnamespace = 'pg_catalog'::regnamespace AND (typcategory <> 'A' OR typlen = -1 AND typelem <> 0 "
        "AND typname !~ '^_')"
    )
    columns = [each.column.partition(" COLLATE")[0] for each in (*SAMPLES, *NO_KEYS)]
    listed = set()
    for column in columns:
        ((name,),) = writer.rows("SELECT to_regtype(%s)::text", column)
        listed.add(name)
    missing = [
        title for title, name in writer.rows(query) if title not in listed and name not in NO_VALUES
    ]
    assert missing == []


def model_of(sample: Sample, *, key: bool = False) -> type[models.Model]:
    """Return a model with a column of the sample's type, or such a key, in a registry of its own."""
    name = f"{sample.name}_{'key' if key else 'image'}"
    meta = {"app_label": "types", "apps": Apps(), "db_table": f'samples"."{name}'}
    fields: dict[str, Any] = {"id": models.IntegerField(primary_key=True), "value": sample.field()}
    if key:
        fields = {"id": Raw(sample.column, primary_key=True), "note": models.TextField()}
    attributes = {"__module__": __name__, "Meta": type("Meta", (), meta), **fields}
    return type(sample.name, (models.Model,), attributes)


def install_all(registrations: Iterable[Registration]) -> None:
    """Install triggers in one transaction."""
    given = {each.table: each for each in registrations}
    with transaction.atomic(), connection.cursor() as cursor:
        for name, table in catalog.relations(connection, given).items():
            for each in install_statements(given[name], table, always=False):
                cursor.execute(each)


def statements(sample: Sample, key: int) -> Iterator[str]:
    """Yield statements that give a row each of the sample's values in turn."""
    table, values = f"samples.{sample.name}_image", f"samples.{sample.name}_value"
    yield f"INSERT INTO {table} SELECT {key}, v.value FROM {values} v WHERE v.n = 0"
    for n in range(1, len(sample.values)):
        yield f"UPDATE {table} SET value = v.value FROM {values} v WHERE id = {key} AND v.n = {n}"


def value_of(row: models.Model | None) -> Any:
    """Return a row's value so that equal ones are equal: NaN, and what memory a buffer shows."""
    assert row is not None
    value = row.value  # type: ignore[attr-defined]
    return repr(bytes(value) if isinstance(value, memoryview) else value)


def refreshed(row: models.Model) -> Any:
    """Return the value of a row as ``refresh_from_db`` gives it."""
    try:
        row.refresh_from_db()
    except (DatabaseError, ValueError):
        return UNREADABLE
    return value_of(row)


def agree(seen: list[Any], expected: list[Any]) -> bool:
    """Return whether values are equal; an unreadable one is PostgreSQL's text."""
    return len(seen) == len(expected) and all(
        one == other or (other == UNREADABLE and isinstance(ast.literal_eval(one), str))
        for one, other in zip(chain(*seen), chain(*expected), strict=True)
    )


@pytest.fixture
def writers() -> Iterator[list[psycopg.Connection]]:
    """Sessions with all these settings."""
    with contextlib.ExitStack() as stack:
        connections = []
        for settings in WRITERS:
            each = psycopg.connect(**parameters(), autocommit=True)
            connections.append(stack.enter_context(contextlib.closing(each)))
            each.execute(settings)
        yield connections


def test_event_is_what_the_row_was(
    samples: list[Sample],
    writer: Writer,
    writers: list[psycopg.Connection],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What events have is what the ORM read at that moment, for each type and writer."""
    tables = {each.name: model_of(each) for each in samples}
    by_label = {each._meta.label_lower: each for each in tables.values()}
    monkeypatch.setattr(event, "model_of", by_label.get)
    for each in samples:
        values = ", ".join(f"({n}, {value})" for n, value in enumerate(each.values))
        writer.rows(f"CREATE TABLE {each.name}_image (id int PRIMARY KEY, value {each.column})")
        writer.rows(f"CREATE TABLE {each.name}_value (n int, value {each.column})")
        writer.rows(f"INSERT INTO {each.name}_value VALUES {values}")
    install_all(Registration(model=each, transport="outbox") for each in tables.values())
    reading = Reading()
    with contextlib.closing(reading.connection):
        expected: dict[str, list[Any]] = {}
        for each in samples:
            row = tables[each.name](pk=0)
            values: list[Any] = [None]
            for made in zip(*(statements(each, key) for key, _ in enumerate(writers)), strict=True):
                for other, statement in zip(writers, made, strict=True):
                    other.execute(statement)
                values.append(refreshed(row))
            expected[each.name] = [*pairwise([*values, None])]
            writers[0].execute(f"DELETE FROM samples.{each.name}_image")
        seen: Pairs = defaultdict(list)
        for found in reading.events(*by_label):
            assert isinstance(found, event.Event), found
            pair = tuple(row and value_of(row) for row in (found.old, found.new))
            seen[type(found.instance).__name__, found.instance.pk].append(pair)
    differing = [(key, pairs) for key, pairs in seen.items() if not agree(pairs, expected[key[0]])]
    assert len(seen) == len(samples) * len(writers)
    assert not differing, "\n".join(map(str, differing))


class Mixed(models.Model):
    """A table with columns whose names are those of variables in the functions."""

    images = models.TextField()
    at = Raw("json")
    settings = models.TextField()
    rows = models.TextField()

    class Meta:
        apps = Apps()
        app_label = "types"
        db_table = 'samples"."mixed'


@pytest.mark.parametrize("rows", [1, 3, 60])
def test_table_with_a_column_that_is_not_its_json(
    samples: list[Sample], writer: Writer, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """One column's JSON, a column that is dropped and one that is added don't matter to the others."""
    monkeypatch.setattr(event, "model_of", {"types.mixed": Mixed}.get)
    writer.rows(
        "CREATE TABLE mixed (id bigint PRIMARY KEY, images text, at json, settings tstzrange, rows text)"
    )
    installer.install(Registration(model=Mixed, transport="outbox"), using="default")
    with contextlib.closing((reading := Reading()).connection):
        writer.rows(
            "INSERT INTO mixed SELECT n, 'x', E'{\"a\": \"\\\\u0041\"}', '[2024-02-03 10:00+02,)', 'y' "
            "FROM generate_series(1, %s) n",
            rows,
        )
        writer.rows("ALTER TABLE mixed DROP COLUMN rows, ADD COLUMN rank int DEFAULT 7")
        writer.rows(ODD)
        writer.rows("UPDATE samples.mixed SET images = 'z'")
        events = reading.events("types.mixed")
    assert all(isinstance(each, event.Event) for each in events)
    assert len(events) == 2 * rows
    for each in events:
        assert isinstance(each, event.Event)
        row = each.instance
        assert isinstance(row, Mixed)
        assert row.get_deferred_fields() == ({"rows"} if each.old else set())
        assert (row.at, row.images) == ({"a": "A"}, "x" if each.old is None else "z")
        assert row.settings.lower == datetime.datetime(2024, 2, 3, 8, tzinfo=datetime.UTC)  # type: ignore[attr-defined]


class Virtual(models.Model):
    """A table with a column that PostgreSQL computes whenever it is read."""

    a = models.IntegerField()
    b = models.IntegerField()

    class Meta:
        apps = Apps()
        app_label = "types"
        db_table = 'samples"."virtual'


def test_virtual_columns(
    samples: list[Sample], writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a transition table lacks is computed; a condition on it is one on all columns."""
    if writer.connection.info.server_version < 180_000:
        pytest.skip("PostgreSQL 18 has the first virtual columns")
    monkeypatch.setattr(event, "model_of", {"types.virtual": Virtual}.get)
    writer.rows(
        "CREATE TABLE virtual (id int PRIMARY KEY, a int, b int GENERATED ALWAYS AS (10 / a))"
    )
    for options in ({}, {"columns": ("b",)}, {"routes": ("b",)}):
        registration = Registration(model=Virtual, transport="outbox", **options)
        installer.install(registration, using="default")
        with contextlib.closing((reading := Reading()).connection):
            writer.rows("INSERT INTO virtual VALUES (1, 5)")
            writer.rows("UPDATE virtual SET a = 2")
            writer.rows("UPDATE virtual SET a = 0")
            writer.rows("DELETE FROM virtual")
            page = reading.read(labels=("types.virtual",))
        events = event.events_of(page.entries, {"types.virtual"}, connection)
        pairs = [
            [row and row.__dict__.get("b", UNREADABLE) for row in (each.old, each.new)]
            for each in events
            if isinstance(each, event.Event)
        ]
        assert pairs == [[None, 2], [2, 5], [5, UNREADABLE], [UNREADABLE, None]]
        assert isinstance(events[1], event.Event)
        assert events[1].changed == {"a", "b"}
        assert [each.instance.a for each in events] == [5, 2, 0, 0]  # type: ignore[union-attr]
        assert [outbox_page.values(each, ["b"]) for each in page.entries] == [{}] * 4


def test_value_that_python_lacks(
    samples: list[Sample], writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value that the server or Python can't read is PostgreSQL's text, in its row alone."""
    monkeypatch.setattr(event, "model_of", {"types.mixed": Mixed}.get)
    writer.rows(
        "CREATE TABLE mixed (id bigint PRIMARY KEY, images text, at sample_stage, settings date, rows int)"
    )
    installer.install(Registration(model=Mixed, transport="outbox"), using="default")
    with contextlib.closing((reading := Reading()).connection):
        writer.rows(
            "INSERT INTO mixed VALUES (1, 'a', 'new', '2024-02-03', 1), (2, 'b', NULL, 'infinity', 2), "
            "(3, 'c', 'new', '0044-03-15 BC', 3)"
        )
        writer.rows("ALTER TYPE sample_stage RENAME VALUE 'new' TO 'old'")
        writer.rows("INSERT INTO mixed VALUES (4, 'd', 'old', NULL, 4)")
        events = reading.events("types.mixed")
    rows = [each.instance for each in events if isinstance(each, event.Event)]
    columns = ("pk", "images", "at", "settings", "rows")
    assert [[getattr(row, column) for column in columns] for row in rows] == [
        [1, "a", "new", datetime.date(2024, 2, 3), 1],
        [2, "b", None, "infinity", 2],
        [3, "c", "new", "0044-03-15 BC", 3],
        [4, "d", "old", None, 4],
    ]


def test_keys_are_equal_for_every_writer(
    samples: list[Sample], writer: Writer, writers: list[psycopg.Connection]
) -> None:
    """A row has the same key in all payloads, whatever the settings of the session that changed it."""
    keys = [
        *("float", "duration", "binary", "datetime", "date", "tstzrange", "money", "regclass"),
        *("moment_domain", "moments", "record", "cube"),
    ]
    wanted = [each for each in samples if each.name in keys]
    for each in wanted:
        writer.rows(f"CREATE TABLE {each.name}_key (id {each.column} PRIMARY KEY, note text)")
        writer.rows(f"INSERT INTO {each.name}_key VALUES ({each.values[0]}, '')")
    install_all(Registration(model=model_of(each, key=True)) for each in wanted)
    writer.rows("LISTEN pgobserve")
    for each in wanted:
        for number, other in enumerate(writers):
            other.execute(f"UPDATE samples.{each.name}_key SET note = '{number}'")
    found = defaultdict(list)
    for notify in writer.connection.notifies(timeout=90, stop_after=len(wanted) * len(writers)):
        payload = json.loads(notify.payload)
        found[payload["t"].removeprefix("types.")].append(json.dumps(payload["k"]))
    assert {name: len(set(texts)) for name, texts in found.items()} == dict.fromkeys(found, 1)
    assert found.keys() == {each.name for each in wanted}
