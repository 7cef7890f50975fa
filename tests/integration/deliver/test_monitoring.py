"""The state of the feeds, as health checks read it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pgobserve.monitoring import feeds
from pgobserve.runtime import runtime
from tests.integration.deliver.conftest import run_sql
from tests.integration.deliver.test_instance import ItemConsumer

if TYPE_CHECKING:
    from tests.project.models import Item


async def test_state(connect: Any, item: Item, transport: str) -> None:
    """A feed tells its subscriptions and whether it is live, from any thread, and when it lost."""
    socket = await connect(ItemConsumer)
    assert (await socket.subscribe(item.pk))["response_status"] == 201
    [before] = await asyncio.to_thread(feeds)
    await run_sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name LIKE 'pgobserve:%%' AND datname = current_database()"
    )
    await run_sql("UPDATE project_item SET name = 'healed'")
    healed = await socket.receive()
    # Of two connections either may be back first, and each makes everyone read again.
    async with asyncio.timeout(60):
        while not (after := feeds()[0]).live:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    assert before.listener is not None
    assert after.listener is not None
    assert before.live
    assert transport == "notify" or before.reader is not None
    assert (before.alias, before.subscriptions, before.listener.live) == ("default", 1, True)
    assert healed["data"]["name"] == "healed"
    assert (after.listener.gaps, after.listener.live, after.listener.error) == (1, True, None)


async def test_lost_triggers(connect: Any, item: Item) -> None:
    """A watched table whose trigger is disabled is named; enabled again, what was missed is read."""
    socket = await connect(ItemConsumer)
    await socket.subscribe(item.pk)
    monitor = runtime.current().feeds["default"].trigger_monitor
    await run_sql("ALTER TABLE project_item DISABLE TRIGGER pgobserve_u")
    await run_sql("UPDATE project_item SET name = 'missed'")
    await monitor.check()
    [during] = feeds()
    await run_sql("ALTER TABLE project_item ENABLE TRIGGER pgobserve_u")
    await monitor.check()

    assert during.unobserved == ("project_item",)
    assert (await socket.receive())["data"]["name"] == "missed"
    assert feeds()[0].unobserved == ()
