"""Up to which snapshot everything has been heard of."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pgobserve.deliver.feeds import feed_of
from pgobserve.hub.snapshot import Snapshot
from tests.integration.deliver.conftest import run_sql
from tests.integration.deliver.test_list import ItemListConsumer, subscribe

if TYPE_CHECKING:
    import pytest

    from tests.project.models import Item

UPDATE = "UPDATE project_item SET name = 'x' WHERE id = %s"


def seen(frame: Any) -> Snapshot:
    """Return the snapshot in a frame's token."""
    return Snapshot.parse(frame["token"].partition("~")[0])


async def confirm() -> None:
    """Have the feed confirm what it has heard."""
    feed = feed_of("default")
    assert feed.confirmer is not None
    assert feed.loader is not None
    await feed.confirmer.confirm(feed.loader)


async def test_token_is_not_the_load(connect: Any, items: list[Item]) -> None:
    """A row's frame claims nothing of other rows: its token is older than what it shows."""
    socket = await connect(ItemListConsumer)
    begun = await subscribe(socket)
    await run_sql(UPDATE, items[0].pk)

    assert seen(await socket.receive()) == seen(begun)


async def test_token_advances(connect: Any, items: list[Item]) -> None:
    """Once it is known that everything was heard, tokens say so."""
    socket = await connect(ItemListConsumer)
    begun = await subscribe(socket)
    await run_sql(UPDATE, items[0].pk)
    await socket.receive()
    await confirm()
    await run_sql(UPDATE, items[1].pk)
    token = seen(await socket.receive())

    assert token.covers(seen(begun))
    assert not seen(begun).covers(token)


async def test_waits_for_loads(
    connect: Any,
    items: list[Item],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was heard and not yet told is not claimed."""
    socket = await connect(ItemListConsumer)
    begun = await subscribe(socket)
    hub = feed_of("default").hub
    with monkeypatch.context() as patched:
        patched.setattr(hub, "take", lambda limit: [])
        await run_sql(UPDATE, items[0].pk)
        async with asyncio.timeout(60):
            while not hub.dirty:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await confirm()
    feed_of("default").loader.kick()  # type: ignore[union-attr]

    assert seen(await socket.receive()) == seen(begun)


async def test_confirms_by_itself(connect: Any, items: list[Item]) -> None:
    """While a list changes it is confirmed from time to time, and then no more."""
    socket = await connect(ItemListConsumer)
    await subscribe(socket)
    hub = feed_of("default").hub
    await run_sql(UPDATE, items[0].pk)
    await socket.receive()
    async with asyncio.timeout(20):
        while hub.unconfirmed:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
