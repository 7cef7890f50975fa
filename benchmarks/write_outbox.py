"""What the outbox costs writers: one row, 100,000 rows, and commits of eight at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.results import Row, at_most, median
from benchmarks.write_bulk import TARGETS, _copy_data, _measure
from benchmarks.write_commits import FLUSHES, _rate
from benchmarks.write_one_row import _measure as _one_row
from benchmarks.writing.server import ROWS, Table, listeners, table

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Microseconds that may be added to an UPDATE of one row.
ONE_ROW = 35

#: The share of the commit rate that must be left.
COMMITS = 0.70

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "no trigger": {"on": False},
    "notify": {"on": True},
    "outbox": {"on": True, "transport": "outbox"},
    "outbox, polled": {"on": True, "transport": "outbox", "wake": "poll"},
}


def run(quick: bool) -> list[Row]:
    """Measure each way in turn, one process listening."""
    rows = []
    with table() as where, listeners(where, 1):
        rows += _one(where, quick)
        rows += _bulk(where, quick)
        rows += _commits(where, quick, "")
    for note, options in FLUSHES.items():
        if note and not quick:
            with table(options) as where, listeners(where, 1):
                rows += _commits(where, quick, note)
    return rows


def _one(where: Table, quick: bool) -> list[Row]:
    rounds, count = (3, 1000) if quick else (15, 3000)
    times: dict[str, list[float]] = {name: [] for name in VARIANTS}
    _one_row(where, count)
    for _ in range(rounds):
        for name, how in VARIANTS.items():
            where.triggers(**how)
            times[name].append(_one_row(where, count))
    rows = []
    for what, of in (("fastest", min), ("median", median)):
        off = of(times["no trigger"])
        for name in VARIANTS:
            if name == "no trigger":
                continue
            added = of(times[name]) - off
            target = "outbox" in name
            rows.append(
                Row(
                    f"one-row UPDATE, server side, {what}, {name}",
                    f"{of(times[name]):.1f} µs",
                    f"{off:.1f} µs (no trigger)",
                    f"+{added:.1f} µs",
                    f"≤ +{ONE_ROW} µs" if target else "",
                    added <= ONE_ROW if target else None,
                )
            )
    return rows


def _bulk(where: Table, quick: bool) -> list[Row]:
    data = _copy_data(where)
    names = ["no trigger", "outbox"]
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(2 if quick else 7):
        names.append(names.pop(0))
        for kind in TARGETS:
            for name in names:
                where.triggers(False)
                where.triggers(**VARIANTS[name])
                times.setdefault((kind, name), []).append(_measure(where, kind, data))
    return [
        at_most(
            f"{kind}, {ROWS:,} rows, outbox",
            median(times[kind, "outbox"]) * 1000,
            median(times[kind, "no trigger"]) * 1000,
            TARGETS[kind],
            "ms",
            "with the images of all rows",
        )
        for kind in TARGETS
    ]


def _commits(where: Table, quick: bool, note: str) -> list[Row]:
    rates: dict[str, list[float]] = {name: [] for name in VARIANTS}
    names = list(VARIANTS)
    where.triggers(False)
    where.fill()
    for _ in range(1 if quick else 7):
        names.append(names.pop(0))
        for name in names:
            where.triggers(False)
            where.triggers(**VARIANTS[name])
            where.execute("VACUUM item", "CHECKPOINT")
            rates[name].append(_rate(where, 8, 2 if quick else 4))
    off = median(rates["no trigger"])
    return [
        Row(
            f"commit rate of 8 concurrent writers, {name}",
            f"{median(each):,.0f}/s",
            f"{off:,.0f}/s (no trigger)",
            f"{median(each) / off:.2f} ×",
            f"≥ {COMMITS:.2f} ×" if "outbox" in name else "",
            median(each) / off >= COMMITS if "outbox" in name else None,
            note,
        )
        for name, each in rates.items()
        if name != "no trigger"
    ]
