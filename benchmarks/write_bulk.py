"""What the triggers add to statements of 100,000 rows, COMMIT included."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks.results import Row, at_most, median
from benchmarks.writing.server import ROWS, Table, listeners, table

if TYPE_CHECKING:
    from collections.abc import Callable

#: What a statement may take, as a multiple of the same without triggers.
TARGETS = {"UPDATE": 1.35, "INSERT": 1.25, "COPY": 1.2, "DELETE": 1.6}

NO_CHANGE = "UPDATE that changes nothing"


#: None, triggers that do nothing, ours. The second is what PostgreSQL itself takes to collect rows.
OFF, EMPTY, ON = "no trigger", "empty triggers", "ours"


def run(quick: bool) -> list[Row]:
    """Measure each kind of statement without triggers, with empty ones and with ours in turn."""
    rounds = 2 if quick else 9
    variants = [OFF, EMPTY, ON]
    times: dict[tuple[str, str], list[float]] = {}
    with table() as where, listeners(where, 1):
        data = _copy_data(where)
        for _ in range(rounds):
            variants.append(variants.pop(0))
            for kind in (*TARGETS, NO_CHANGE):
                for variant in variants:
                    where.triggers(variant != OFF, empty=variant == EMPTY)
                    times.setdefault((kind, variant), []).append(_measure(where, kind, data))
    return [row for kind in (*TARGETS, NO_CHANGE) for row in _rows(kind, times)]


def _rows(kind: str, times: dict[tuple[str, str], list[float]]) -> list[Row]:
    ours, empty, off = (median(times[kind, each]) * 1000 for each in (ON, EMPTY, OFF))
    work = f"{kind}, {ROWS:,} rows"
    if kind in TARGETS:
        row = at_most(work, ours, off, TARGETS[kind], "ms")
    else:
        row = Row(work, f"{ours:,.2f} ms", f"{off:,.2f} ms (no trigger)", f"{ours / off:.2f} ×")
    than = f"{empty:,.2f} ms (triggers that do nothing)"
    return [row, Row(work, f"{ours:,.2f} ms", than, f"{ours / empty:.2f} ×")]


def _copy_data(where: Table) -> bytes:
    with where.connection.cursor() as cursor, cursor.copy("COPY source TO STDOUT") as copy:
        return b"".join(bytes(block) for block in copy)


def _measure(where: Table, kind: str, data: bytes) -> float:
    where.fill()
    if kind in ("INSERT", "COPY"):
        where.execute("TRUNCATE item")
    where.execute("CHECKPOINT")
    with where.connect() as session:
        # One row first, as in a session that lives: its plans are those that a bulk then meets.
        session.execute(
            "INSERT INTO item SELECT -1, name, 1, 1, 1, NULL, '{}', 0, now(), now() FROM source LIMIT 1"
        )
        session.execute("UPDATE item SET n = 5 WHERE id = -1")
        session.execute("DELETE FROM item WHERE id = -1")
        statements: dict[str, Callable[[], object]] = {
            "UPDATE": lambda: session.execute("UPDATE item SET n = n + 1"),
            NO_CHANGE: lambda: session.execute("UPDATE item SET n = n"),
            "INSERT": lambda: session.execute("INSERT INTO item SELECT * FROM source"),
            "DELETE": lambda: session.execute("DELETE FROM item"),
            "COPY": lambda: _copy(session, data),
        }
        began = time.perf_counter()
        statements[kind]()
        return time.perf_counter() - began


def _copy(session: object, data: bytes) -> None:
    with session.cursor() as cursor, cursor.copy("COPY item FROM STDIN") as copy:  # type: ignore[attr-defined]
        copy.write(data)
