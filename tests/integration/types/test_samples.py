"""The list of types against the server's catalog, and against Django's fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from django.db import models
from psycopg import sql

from tests.integration.types.samples import RAW, SAMPLES, available

if TYPE_CHECKING:
    from tests.integration.conftest import Writer

#: Types of the server whose values can't be written, or are written like those of a type that is there.
_ALIKE = {"pg_dependencies", "pg_mcv_list", "pg_ndistinct", "pg_node_tree"}

_TYPES = """
SELECT t.oid::regtype::text, t.typname FROM pg_type t
 WHERE t.typtype IN ('b', 'r', 'm') AND t.typcategory <> 'A' AND t.typnamespace = 'pg_catalog'::regnamespace
"""


@pytest.fixture
def schema(writer: Writer) -> None:
    """A schema for the tables, which goes with its types."""
    writer.rows("DROP SCHEMA IF EXISTS samples CASCADE")
    writer.rows("CREATE SCHEMA samples")
    writer.rows("SET search_path TO samples, public")


@pytest.mark.usefixtures("schema")
def test_every_type_that_can_be_a_primary_key_has_a_sample(writer: Writer) -> None:
    """A type that PostgreSQL accepts for a primary key is in the list; those of object names by two."""
    listed = set()
    for each in available(writer.rows):
        ((oid,),) = writer.rows(
            "SELECT coalesce(nullif(typbasetype, 0), oid)::regtype::text FROM pg_type WHERE oid = %s::regtype",
            each.column.partition(" COLLATE")[0],
        )
        listed.add(oid)
    missing = []
    for title, name in writer.rows(_TYPES):
        try:
            with writer.connection.transaction():
                writer.connection.execute(
                    sql.SQL("CREATE TEMP TABLE probe (k pg_catalog.{} PRIMARY KEY)").format(
                        sql.Identifier(name)
                    )
                )
                writer.connection.execute("DROP TABLE probe")
        except psycopg.errors.UndefinedObject:
            continue
        if title not in listed and name not in _ALIKE and not name.startswith("reg"):
            missing.append(title)
    writer.rows("DROP SCHEMA samples CASCADE")
    assert missing == []


def test_every_field_class_that_can_be_a_primary_key_has_a_sample() -> None:
    """A field class of Django's, other than relations and generated fields, is in the list."""
    listed = {type(each.field()) for each in SAMPLES if each not in RAW}
    fields = {
        each
        for each in vars(models).values()
        if isinstance(each, type) and issubclass(each, models.Field) and each is not models.Field
    }
    others = {
        *(each for each in fields if issubclass(each, models.ForeignObject)),
        *(
            models.ManyToManyField,
            models.GeneratedField,
            models.OrderWrt,
            models.CompositePrimaryKey,
        ),
        *(models.ImageField, models.CommaSeparatedIntegerField, models.IPAddressField),
        models.NullBooleanField,
    }
    assert fields - others <= listed


@pytest.mark.usefixtures("schema")
def test_the_values_of_a_sample_are_distinct_keys(writer: Writer) -> None:
    """Each sample's values fit one table with its column as the primary key."""
    for each in available(writer.rows):
        writer.rows(f"CREATE TABLE {each.name}_t (id {each.column} PRIMARY KEY)")
        writer.rows(f"INSERT INTO {each.name}_t VALUES {', '.join(f'({v})' for v in each.values)}")
    writer.rows("DROP SCHEMA samples CASCADE")
