"""A socket that closes while something of it is still under way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pgobserve.exceptions import ClientDisconnected
from pgobserve.runtime import runtime
from tests.integration.deliver.test_instance import ItemConsumer
from tests.project.models import Item

if TYPE_CHECKING:
    from pgobserve.subscribe.socket_subscriptions import Subscriptions

opened: list[Subscriptions] = []


class TellingConsumer(ItemConsumer):
    async def connect(self) -> None:
        opened.append(self.subscriptions)
        await super().connect()


async def test_subscription_that_begins_after_the_close(connect: Any, item: Item) -> None:
    """What began before the socket closed and is read after it watches nothing."""
    stays = await connect(ItemConsumer)
    await stays.subscribe(item.pk)
    goes = await connect(TellingConsumer)
    await goes.close()
    subscriptions = opened.pop()
    kwargs = {"request_id": 1, "action": "update"}
    with pytest.raises(ClientDisconnected):
        await subscriptions.rows.start(Item, item.pk, item.pk, kwargs)
    # As if it had started before.
    await subscriptions.rows._start(Item, item.pk, ("1", "1"), kwargs, 0, False, False)

    assert len(runtime.current().feeds["default"].hub) == 1
