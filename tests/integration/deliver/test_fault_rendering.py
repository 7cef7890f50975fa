"""A serializer that raises, and how often."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from tests.integration.deliver.conftest import run_sql
from tests.integration.deliver.test_instance import UPDATE, ItemConsumer

if TYPE_CHECKING:
    import pytest

    from tests.project.models import Item

calls: list[Any] = []


class Fragile(ItemConsumer.serializer_class):  # type: ignore[misc, name-defined]
    """Raises for a bad row, after a look at who asks if it is a bad one of somebody's."""

    def to_representation(self, instance: Item) -> Any:
        calls.append(instance.name)
        if instance.name == "bad":
            raise RuntimeError("This row is bad.")
        if instance.name == "bad for one" and self.context["scope"].get("poor"):
            raise RuntimeError("This row is bad for him.")
        return super().to_representation(instance)


class FragileConsumer(ItemConsumer):
    serializer_class = Fragile


async def test_raises_for_all(connect: Any, item: Item, caplog: pytest.LogCaptureFixture) -> None:
    """What raises without a look at the audience is called once, and logged once, for all."""
    sockets = [await connect(FragileConsumer) for _ in range(3)]
    await asyncio.gather(*(socket.subscribe(item.pk) for socket in sockets))
    calls.clear()
    with caplog.at_level(logging.ERROR):
        await run_sql(UPDATE, "bad", item.pk)
        frames = [await socket.receive() for socket in sockets]

    assert [frame["response_status"] for frame in frames] == [500] * 3
    assert calls == ["bad"]
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "This row is bad." in str(record.exc_info[1])
    await run_sql(UPDATE, "good", item.pk)
    assert [(await socket.receive())["data"]["name"] for socket in sockets] == ["good"] * 3


async def test_raises_for_one(connect: Any, item: Item, caplog: pytest.LogCaptureFixture) -> None:
    """What raises after a look at the audience is told to that one, and the others are served."""
    poor = await connect(FragileConsumer, poor=True)
    others = [await connect(FragileConsumer) for _ in range(2)]
    await asyncio.gather(*(socket.subscribe(item.pk) for socket in (poor, *others)))
    with caplog.at_level(logging.ERROR):
        await run_sql(UPDATE, "bad for one", item.pk)

        assert (await poor.receive())["response_status"] == 500
        for socket in others:
            assert (await socket.receive())["data"]["name"] == "bad for one"
    assert len(caplog.records) == 1
