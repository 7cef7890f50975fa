"""What a benchmark hands to the runner, and how it is shown."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Row:
    """
    One line of the table.

    Attributes:
        work: What was done.
        ours: What it took here, with its unit.
        other: What it took where it is compared with, with its unit and what that is.
        figure: The number that counts: mostly the ratio.
        target: What it should be.
        reached: Whether it is; None where there is no target.
        note: What one must know to read it.
    """

    work: str
    ours: str
    other: str
    figure: str
    target: str = ""
    reached: bool | None = None
    note: str = ""


def as_json(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return the rows as JSON has them."""
    return [asdict(row) for row in rows]


def as_markdown(rows: Iterable[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| work | pgobserve | compared with | figure | target | reached |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        reached = "" if row.reached is None else "yes" if row.reached else "**no**"
        work = f"{row.work} ({row.note})" if row.note else row.work
        cells = (work, row.ours, row.other, row.figure, row.target, reached)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def at_most(work: str, ours: float, other: float, target: float, unit: str, note: str = "") -> Row:
    """Return the row of a ratio that should not exceed its target."""
    ratio = ours / other
    return Row(
        work,
        f"{ours:,.2f} {unit}",
        f"{other:,.2f} {unit}",
        f"{ratio:.2f} ×",
        f"≤ {target:g} ×",
        ratio <= target,
        note,
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value below which that share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def median(values: Iterable[float]) -> float:
    """Return the median."""
    return statistics.median(values)
