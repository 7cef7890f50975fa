"""The demo's first rows, all fictional, and the statements that the page offers."""

from __future__ import annotations

from typing import NamedTuple

from pgobserve.demo.project.models import Line, Ship

#: States that the page can filter by; ships may have others.
STATES = ("docked", "loading", "unloading", "at anchor", "approaching", "at sea")

LINES = ("Gannet Line", "Northspit Freight", "Ternhaven Co-op")

SHIPS = (
    ("Amber Petrel", 1, "docked", "A1", 1240),
    ("Blue Meridian", 2, "docked", "A2", 860),
    ("Cormorant", 1, "unloading", "A3", 2310),
    ("Driftwood", None, "at anchor", None, 415),
    ("Evening Tide", 3, "docked", "B1", 1785),
    ("Firth Lantern", 2, "loading", "B2", 640),
    ("Grey Heron", 1, "at sea", None, 3020),
    ("Halcyon", 3, "docked", "B3", 975),
    ("Isinglass", 2, "at sea", None, 1530),
    ("Juniper Gale", 3, "loading", "C1", 300),
    ("Kittiwake", 1, "at anchor", None, 2175),
    ("Lodestar", 2, "approaching", None, 1910),
)


def settle() -> None:
    Line.objects.bulk_create(Line(name=name) for name in LINES)
    Ship.objects.bulk_create(
        Ship(name=name, line_id=line, state=state, berth=berth, cargo=cargo)
        for name, line, state, berth, cargo in SHIPS
    )


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
    Example("Delete a row", "DELETE FROM ship WHERE id = 5;", "Evening Tide leaves."),
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
        "No change", "UPDATE ship SET name = name;", "Nothing arrives: every row is as it was."
    ),
)
