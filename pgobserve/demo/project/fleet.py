"""The demo's first rows, all fictional."""

from __future__ import annotations

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
    """Insert the lines and their ships."""
    Line.objects.bulk_create(Line(name=name) for name in LINES)
    Ship.objects.bulk_create(
        Ship(name=name, line_id=line, state=state, berth=berth, cargo=cargo)
        for name, line, state, berth, cargo in SHIPS
    )
