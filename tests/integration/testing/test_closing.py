"""``close_feeds``: what a test's feed leaves behind, which is nothing."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from asgiref.sync import sync_to_async
from django.db import connection
from rest_framework.serializers import ModelSerializer

from pgobserve import monitoring
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelInstanceMixin
from pgobserve.testing import close_feeds
from tests.installing import install
from tests.project.models import Item
from tests.sockets import connected

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Serializer(ModelSerializer[Item]):
    class Meta:
        model = Item
        fields = ["id", "name"]


class _Consumer(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    queryset = Item.objects.all()
    serializer_class = _Serializer


@pytest.fixture
def item(transactional_db: None) -> Iterator[Item]:
    """A row of an observed table."""
    install("project.Item")
    yield Item.objects.create(name="a", rank=1)
    connection.close()


def _backends() -> int:
    """Count the sessions of this database besides the one that counts."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        (found,) = cursor.fetchone() or (0,)
    connection.close()
    return int(found)


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("pgobserve")}


async def test_nothing_is_left(item: Item) -> None:
    """Threads and connections are gone when it returns, and a new subscription starts anew."""
    before = await sync_to_async(_backends)(), _threads()
    for _ in range(2):
        async with connected(_Consumer.as_asgi()) as client:
            reply = await client.ask("subscribe_instance", pk=item.pk, request_id=1)
            assert reply["response_status"] == 201
            assert [feed.live for feed in monitoring.feeds()] == [True]
        assert _threads() - before[1]

        await close_feeds()

        assert (await sync_to_async(_backends)(), _threads()) == before


async def test_without_a_feed() -> None:
    """An event loop that has no feed has nothing to end."""
    await close_feeds()
