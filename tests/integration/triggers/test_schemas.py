"""Payloads of a table in a schema of its own name that schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from psycopg import sql

from pgobserve.triggers import registry
from pgobserve.triggers.server import catalog, drift
from pgobserve.triggers.server.drift import State
from pgobserve.wire import ALONE, MAX_PAYLOAD_BYTES
from tests.integration.triggers.routed import route
from tests.project.shapes import Raw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.triggers.conftest import Ear

#: The longest name, with all that JSON escapes.
NAME = "\1" * 60 + '"\\%'


@pytest.fixture
def schema(clean: None, run: Callable[..., Any]) -> Iterator[str]:
    """A table in a schema, which the session looks at first."""
    name = sql.Identifier(NAME).as_string(None)
    run(f"CREATE SCHEMA {name}")
    run("SELECT set_config('search_path', %s, false)", name)
    run("CREATE TABLE project_raw (id bigint PRIMARY KEY, book bigint)")
    yield name
    connection.close()
    run(f"DROP SCHEMA IF EXISTS {name} CASCADE")
    run("DROP SCHEMA IF EXISTS renamed CASCADE")


def _state() -> State:
    (registration,) = registry.build([Raw])
    tables = catalog.relations(connection, [registration.table])
    found = catalog.triggers(connection, ALONE)
    return drift.compare(registration, tables[registration.table], found).state


@pytest.mark.parametrize("routes", [(), ("book",)])
def test_every_payload(
    ear: Ear, run: Callable[..., Any], schema: str, routes: tuple[str, ...]
) -> None:
    """Each payload names the schema and fits, with many keys too."""
    route(Raw, *routes)
    run("INSERT INTO project_raw VALUES (1, 1)")
    run("INSERT INTO project_raw SELECT i, i FROM generate_series(100001, 109000) i")
    run("DELETE FROM project_raw WHERE id > 1")
    run("UPDATE project_raw SET book = 2")
    run("TRUNCATE project_raw")
    texts = ear.texts()
    payloads = [json.loads(text) for text in texts]

    assert max(len(text.encode()) for text in texts) <= MAX_PAYLOAD_BYTES
    assert {each["s"] for each in payloads} == {NAME}
    assert {each["o"] for each in payloads} == set("IUDT")
    assert [each["k"] for each in payloads[-2:]] == [[1], None]


def test_renamed(ear: Ear, run: Callable[..., Any], schema: str) -> None:
    """After the schema has another name, payloads have it at once; ``status`` calls for an install."""
    route(Raw)
    assert _state() is State.OK
    run(f"ALTER SCHEMA {schema} RENAME TO renamed")
    run("SET search_path = renamed")
    run("INSERT INTO project_raw VALUES (1, 1)")

    assert [each["s"] for each in ear.payloads()] == ["renamed"]
    assert _state() is State.OUTDATED


def test_usual_schema(ear: Ear, run: Callable[..., Any], schema: str) -> None:
    """A table that moves to ``public`` needs an install, after which no schema is named."""
    route(Raw)
    run("ALTER TABLE project_raw SET SCHEMA public")
    run("SET search_path = public")
    try:
        assert _state() is State.OUTDATED
        route(Raw)
        run("INSERT INTO project_raw VALUES (1, 1)")
        assert [each.get("s") for each in ear.payloads()] == [None]
    finally:
        run("DROP TABLE project_raw")
