"""The rows that the demo begins with. All of them are made up."""

from __future__ import annotations

from pgobserve.demo.project.models import Harbour, Ship

SHIPS = (
    ("Amber Petrel", "docked", "A1", 1240),
    ("Blue Meridian", "docked", "A2", 860),
    ("Cormorant", "unloading", "A3", 2310),
    ("Driftwood", "at anchor", None, 415),
    ("Evening Tide", "docked", "B1", 1785),
    ("Firth Lantern", "loading", "B2", 640),
    ("Grey Heron", "at sea", None, 3020),
    ("Halcyon", "docked", "B3", 975),
    ("Isinglass", "at sea", None, 1530),
    ("Juniper Gale", "loading", "C1", 300),
    ("Kittiwake", "at anchor", None, 2175),
    ("Lodestar", "approaching", None, 1910),
)


def settle() -> None:
    """Insert the harbour and its ships."""
    Harbour.objects.create(name="Saltmarsh Harbour")
    Ship.objects.bulk_create(
        Ship(name=name, state=state, berth=berth, cargo=cargo)
        for name, state, berth, cargo in SHIPS
    )
