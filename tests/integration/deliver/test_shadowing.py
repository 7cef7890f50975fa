"""Feeds run no operator of a role that may create in ``public``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.deliver.conftest import run_sql
from tests.integration.deliver.test_instance import UPDATE, ItemConsumer
from tests.integration.deliver.test_list import ItemListConsumer, subscribe
from tests.integration.shadowing import ran, shadowed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.project.models import Item


@pytest.fixture
def shadows(observed: None) -> Iterator[None]:
    """Operators of another role's."""
    yield from shadowed()


@pytest.mark.usefixtures("shadows")
async def test_subscriptions(connect: Any, item: Item) -> None:
    """Subscriptions to a row and to a list begin, are told a change, and are resumed."""
    rows, lists = await connect(ItemConsumer), await connect(ItemListConsumer)
    await rows.subscribe(item.pk)
    listed = await subscribe(lists)
    have = dict(zip(listed["keys"], listed["etags"], strict=True))
    await run_sql(UPDATE, "two", item.pk)
    frames = [await rows.receive(), await lists.receive()]
    again = await connect(ItemListConsumer)
    await subscribe(again, have=have)

    assert [frame["data"]["name"] for frame in frames] == ["two", "two"]
    assert ran() == []
