"""What telling old and new values of a column adds to an UPDATE, COMMIT included, by its size."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from benchmarks.results import Row, median
from benchmarks.writing.server import Table, listeners, table

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Rows of a statement, and statements of a round. From 10,001 rows on none is named.
SIZES: Mapping[int, int] = {1: 300, 10: 200, 100: 50, 1_000: 10, 10_000: 2, 100_000: 1}

#: What a statement may take, as a multiple of the same without triggers, where that was promised.
TARGETS = {100_000: 1.35}

#: A thousand different values.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "no trigger": {"on": False},
    "triggers without it": {"on": True},
    "ours": {"on": True, "routes": ("owner_id",)},
}


def run(quick: bool) -> list[Row]:
    """Measure each size without triggers, with triggers, and with those that tell a column."""
    times: dict[tuple[int, str], list[float]] = {}
    names = list(VARIANTS)
    with table() as where, listeners(where, 1):
        for _ in range(2 if quick else 9):
            names.append(names.pop(0))
            for size, count in SIZES.items():
                for name in names:
                    where.triggers(**VARIANTS[name])
                    times.setdefault((size, name), []).append(_measure(where, size, count))
    return [
        _row(size, *(median(times[size, name]) for name in ("ours", other)), other)
        for size in SIZES
        for other in ("no trigger", "triggers without it")
    ]


def _row(size: int, ours: float, other: float, than: str) -> Row:
    target = TARGETS.get(size) if than == "no trigger" else None
    ratio = ours / other
    return Row(
        f"UPDATE, {size:,} {'rows' if size > 1 else 'row'}, telling one column",
        f"{ours * 1000:,.3f} ms",
        f"{other * 1000:,.3f} ms ({than})",
        f"{ratio:.2f} ×",
        f"≤ {target:g} ×" if target else "",
        ratio <= target if target else None,
    )


def _measure(where: Table, size: int, count: int) -> float:
    """Return the seconds of one statement."""
    where.fill()
    where.execute("CHECKPOINT")
    statement = "UPDATE item SET n = n + 1 WHERE id BETWEEN %s AND %s"
    with where.connect() as session:
        for _ in range(6):  # plans
            session.execute(statement, [1, min(size, 10)])
        began = time.perf_counter()
        for number in range(count):
            session.execute(statement, [number * size + 1, (number + 1) * size])
        return (time.perf_counter() - began) / count
