"""Statements that certainly only read, and those that may do anything."""

from __future__ import annotations

import pytest

from pgobserve.database.tracked_session import is_plain_read

PLAIN = [
    'SELECT "a"."id" FROM "a" WHERE "a"."id" = %s',
    'SELECT COUNT(*) AS "__count" FROM "a"',
    'SELECT DISTINCT "a"."id" FROM "a" INNER JOIN "b" ON ("a"."id" = "b"."a_id") WHERE "b"."n" IN (%s, %s)',
    'SELECT 1 AS "a" FROM "a" WHERE (UPPER("a"."name") LIKE UPPER(%s) AND NOT EXISTS(SELECT 1 FROM "b")) LIMIT 1',
    'SELECT COALESCE(SUM("a"."n") FILTER (WHERE "a"."n" > 1), 0) OVER (PARTITION BY "a"."x") FROM "a"',
    """SELECT 'set_config(' FROM "a" """,
    '(SELECT "a"."id" FROM "a") UNION (SELECT "b"."id" FROM "b")',
]

OTHERS = [
    "SELECT set_config('app.user', %s, false)",
    "SELECT pg_catalog.set_config('app.user', %s, false)",
    "SELECT \"set_config\"('app.user', '1', false)",
    'SELECT "a"."id", tenant_of("a") FROM "a"',
    'SELECT app.lower("a"."name") FROM "a"',
    "SELECT 1; SET ROLE joe",
    "SELECT 1 /* ( */, set_config /* */ ('a.b', '1', false)",
    "SELECT 1 -- (\n",
    'SELECT * INTO "b" FROM "a"',
    "SELECT $$'$$, set_config('a.b', '1', false), $$'$$",
    "SELECT E'\\'', set_config('a.b', '1', false), ''",
    "SET search_path = a",
    "BEGIN",
    'INSERT INTO "a" ("id") VALUES (1)',
    'WITH x AS (DELETE FROM "a") SELECT 1',
    "TABLE a",
    "",
]


@pytest.mark.parametrize("text", PLAIN)
def test_plain(text: str) -> None:
    """What the ORM makes of most querysets only reads."""
    assert is_plain_read(text)


@pytest.mark.parametrize("text", OTHERS)
def test_others(text: str) -> None:
    """Whatever calls a function that is not known, or is not a SELECT alone, may change the session."""
    assert not is_plain_read(text)
