"""The findings of ``doctor``'s checks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """The severity of a finding."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """
    The finding of a check.

    Attributes:
        state: What the check found, in sentences.
        details: The objects concerned, one a line.
        advice: The remedy; empty if none is needed.
    """

    level: Level
    state: str
    details: tuple[str, ...] = ()
    advice: str = ""


def ok(state: str, *details: str, advice: str = "") -> Finding:
    """Return a finding that needs no action."""
    return Finding(Level.OK, state, details, advice)


def warning(state: str, *details: str, advice: str) -> Finding:
    """Return a finding about something that works, but badly or not for long."""
    return Finding(Level.WARNING, state, details, advice)


def problem(state: str, *details: str, advice: str) -> Finding:
    """Return a finding about something that does not work."""
    return Finding(Level.PROBLEM, state, details, advice)
