"""What a check of ``doctor`` says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """
    What a check has found.

    Attributes:
        level: How bad it is.
        state: What is the case, in sentences.
        details: What it is about, line by line.
        advice: What to do; empty if nothing is to be done.
    """

    level: Level
    state: str
    details: tuple[str, ...] = ()
    advice: str = ""


def ok(state: str, *details: str, advice: str = "") -> Finding:
    """Say that all is well."""
    return Finding(Level.OK, state, details, advice)


def warning(state: str, *details: str, advice: str) -> Finding:
    """Say that something works, and might be better or soon not work any more."""
    return Finding(Level.WARNING, state, details, advice)


def problem(state: str, *details: str, advice: str) -> Finding:
    """Say that something does not work."""
    return Finding(Level.PROBLEM, state, details, advice)
