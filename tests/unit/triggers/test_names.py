"""Names in the database."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgobserve.triggers import names
from pgobserve.wire import ALONE, Operation


@pytest.mark.parametrize(
    ("given", "quoted"),
    [
        ("auth_user", '"auth_user"'),
        ('"shop"."order"', '"shop"."order"'),
        ("Mixed Case", '"Mixed Case"'),
    ],
)
def test_quote(given: str, quoted: str) -> None:
    """A table is quoted as Django quotes it."""
    assert names.quote(given) == quoted


@pytest.mark.parametrize(
    ("given", "name"),
    [("id", "id"), ('"Id"', "Id"), ('"a""b"', 'a"b'), ("x" * 70, "x" * 63), ('"', '"')],
)
def test_column(given: str, name: str) -> None:
    """A column's name is what the catalog has: no quotes, and cut as PostgreSQL cuts."""
    assert names.column(given) == name


@given(st.text(min_size=1, max_size=80), st.text(min_size=1, max_size=80))
def test_function_fits(schema: str, table: str) -> None:
    """Function names fit into PostgreSQL's limit, four different ones for each table."""
    made = {names.function(schema, table, operation) for operation in Operation}

    assert len(made) == 4
    assert all(len(name.encode()) <= names.MAX_BYTES for name in made)


def test_function_is_telling() -> None:
    """A function is named after its table, and tables of one name in two schemas differ."""
    one = names.function("public", "auth_user", Operation.UPDATE)
    two = names.function("tenant", "auth_user", Operation.UPDATE)

    assert one.startswith("auth_user_")
    assert one.endswith("_u")
    assert one != two


@pytest.mark.parametrize(
    ("trigger", "schema", "comment", "ours"),
    [
        ("pgobserve_i", "pgobserve", None, True),
        ("pgobserve_i", "public", "pgobserve:1:{}", True),
        ("pgobserve_i", "public", None, False),
        ("other", "pgobserve", "pgobserve:1:{}", False),
    ],
)
def test_is_ours(trigger: str, schema: str, comment: str | None, ours: bool) -> None:
    """A trigger is ours by its name, and its function's schema or the comment on it."""
    assert names.is_ours(trigger, schema, comment, ALONE) is ours
