"""Statements that the page offers at a click. Each can be run again and again."""

from __future__ import annotations

from typing import NamedTuple


class Example(NamedTuple):
    """
    A statement to try.

    Attributes:
        title: What it shows.
        sql: The statement.
        expect: What will be seen.
    """

    title: str
    sql: str
    expect: str


EXAMPLES = (
    Example(
        "Update one row",
        "UPDATE ship SET cargo = cargo + 25 WHERE name = 'Kittiwake';",
        "One row changes.",
    ),
    Example(
        "Update every row",
        "UPDATE ship SET cargo = greatest(0, cargo + (random() * 200 - 100)::int);",
        "One statement, every row changes.",
    ),
    Example(
        "Delete a row",
        "DELETE FROM ship WHERE id = 5;",
        "Evening Tide leaves.",
    ),
    Example(
        "Put it back",
        "INSERT INTO ship (id, name, state, berth, cargo)\n"
        "VALUES (5, 'Evening Tide', 'docked', 'B1', 1785)\n"
        "ON CONFLICT DO NOTHING;",
        "The same key again: it is back.",
    ),
    Example(
        "A new ship",
        "INSERT INTO ship (name, state)\n"
        "SELECT 'Visitor ' || arrivals + 1, 'approaching' FROM harbour;",
        "A key that nobody watched yet.",
    ),
    Example(
        "Rolled back",
        "BEGIN;\nUPDATE ship SET cargo = 0;\nROLLBACK;",
        "Nothing arrives: it never happened.",
    ),
    Example(
        "No change",
        "UPDATE ship SET name = name;",
        "Nothing arrives: every row is as it was.",
    ),
)
