"""Queries of many users, said in one."""

from __future__ import annotations

from typing import Any

from psycopg import sql

from pgobserve.sql.literals import (
    Keys,
    for_each,
    inline,
    literal,
)


class Raw:
    """psycopg writes literals without a connection as it can; these need none."""

    connection = None

    def ensure_connection(self) -> None:
        """Do nothing."""


RAW: Any = Raw()
KEYS = Keys()


def test_inline() -> None:
    """Values are written into the SQL, per cent signs kept, and the keys left as a parameter."""
    text = inline("SELECT %s, a %% b WHERE pk = ANY(%s)", ["100%", KEYS], RAW)

    assert text == "SELECT '100%%', a %% b WHERE pk = ANY(%s)"


def test_only_the_keys_differ() -> None:
    """What is the same for all is written once; the keys become a list."""
    text = for_each("a = %s AND pk = ANY(%s)", [[1, KEYS], [1, KEYS]], [[[7]], [[8]]], RAW)

    assert text is not None
    assert "a = 1 AND pk = ANY(pgobserve_each.c0)" in text
    assert text.count("pgobserve_each(n, c0)") == 1


def test_values_differ() -> None:
    """A value of each user becomes a column of the list, and so do keys that differ."""
    text = for_each("a = %s AND pk = ANY(%s)", [[1, KEYS], [2, KEYS]], [[[7]], [[8]]], RAW)

    assert text is not None
    assert "a = pgobserve_each.c0 AND pk = ANY(pgobserve_each.c1)" in text


def test_all_ask_for_the_same_key() -> None:
    """A key that is looked for in many lists is written once."""
    text = for_each("a = %s AND pk = ANY(%s)", [[1, KEYS], [2, KEYS]], [[[7]], [[7]]], RAW)

    assert text is not None
    assert "pgobserve_each(n, c0)" in text
    assert text.count("{7}") == 1


def test_numbers_are_written_as_psycopg_does() -> None:
    """The short way to a number's literal leads to the same."""
    for number in (0, 7, -7, 2**40, True, 2.5):
        assert literal(number, RAW) == sql.Literal(number).as_string(None)


def test_strings_have_no_type_of_their_own() -> None:
    """Different strings can't stand in a list: their type follows from where they stand."""
    assert for_each("a = %s", [["x"], ["y"]], [[], []], RAW) is None
    assert for_each("a = %s", [["x"], ["x"]], [[], []], RAW) is not None


def test_equal_values_of_different_types() -> None:
    """True and 1 are equal in Python, and are not the same in SQL."""
    text = for_each("a = %s", [[True], [1]], [[], []], RAW)

    assert text is not None
    assert "a = pgobserve_each.c0" in text
