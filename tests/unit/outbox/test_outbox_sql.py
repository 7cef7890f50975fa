"""Queries on a namespace's outbox."""

from __future__ import annotations

from pgobserve.outbox.outbox_sql import qualified
from pgobserve.wire import ALONE, Namespace


def test_names_the_schema() -> None:
    """The placeholder becomes the namespace's schema, as an identifier."""
    query = qualified("SELECT slot FROM {schema}.outbox", Namespace("shop"))

    assert query.as_string() == 'SELECT slot FROM "pgobserve_shop".outbox'


def test_each_namespace_has_its_own() -> None:
    """What is remembered for one namespace is never used for another."""
    text = "SELECT 1 FROM {schema}.outbox_gate"

    assert qualified(text, ALONE) != qualified(text, Namespace("shop"))
    assert qualified(text, ALONE) is qualified(text, ALONE)
