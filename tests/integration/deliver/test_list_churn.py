"""No gap, no double, no ghost: lists that come and go while everybody writes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import psycopg
from django.db import connection
from django.db.models import F
from rest_framework.filters import OrderingFilter, SearchFilter

from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelListMixin
from pgobserve.runtime import runtime
from tests.integration.deliver.conftest import settled
from tests.integration.deliver.test_list import ItemSerializer
from tests.project.models import Item

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.deliver.conftest import Socket

ROWS = 30
WRITERS = 4
TRANSACTIONS = 80

#: What writers who know nothing of each other run into.
HAPPENS = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.ObjectInUse,
    psycopg.errors.UniqueViolation,
)

Row = dict[str, Any]


class AnyConsumer(ObserverModelListMixin, GenericAsyncAPIConsumer):
    """Shows rows from some rank on, and to some users only those with even keys."""

    serializer_class = ItemSerializer
    filter_backends = [SearchFilter, OrderingFilter]
    search_fields = ["name"]

    def get_queryset(self, rank: int = 0, **kwargs: Any) -> Any:
        found = Item.objects.annotate(odd=F("id") % 2).filter(rank__gte=rank)
        return found.filter(odd=0) if self.scope["user"] == "even" else found


class Live:
    """
    A socket, and its lists as its frames tell them.

    Attributes:
        lists: Rows by key, by request id.
        told: How many frames of each kind there were.
    """

    def __init__(self, socket: Socket, user: str) -> None:
        self.user = user
        self.lists: dict[int, dict[int, Row]] = {}
        self.asked: dict[int, Row] = {}
        self.told: Counter[str] = Counter()
        self._socket = socket
        self._answers: dict[tuple[str, int], asyncio.Future[Any]] = {}
        self._coming: dict[int, list[Row]] = {}
        self._task = asyncio.create_task(self._read())

    async def ask(self, action: str, request_id: int, **content: Any) -> Any:
        """Send a request, and return the answer."""
        answer = self._answers[action, request_id] = asyncio.get_running_loop().create_future()
        await self._socket.send(action=action, request_id=request_id, **content)
        async with asyncio.timeout(60):
            done, _ = await asyncio.wait([answer, self._task], return_when="FIRST_COMPLETED")
        if self._task in done:
            self._task.result()
        return answer.result()

    async def subscribe(self, request_id: int, **content: Any) -> None:
        """Subscribe to a list, perhaps in place of another of this request id."""
        self._coming[request_id] = []
        frame = await self.ask("subscribe_list", request_id, max_rows=7, **content)
        assert frame["response_status"] == 201, frame
        self.asked[request_id] = content

    async def unsubscribe(self, request_id: int) -> None:
        """End a list."""
        frame = await self.ask("unsubscribe_list", request_id)
        assert frame["response_status"] == 204, frame

    async def _read(self) -> None:
        while True:
            message = await self._socket.communicator.output_queue.get()
            self._take(json.loads(message["text"]))

    def _take(self, frame: Any) -> None:
        request_id, action = frame["request_id"], frame["action"]
        assert frame["errors"] == [], frame
        if action == "subscribe_list":
            self._coming[request_id] += frame["data"]["results"]
            if frame.get("more"):
                return
            rows = self._coming.pop(request_id)
            self.lists[request_id] = {row["id"]: row for row in rows}
            assert len(self.lists[request_id]) == len(rows), "a row twice"
        elif action == "unsubscribe_list":
            del self.lists[request_id], self.asked[request_id]
        else:
            self._change(self.lists[request_id], action, frame["data"])
            return
        self._answers.pop((action, request_id)).set_result(frame)

    def _change(self, rows: dict[int, Row], action: str, data: Row) -> None:
        self.told[action] += 1
        key = data["pk"] if action == "delete" else data["id"]
        assert (key in rows) == (action != "create"), f"{action} of {key}"
        if action == "delete":
            del rows[key]
        else:
            assert rows.get(key) != data, "a frame without news"
            rows[key] = data

    def differs(self, table: dict[int, Row]) -> Any:
        """Return a list that is not what the table has for its subscriber."""
        for request_id, rows in self.lists.items():
            asked = self.asked[request_id]
            search = asked.get("query", {}).get("search", "")
            truth = {
                key: row
                for key, row in table.items()
                if row["rank"] >= asked.get("rank", 0)
                and search in row["name"]
                and (self.user != "even" or key % 2 == 0)
            }
            if rows != truth:
                return request_id, asked, rows, truth
        return None

    async def rest(self) -> None:
        """Wait until all frames that have come are taken."""
        while self._socket.communicator.output_queue.qsize():  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def aclose(self) -> None:
        """End the socket; raise what its reader found wrong."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self._socket.close()


class Writer(threading.Thread):
    """Writes so many transactions, as fast as it can, in every way that there is."""

    def __init__(self, seed: int) -> None:
        super().__init__(daemon=True)
        self._draw = random.Random(seed)
        self._seed = seed

    def run(self) -> None:
        """Write; what runs into the others is rolled back."""
        with psycopg.connect(**connection.get_connection_params()) as self._connection:
            for number in range(TRANSACTIONS):
                with contextlib.suppress(*HAPPENS):
                    for _ in range(self._draw.randint(1, 3)):
                        self._write(number)
                    if self._draw.random() < 0.9:
                        self._connection.commit()
                self._connection.rollback()

    def _write(self, number: int) -> None:
        draw, execute = self._draw, self._connection.execute
        key, rank = draw.randint(1, ROWS), draw.randint(0, 4)
        name = f"{draw.choice('ab')} {self._seed}.{number}"
        upsert = (
            "INSERT INTO project_item (id, name, rank) VALUES (%s, %s, %s) ON CONFLICT (id) "
            "DO UPDATE SET name = excluded.name, rank = excluded.rank"
        )
        kind = draw.random()
        if kind < 0.25:
            execute("UPDATE project_item SET name = %s WHERE id = %s", [name, key])
        elif kind < 0.45:
            execute(upsert, [key, name, rank])
        elif kind < 0.6:
            execute("DELETE FROM project_item WHERE id = %s", [key])
        elif kind < 0.7:
            new = 1000 * (self._seed + 1) + number
            execute("UPDATE project_item SET id = %s WHERE id = %s", [new, key])
        elif kind < 0.8:
            execute(
                "UPDATE project_item SET rank = %s WHERE id BETWEEN %s AND %s + 9", [rank, key, key]
            )
        elif kind < 0.86:
            execute("DELETE FROM project_item WHERE id > %s", [ROWS])
        elif kind < 0.94:
            execute("SAVEPOINT here")
            execute("UPDATE project_item SET name = 'never' WHERE id = %s", [key])
            execute("ROLLBACK TO here")
        elif kind < 0.97:
            execute(
                "INSERT INTO project_item (id, name, rank) SELECT n, %s, %s "
                "FROM generate_series(1, %s) n ON CONFLICT DO NOTHING",
                [name, rank, ROWS],
            )
        else:
            execute("TRUNCATE project_item CASCADE")


async def come_and_go(live: Live, writers: list[Writer], draw: random.Random) -> None:
    """Subscribe, unsubscribe and replace lists for as long as anybody writes."""
    while any(writer.is_alive() for writer in writers):
        request_id = draw.randint(1, 3)
        if request_id in live.lists and draw.random() < 0.4:
            await live.unsubscribe(request_id)
        else:
            content: Row = {"rank": draw.randint(0, 2)} if draw.random() < 0.5 else {}
            if draw.random() < 0.4:
                content["query"] = {"search": draw.choice("ab"), "ordering": "-id"}
            await live.subscribe(request_id, **content)
        await asyncio.sleep(draw.random() / 20)
    if not live.lists:
        await live.subscribe(1)


async def test_everybody_writes(connect: Callable[..., Any], observed: None) -> None:
    """Each replica fits all of its frames, and in the end it is what its subscriber may see."""
    lives = [Live(await connect(AnyConsumer, user=user), user) for user in ("all", "even") * 3]
    writers = [Writer(seed) for seed in range(WRITERS)]
    for writer in writers:
        writer.start()
    await asyncio.gather(
        *(come_and_go(live, writers, random.Random(n)) for n, live in enumerate(lives))
    )
    await asyncio.to_thread(lambda: [writer.join() for writer in writers])
    await settled()
    rows = await asyncio.to_thread(_table)
    for live in lives:
        await live.rest()
    told = sum((live.told for live in lives), Counter())

    assert [differing for live in lives if (differing := live.differs(rows))] == []
    assert min(told["create"], told["update"], told["delete"]) > 10, told
    for live in lives:
        for request_id in list(live.lists):
            await live.unsubscribe(request_id)
    assert all(feed.hub.empty for feed in runtime.current().feeds.values())
    for live in lives:
        await live.aclose()


def _table() -> dict[int, Row]:
    with contextlib.closing(connection):
        return {
            item.pk: {"id": item.pk, "name": item.name, "rank": item.rank}
            for item in Item.objects.all()
        }
