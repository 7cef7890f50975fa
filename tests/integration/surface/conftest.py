"""Consumers on a real database; no feed, no triggers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture(autouse=True)
async def own_connections(transactional_db: None) -> AsyncIterator[None]:
    """Close the connections of the thread that actions run in, so that the database can go."""
    yield
    await sync_to_async(connections.close_all)()


@pytest.fixture
def items(transactional_db: None) -> list[Item]:
    """Five rows."""
    return [Item.objects.create(name=name, rank=rank) for rank, name in enumerate("edcba")]
