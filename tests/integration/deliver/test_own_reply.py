"""Consumers whose own way to send raises anything: the next frame is sent, and so are others'."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.deliver.conftest import run_sql
from tests.integration.deliver.test_instance import ItemConsumer

if TYPE_CHECKING:
    from tests.project.models import Item

ERRORS: dict[str, type[BaseException]] = {
    error.__name__: error
    for error in (
        *(asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration),
        *(RecursionError, MemoryError, ValueError),
    )
}


class OwnReply(ItemConsumer):
    """Fails for a row that has the name of an error, before or after it has waited."""

    async def reply(self, action: Any, data: Any = None, **kwargs: Any) -> None:
        name = data["name"] if isinstance(data, dict) else ""
        if name.startswith("later "):
            await asyncio.sleep(0)
            name = name.removeprefix("later ")
        if name in ERRORS:
            raise ERRORS[name]
        await super().reply(action, data, **kwargs)


@pytest.mark.parametrize("when", ["", "later "])
@pytest.mark.parametrize("name", ERRORS)
async def test_frame_fails(
    connect: Any, item: Item, name: str, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The frame that failed is logged, and no other one is lost."""
    caplog.set_level(logging.ERROR, "pgobserve")
    fails, other = await connect(OwnReply), await connect(ItemConsumer)
    for socket in (fails, other):
        await socket.subscribe(item.pk)
    for number, text in enumerate((when + name, "good")):
        await run_sql("UPDATE project_item SET name = %s, rank = %s", text, number + 10)
        assert (await other.receive())["data"]["name"] == text
    assert (await fails.receive())["data"]["name"] == "good"
    assert re.search(
        r"A frame of \S*OwnReply with project.Item \d+ of database .default. could not be sent",
        caplog.text,
    )
