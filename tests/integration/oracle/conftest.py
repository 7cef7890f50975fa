"""The oracle's tables, and how the feed is set up for a walk."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections

from pgobserve.testing import close_feeds
from pgobserve.wire import TRANSPORTS
from tests.integration.deliver.conftest import only_own_events  # noqa: F401
from tests.integration.oracle.tables import oracle_tables

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
def seed() -> int:
    """What is random about a test."""
    return 0


@pytest.fixture
def threads() -> int:
    """How many threads read for the feed: one is left in any state, two in different ones."""
    return 1


@pytest.fixture
def transport(seed: int) -> str:
    """How changes travel."""
    return TRANSPORTS[seed // 2 % 2]


@pytest.fixture
def tables(
    transactional_db: None,
    transport: str,
    threads: int,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:
    """The tables with triggers."""
    settings.PGOBSERVE = {"TRANSPORT": transport, "LOADER_THREADS": threads}
    # Each socket's own actions have a thread, which keeps its connection until the socket closes.
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", None)
    with oracle_tables():
        yield


@pytest.fixture
async def feeds(tables: None) -> AsyncIterator[None]:
    """End the feeds with the test."""
    yield
    await close_feeds()
    await sync_to_async(connections.close_all)()


@pytest.fixture
def draw(seed: int) -> random.Random:
    """The randomness of a test."""
    return random.Random(seed)
