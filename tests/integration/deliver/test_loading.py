"""Loads: what gathers meanwhile, what must not hold them up, and what they cost."""

from __future__ import annotations

import asyncio
import itertools
import threading
from typing import Any

import pytest
from django.db import connections
from rest_framework import serializers

from pgobserve.decorators import action
from pgobserve.load.batches import MAX_KEYS_PER_QUERY
from pgobserve.runtime import runtime
from pgobserve.workers import retrying
from tests.integration.deliver.conftest import run_sql, settled
from tests.integration.deliver.test_audiences import consumer_of
from tests.integration.deliver.test_instance import UPDATE, ItemConsumer, ItemSerializer
from tests.project.models import Item


class Gate:
    """Holds a serializer until the test lets it go on."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.entered = threading.Event()
        self.opened = threading.Event()

    def serializer(self) -> Any:
        """Return a serializer class that stops at a row of this name."""
        gate = self

        class Gated(ItemSerializer):
            def to_representation(self, instance: Item) -> Any:
                if instance.name == gate.name:
                    gate.entered.set()
                    assert gate.opened.wait(60)
                return super().to_representation(instance)

        return Gated

    async def wait(self) -> None:
        """Return when the serializer has stopped."""
        assert await asyncio.to_thread(self.entered.wait, 60)


@pytest.fixture
def gate() -> Any:
    """A gate that is open at the latest when the test has ended."""
    made = Gate("held")
    yield made
    made.opened.set()


async def test_keys_gather_while_a_load_runs(
    connect: Any, item: Item, gate: Gate, settings: Any
) -> None:
    """What changes during a load is one next load, and one frame with the last state for each row."""
    settings.PGOBSERVE = {"LOADER_THREADS": 1}
    others = [await Item.objects.acreate(name="other") for _ in range(20)]
    socket = await connect(consumer_of(gate.serializer()))
    for row in (item, *others):
        await socket.subscribe(row.pk, row.pk)
    loader = runtime.current().feeds["default"].loader
    await run_sql(UPDATE, "held", item.pk)
    await gate.wait()
    batches = loader.state.batches  # type: ignore[union-attr]
    for number in range(5):
        await run_sql("UPDATE project_item SET name = %s WHERE id <> %s", f"v{number}", item.pk)
    gate.opened.set()
    frames = [await socket.receive() for _ in range(21)]

    assert await socket.has_nothing()
    assert [f["data"]["name"] for f in frames] == ["held"] + ["v4"] * 20
    assert loader.state.batches <= batches + 3  # type: ignore[union-attr]


async def test_slow_serializer_does_not_hold_other_rows(
    connect: Any, item: Item, gate: Gate
) -> None:
    """While one row is being serialized, another one is read and delivered."""
    other = await Item.objects.acreate(name="other")
    slow, quick = await connect(consumer_of(gate.serializer())), await connect(ItemConsumer)
    await slow.subscribe(item.pk)
    await quick.subscribe(other.pk)
    await run_sql(UPDATE, "held", item.pk)
    await gate.wait()
    await run_sql(UPDATE, "two", other.pk)

    assert (await quick.receive())["data"]["name"] == "two"
    gate.opened.set()
    assert (await slow.receive())["data"]["name"] == "held"


async def test_slow_view_does_not_hold_the_feed(connect: Any, item: Item, gate: Gate) -> None:
    """A synchronous action that blocks the thread of all synchronous code does not hold the feed."""

    class Blocking(ItemConsumer):
        @action()
        def block(self, **kwargs: Any) -> tuple[Any, int]:
            gate.entered.set()
            assert gate.opened.wait(60)
            return None, 200

    blocked, watching = await connect(Blocking), await connect(ItemConsumer)
    await watching.subscribe(item.pk)
    await blocked.send(action="block", request_id=1)
    await gate.wait()
    await run_sql(UPDATE, "two", item.pk)

    assert (await watching.receive())["data"]["name"] == "two"
    gate.opened.set()
    await blocked.receive()


async def test_more_rows_than_a_batch(connect: Any, observed: None, settings: Any) -> None:
    """More rows than one query may read are read by several, each row once."""
    settings.PGOBSERVE = {"MAX_SUBSCRIPTIONS": 2 * MAX_KEYS_PER_QUERY, "LOADER_THREADS": 1}
    count = MAX_KEYS_PER_QUERY + 10
    await run_sql(
        "INSERT INTO project_item (name, rank) SELECT 'n', i FROM generate_series(1, %s) i", count
    )
    keys = [pk async for pk in Item.objects.values_list("pk", flat=True)]
    socket = await connect(ItemConsumer)
    for key in keys:
        await socket.subscribe(key, key)
    await settled()
    loader = runtime.current().feeds["default"].loader
    batches, rows = loader.state.batches, loader.state.rows  # type: ignore[union-attr]
    await run_sql("UPDATE project_item SET name = 'm'")
    seen = {(await socket.receive())["data"]["id"] for _ in keys}

    assert seen == set(keys)
    assert loader.state.rows - rows == count  # type: ignore[union-attr]
    assert 2 <= loader.state.batches - batches <= 4  # type: ignore[union-attr]


async def test_connection_is_kept_between_loads(connect: Any, item: Item) -> None:
    """The loader's connection serves many loads, though Django's default ends it with the request."""
    pids: set[int] = set()

    class Telling(serializers.ModelSerializer):
        class Meta:
            model = Item
            fields = ["name"]

        def to_representation(self, instance: Item) -> Any:
            pids.add(connections["default"].connection.info.backend_pid)
            return super().to_representation(instance)

    assert connections["default"].settings_dict["CONN_MAX_AGE"] == 0
    socket = await connect(consumer_of(Telling))
    await socket.subscribe(item.pk)
    for number in range(10):
        await run_sql(UPDATE, str(number), item.pk)
        await socket.receive()

    # One for each of the loader's threads.
    assert len(pids) <= 2


async def test_failing_statement_is_repeated(
    connect: Any, item: Item, monkeypatch: Any, caplog: Any
) -> None:
    """A query that fails for a reason that passes is told once, and repeated until it succeeds."""
    monkeypatch.setattr(retrying.Retries.__init__, "__defaults__", (lambda: itertools.repeat(0.0),))

    socket = await connect(ItemConsumer)
    await socket.subscribe(item.pk)
    await run_sql("UPDATE project_item SET name = 'two'")
    assert (await socket.receive())["data"]["name"] == "two"
    # Renamed, the column can't be read; no notification tells when it can be again.
    await run_sql("ALTER TABLE project_item RENAME COLUMN name TO other")
    await run_sql("UPDATE project_item SET other = 'three'")
    failed = await socket.receive()
    assert await socket.communicator.receive_nothing(timeout=0.2)
    await run_sql("ALTER TABLE project_item RENAME COLUMN other TO name")

    assert (failed["response_status"], failed["data"]) == (500, None)
    assert (await socket.receive())["data"]["name"] == "three"
    assert "does not exist" in caplog.text
