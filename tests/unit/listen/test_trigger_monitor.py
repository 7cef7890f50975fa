"""Tables that lose their triggers while they are watched."""

from __future__ import annotations

import asyncio
from typing import Any

from pgobserve.database.connection_watchdog import Unreachable
from pgobserve.listen.trigger_monitor import TriggerMonitor


class Server:
    """Has triggers on some tables."""

    def __init__(self, *observed: str) -> None:
        self.observed = set(observed)
        self.returned = 0
        self.asked = asyncio.Event()
        self.away = False

    async def is_observed(self, table: str) -> bool:
        self.asked.set()
        if self.away:
            raise Unreachable
        return table in self.observed

    def on_return(self) -> None:
        self.returned += 1


async def test_triggers_lost_and_back(caplog: Any) -> None:
    """The loss is said once; the return has everything read again, once."""
    server = Server("a", "b")
    monitor = TriggerMonitor(lambda: ["a", "b"], server.is_observed, server.on_return)
    await monitor.check()
    server.observed.discard("b")
    for _ in range(2):
        await monitor.check()
    assert monitor.missing == {"b"}
    assert caplog.text.count("Table b (b) in database 'default' has subscribers and has lost") == 1
    server.observed.add("b")
    for _ in range(2):
        await monitor.check()

    assert monitor.missing == set()
    assert server.returned == 1
    lost, back = caplog.records
    assert (lost.levelname, back.levelname) == ("WARNING", "WARNING")
    assert "Table b (b) in database 'default' has its triggers again" in back.getMessage()


async def test_table_that_nobody_watches_any_more() -> None:
    """A table without watchers is not missed."""
    server = Server()
    tables = ["a"]
    monitor = TriggerMonitor(lambda: tables, server.is_observed, server.on_return)
    await monitor.check()
    tables.clear()
    await monitor.check()

    assert monitor.missing == set()
    assert server.returned == 0


async def test_looks_go_on_while_the_database_is_away() -> None:
    """A look that fails ends nothing."""
    server = Server()
    server.away = True
    monitor = TriggerMonitor(lambda: ["a"], server.is_observed, server.on_return, period=0)
    looking = asyncio.create_task(monitor.run())
    for _ in range(3):
        server.asked.clear()
        await server.asked.wait()
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)

    assert monitor.missing == set()
