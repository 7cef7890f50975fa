"""Statements that the page offers; each can run repeatedly."""

from __future__ import annotations

from typing import NamedTuple


class Example(NamedTuple):
    """A statement to try."""

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
        "Rename a line",
        "UPDATE line SET name = CASE name\n"
        "    WHEN 'Gannet Line' THEN 'Gannet & Co'\n    ELSE 'Gannet Line' END\n"
        "WHERE id = 1;",
        "One row of another table: all ships of that line change.",
    ),
    Example(
        "Turn the tide",
        "UPDATE ship SET state = CASE state\n"
        "    WHEN 'at sea' THEN 'approaching' ELSE 'at sea' END\n"
        "WHERE state IN ('at sea', 'approaching');",
        "Choose a state first: some ships enter the list, others leave it.",
    ),
    Example(
        "Delete a row",
        "DELETE FROM ship WHERE id = 5;",
        "Evening Tide leaves.",
    ),
    Example(
        "Put it back",
        "INSERT INTO ship (id, name, line_id, state, berth, cargo)\n"
        "VALUES (5, 'Evening Tide', 3, 'docked', 'B1', 1785)\n"
        "ON CONFLICT DO NOTHING;",
        "The same key again: it is back.",
    ),
    Example(
        "A new ship",
        "INSERT INTO ship (name, line_id, state)\n"
        "SELECT 'Visitor ' || count(*) + 1, 2, 'approaching' FROM ship;",
        "A row that was not there before.",
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
