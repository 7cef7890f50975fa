"""
How many one-row transactions a second concurrent writers commit, with and without triggers.

PostgreSQL lets one notifying transaction commit at a time, from before its flush until after it:
whoever notifies pays that, however little the trigger costs.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from benchmarks.results import Row, median
from benchmarks.writing.server import ROWS, Table, listeners, table

CLIENTS = (1, 4, 8)

SCRIPT = f"""\\set id random(1, {ROWS})
UPDATE item SET n = n + 1 WHERE id = :id;
"""

#: Flushes as they are here, and as slow as those of a network disk: PostgreSQL waits 1 ms in each.
FLUSHES = {"": (), "flush of 1 ms": ("commit_delay=1000", "commit_siblings=0")}


def run(quick: bool) -> list[Row]:
    """Measure with and without triggers in turn, one process listening."""
    rows: list[Row] = []
    for note, options in FLUSHES.items():
        if quick and note:
            continue
        with table(options) as where, listeners(where, 1):
            rows += [_row(where, clients, note, quick) for clients in CLIENTS]
    return rows


def _row(where: Table, clients: int, note: str, quick: bool) -> Row:
    rates: dict[bool, list[float]] = {False: [], True: []}
    for number in range(1 if quick else 5):
        for on in (False, True) if number % 2 else (True, False):
            where.triggers(on)
            where.execute("VACUUM item", "CHECKPOINT")
            rates[on].append(_rate(where, clients, 1 if quick else 3))
    on, off = median(rates[True]), median(rates[False])
    return Row(
        f"commit rate of {clients} concurrent writer{'s'[: clients > 1]}",
        f"{on:,.0f}/s",
        f"{off:,.0f}/s (no trigger)",
        f"{on / off:.2f} ×",
        note=note,
    )


def _rate(where: Table, clients: int, seconds: int) -> float:
    """Return the transactions per second that pgbench reached."""
    said = pgbench(where, "-c", str(clients), "-j", str(min(clients, 2)), "-T", str(seconds))
    return number(said, r"tps = ([\d.]+)")


def pgbench(where: Table, *options: str) -> str:
    """Run pgbench with one-row transactions, and return what it says."""
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "script.sql"
        script.write_text(SCRIPT)
        address = ("-h", "127.0.0.1", "-p", str(where.server.port), "-U", "postgres", "postgres")
        return subprocess.run(
            [str(where.server.bin / "pgbench"), "-n", "-f", str(script), *options, *address],
            env={"PGPASSWORD": where.server.password, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout


def number(said: str, pattern: str) -> float:
    """Return the number that pgbench said."""
    found = re.search(pattern, said)
    if found is None:
        raise RuntimeError(f"pgbench did not say {pattern}: {said}")
    return float(found[1])
