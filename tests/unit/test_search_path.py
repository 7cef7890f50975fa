"""What a ``search_path`` says about the schema of a project's tables."""

from __future__ import annotations

import pytest

from pgobserve.search_path import first_schema, of_options


@pytest.mark.parametrize(
    ("search_path", "schema"),
    [
        ("", ""),
        ("public", ""),
        ('"$user", public', ""),
        ("$user, shop, public", "shop"),
        ("shop", "shop"),
        ("Shop, public", "shop"),
        ('"Shop", public', "Shop"),
        ('"a, ""b""", c', 'a, "b"'),
        ("pg_catalog, shop", ""),
        (" staging ,public", "staging"),
    ],
)
def test_first_schema(search_path: str, schema: str) -> None:
    """The first schema counts, as PostgreSQL reads names; public, and the role's own, do not."""
    assert first_schema(search_path) == schema


@pytest.mark.parametrize(
    ("options", "search_path"),
    [
        ("", ""),
        ("-c statement_timeout=5s", ""),
        ("-c search_path=shop", "shop"),
        ("-csearch_path=shop,public", "shop,public"),
        ("-c statement_timeout=5s -c search_path=shop -c lock_timeout=1s", "shop"),
        ("--search_path=shop", "shop"),
        (r"-c search_path=shop,\ public", "shop, public"),
        ("-c search_path=a -c search_path=b", "b"),
        ("-c my.search_path=shop", ""),
    ],
)
def test_of_options(options: str, search_path: str) -> None:
    """The last ``search_path`` in libpq's options counts, its escapes removed."""
    assert of_options(options) == search_path
