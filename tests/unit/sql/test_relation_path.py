"""The ways from watched tables to others."""

from __future__ import annotations

import pytest

from pgobserve.sql.relation_path import server_name


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("book_id", "book_id"),
        ('"Odd ""one"""', 'Odd "one"'),
        ('"', '"'),
        ("x" * 70, "x" * 63),
        ("x" * 62 + "é", "x" * 62),
    ],
)
def test_server_name(name: str, wanted: str) -> None:
    """A column is called as the server calls it: without Django's quotes, and not longer."""
    assert server_name(name) == wanted
