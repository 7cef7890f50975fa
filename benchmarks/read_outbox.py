"""
From commit to reader, with eight concurrent writers: over the outbox, by its wake-up or by looking
again and again, and over NOTIFY.

The writers are in a process of their own, and note when each commit has returned.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg

from benchmarks.results import Row, percentile
from benchmarks.writing.server import ROWS, Table, table
from pgobserve.outbox.outbox_page import WAKE_UP

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pgobserve.wire import Change

WRITERS = 8

#: Seconds between two transactions of a writer, on average.
PAUSE = 0.006

UPDATE = "UPDATE item SET n = n + 1 WHERE id = %s RETURNING pg_current_xact_id()::text::bigint"


def run(quick: bool) -> list[Row]:
    """Measure the three, one after the other."""
    seconds = 2 if quick else 10
    with table() as where:
        notify = _measure(where, seconds, "notify", "notify")
        woken = _measure(where, seconds, "outbox", "notify")
        poll = _measure(where, seconds, "outbox", "poll")
    return [_row("wake-up", woken, notify), _row("looking every 50 ms", poll, notify)]


def _row(how: str, ours: Mapping[str, float], notify: Mapping[str, float]) -> Row:
    return Row(
        f"commit to reader of the outbox, {WRITERS} writers, by {how}",
        _shown(ours),
        f"{_shown(notify)} (NOTIFY)",
        f"{ours['lost']:.0f} lost",
        "0 lost",
        reached=ours["lost"] == 0,
        note=f"{ours['rate']:,.0f} transactions/s, {ours['reads']:,.0f} queries for {ours['count']:,.0f}",
    )


def _shown(measured: Mapping[str, float]) -> str:
    return " / ".join(f"{measured[p]:.1f}" for p in ("p50", "p99", "max")) + " ms p50 / p99 / max"


def _measure(where: Table, seconds: float, transport: str, wake: str) -> dict[str, float]:
    where.triggers(False)
    where.triggers(True, transport=transport, wake=wake)
    committed, heard, reads = asyncio.run(_hear(where, seconds, poll=wake == "poll"))
    delays = [max(0.0, heard[xid] - at) * 1000 for xid, at in committed.items() if xid in heard]
    return {
        "p50": percentile(delays, 50),
        "p99": percentile(delays, 99),
        "max": max(delays),
        "lost": len(committed.keys() - heard.keys()),
        "rate": len(committed) / seconds,
        "count": len(committed),
        "reads": reads,
    }


async def _hear(
    where: Table, seconds: float, *, poll: bool
) -> tuple[dict[int, float], dict[int, float], int]:
    from pgobserve.listen.listener import Listener
    from pgobserve.listen.payload import parse
    from pgobserve.outbox.event_subscriptions import EventSubscriptions
    from pgobserve.outbox.outbox_reader import OutboxReader

    heard: dict[int, float] = {}

    def on_change(change: Change) -> None:
        if change.label == WAKE_UP:
            reader.wake()
        else:
            heard.setdefault(change.xid, time.monotonic())

    async def call(function: Callable[[], Any]) -> Any:
        return function()

    def parameters() -> Mapping[str, Any]:
        return where.server.parameters()

    reader = OutboxReader(
        subscriptions=EventSubscriptions(),
        parameters=parameters,
        on_change=on_change,
        on_gap=lambda: None,
        call=call,
        poll=poll,
    )
    listener = Listener(
        *(parameters, "pgobserve"), lambda text: on_change(parse(text)), lambda gap: None
    )
    tasks = [asyncio.create_task(each.run()) for each in (listener, reader)]
    await asyncio.gather(listener.live.wait(), reader.live.wait())
    committed = await asyncio.to_thread(_written, parameters(), seconds)
    async with asyncio.timeout(10):
        while committed.keys() - heard.keys():  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return committed, heard, reader.state.reads


def _written(parameters: Mapping[str, Any], seconds: float) -> dict[int, float]:
    """Let another process write; return when each transaction was committed."""
    said = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.read_outbox",
            json.dumps(dict(parameters)),
            str(seconds),
        ],
        capture_output=True,
        check=True,
    ).stdout
    return {int(xid): at for xid, at in json.loads(said).items()}


def _write(parameters: Mapping[str, Any], seconds: float) -> dict[int, float]:
    committed: dict[int, float] = {}
    end = time.monotonic() + seconds

    def work(seed: int) -> None:
        draw = random.Random(seed)
        with psycopg.connect(**parameters) as connection:
            while time.monotonic() < end:
                row = connection.execute(UPDATE, [draw.randint(1, ROWS)]).fetchone()
                connection.commit()
                committed[row[0] if row else 0] = time.monotonic()
                time.sleep(draw.expovariate(1 / PAUSE))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return committed


if __name__ == "__main__":
    print(json.dumps(_write(json.loads(sys.argv[1]), float(sys.argv[2]))))
