"""The action ``settled``: its reply comes after the frames of everything committed before it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from django.db import OperationalError
from rest_framework.exceptions import PermissionDenied

from pgobserve._consumer import inbox
from pgobserve.consumers import AsyncAPIConsumer
from pgobserve.decorators import action
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer import model_observer
from pgobserve.observer.generics import ObserverModelInstanceMixin
from pgobserve.read.row_reader import RowReader
from pgobserve.runtime import runtime
from pgobserve.subscribe.feeds import feed_of
from pgobserve.wire import FENCE
from tests.bookshelf.models import Book, Comment
from tests.integration.deliver.conftest import run_sql
from tests.integration.deliver.test_list import ItemListConsumer, ItemSerializer, subscribe
from tests.integration.deliver.test_model import Plain, evented  # noqa: F401 (a fixture)
from tests.integration.deliver.test_related import BookConsumer, shelf  # noqa: F401 (a fixture)
from tests.project.models import Item, Note

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.deliver.conftest import Socket

UPDATE = "UPDATE project_item SET name = %s WHERE id = %s"
END_LISTENERS = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
    "WHERE application_name LIKE 'pgobserve:%%' AND datname = current_database()"
)
ANSWER = {"action": "settled", "errors": [], "response_status": 200, "data": None}


class ItemConsumer(ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    queryset = Item.objects.all()
    serializer_class = ItemSerializer


async def answered(socket: Socket, request_id: Any = "s") -> list[Any]:
    """Send the request; return the frames that come before its answer."""
    await socket.send(action="settled", request_id=request_id)
    frames = []
    while (frame := await socket.receive())["action"] != "settled":
        frames.append(frame)
    assert frame == ANSWER | {"request_id": request_id}
    return frames


def hold_marks(feed: runtime.Feed, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Hold back marks until the event that is returned is set."""
    send, go_on = feed.fence._send, asyncio.Event()

    async def late(name: str) -> Any:
        await go_on.wait()
        return await send(name)

    monkeypatch.setattr(feed.fence, "_send", late)
    # A slow machine must not have another mark sent meanwhile.
    monkeypatch.setattr(feed.fence, "timeout", None)
    return go_on


async def test_row(connect: Any, item: Item) -> None:
    """The frame of a row that was written before comes first."""
    socket = await connect(ItemConsumer)
    await socket.subscribe(item.pk)
    for number in range(20):
        await run_sql(UPDATE, f"name {number}", item.pk)

        assert [each["data"]["name"] for each in await answered(socket)] == [f"name {number}"]


async def test_list(connect: Any, items: list[Item]) -> None:
    """So do all frames of a list."""
    socket = await connect(ItemListConsumer)
    await subscribe(socket)
    await run_sql("UPDATE project_item SET name = 'x'")
    await run_sql("INSERT INTO project_item (name, rank) VALUES ('new', 9)")

    frames = await answered(socket)
    assert sorted(each["action"] for each in frames) == ["create", "update", "update", "update"]


async def test_silent(connect: Any, item: Item) -> None:
    """A write that changes nothing shown has an answer alone."""
    socket = await connect(ItemConsumer)
    await socket.subscribe(item.pk)
    await run_sql("UPDATE project_item SET name = name")

    assert await answered(socket) == []


async def test_reverse_look_up(connect: Any, shelf: list[Book]) -> None:  # noqa: F811
    """A row that a change of another table leads to has its frame first."""
    socket = await connect(BookConsumer)
    await subscribe(socket)
    for number in range(5):
        await Comment.objects.acreate(book=shelf[1], text=f"{number}")

        (frame,) = await answered(socket)
        assert frame["data"]["comments"][-1] == {"text": f"{number}"}


async def test_nothing_to_tell(connect: Any, item: Item) -> None:
    """Without a subscription the answer comes at once, and no mark is sent."""
    socket = await connect(ItemConsumer)

    assert await answered(socket) == []
    assert feed_of("default").fence.rounds == 0


async def test_waits_for_the_load(
    connect: Any, item: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the load is not taken there is no answer."""
    socket = await connect(ItemConsumer)
    await socket.subscribe(item.pk)
    feed = feed_of("default")
    with monkeypatch.context() as patched:
        patched.setattr(feed.hub, "take", lambda limit, lane=None: [])
        await run_sql(UPDATE, "x", item.pk)
        await socket.send(action="settled", request_id=1)
        await _until(lambda: bool(feed.hub._awaited))

        assert await socket.communicator.receive_nothing(timeout=0.05)
    feed.loader.kick()  # type: ignore[union-attr]

    assert (await socket.receive())["action"] == "update"
    assert (await socket.receive())["action"] == "settled"


async def test_waits_while_frames_are_held(connect: Any, item: Item) -> None:
    """An action that is at work holds the frames, and with them the answer."""

    class Slow(ItemConsumer):
        @action()
        async def work(self, **kwargs: Any) -> tuple[Any, int]:
            await go_on.wait()
            return None, 200

    go_on = asyncio.Event()
    socket = await connect(Slow)
    await socket.subscribe(item.pk)
    await run_sql(UPDATE, "x", item.pk)
    await socket.send(action="settled", request_id=1)
    await socket.send(action="work", request_id=2)
    await asyncio.sleep(0)
    go_on.set()

    actions = [(await socket.receive())["action"] for _ in range(3)]
    assert actions.index("update") < actions.index("settled")


async def test_error_frame(connect: Any, item: Item) -> None:
    """A row that can't be shown counts as told once its error frame was sent."""

    class Broken(ItemSerializer):
        def to_representation(self, instance: Item) -> Any:
            if instance.name == "bad":
                raise RuntimeError("This row is bad.")
            return super().to_representation(instance)

    class BrokenConsumer(ItemConsumer):
        serializer_class = Broken

    socket = await connect(BrokenConsumer)
    await socket.subscribe(item.pk)
    await run_sql(UPDATE, "bad", item.pk)

    assert [each["response_status"] for each in await answered(socket)] == [500]
    assert await answered(socket) == []


@pytest.mark.parametrize("failures", [1, 3])
async def test_retried_load(
    connect: Any, items: list[Item], failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new row whose query fails at first is waited for: nothing was said of it."""
    left = failures

    load = RowReader.load

    def failing(self: RowReader, requests: Any) -> Any:
        nonlocal left
        if left:
            left -= 1
            raise OperationalError("canceling statement due to statement timeout")
        return load(self, requests)

    monkeypatch.setattr(RowReader, "load", failing)
    socket = await connect(ItemListConsumer)
    await subscribe(socket)
    await run_sql("INSERT INTO project_item (name, rank) VALUES ('new', 9)")

    assert [each["action"] for each in await answered(socket)] == ["create"]
    assert not left


async def test_listener_ended(connect: Any, item: Item) -> None:
    """A mark that is lost with the connection is sent again, and the healing reads come first."""
    socket = await connect(ItemConsumer)
    await socket.subscribe(item.pk)
    for number in range(5):
        await run_sql(END_LISTENERS)
        await run_sql(UPDATE, f"name {number}", item.pk)

        assert [each["data"]["name"] for each in await answered(socket)] == [f"name {number}"]


async def test_mark_is_lost(connect: Any, item: Item, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mark that went out before the connection was lost does not count."""
    socket = await connect(ItemConsumer)
    await socket.subscribe(item.pk)
    feed = feed_of("default")
    lost: list[Any] = []
    with monkeypatch.context() as patched:
        patched.setattr(feed._intake, "receive", lost.append)
        await run_sql(UPDATE, "x", item.pk)
        await socket.send(action="settled", request_id=1)
        await _until(lambda: any(change.label == FENCE for change in lost))
    await run_sql(END_LISTENERS)

    assert (await socket.receive())["action"] == "update"
    assert (await socket.receive())["action"] == "settled"
    assert feed.fence.rounds > 1


async def test_events(connect: Any, evented: None) -> None:  # noqa: F811
    """The handlers of a model observer have returned before the answer is sent."""

    class Slow(AsyncAPIConsumer):
        @model_observer(Note)
        async def changed(self, message: Any, action: str, **kwargs: Any) -> None:
            await asyncio.sleep(0.02)
            await self.send_json({"action": action, "message": message})

        @action()
        async def watch(self, request_id: Any = None, **kwargs: Any) -> tuple[Any, int]:
            return await self.changed.subscribe(request_id=request_id), 201

    socket = await connect(Slow)
    assert await answered(socket) == []  # it is in no group yet
    assert feed_of("default").fence.rounds == 0
    await socket.ask("watch", request_id=1)
    for _ in range(3):
        await run_sql("INSERT INTO project_note (name, rank) VALUES ('a', 1), ('b', 2)")

        assert [each["action"] for each in await answered(socket)] == ["create", "create"]


async def test_left_group(connect: Any, evented: None) -> None:  # noqa: F811
    """A socket that has left its groups waits for nothing."""
    socket = await connect(Plain)
    await socket.ask("watch", request_id=1)
    await socket.ask("leave", request_id=1)

    assert await answered(socket) == []
    assert feed_of("default").fence.rounds == 0


async def test_database_away(connect: Any, item: Item, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that can't be answered in time has the status 503; a later one is answered."""
    monkeypatch.setattr(inbox.SettledRequests.__init__, "__defaults__", (0.2,))
    socket = await connect(ItemConsumer)
    await socket.subscribe(item.pk)
    feed = feed_of("default")
    with monkeypatch.context() as patched:
        patched.setattr(feed.hub, "take", lambda limit, lane=None: [])
        await run_sql(UPDATE, "x", item.pk)
        refused = await socket.ask("settled", request_id=1)
    feed.loader.kick()  # type: ignore[union-attr]

    assert (refused["response_status"], refused["request_id"]) == (503, 1)
    assert (await socket.receive())["action"] == "update"
    assert await answered(socket) == []
    assert not feed.hub._awaited


async def test_many_requests(connect: Any, item: Item, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of requests share few marks; what is too much is refused at once."""
    socket = await connect(ItemConsumer)
    await socket.subscribe(item.pk)
    go_on = hold_marks(feed_of("default"), monkeypatch)
    await socket.send(action="settled", request_id=0)
    await _until(lambda: feed_of("default").fence.rounds == 1)
    for number in range(1, 3000):
        await socket.send(action="settled", request_id=number)
    refused = [await socket.receive() for _ in range(3000 - inbox.MOST_WAITING - 1)]
    go_on.set()
    answers = [await socket.receive() for _ in range(inbox.MOST_WAITING + 1)]

    assert {each["response_status"] for each in refused} == {429}
    assert {each["response_status"] for each in answers} == {200}
    assert {each["request_id"] for each in (*refused, *answers)} == {*range(3000)}
    assert feed_of("default").fence.rounds == 2


async def test_sockets_share(connect: Any, item: Item, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of several sockets that come while a mark is under way share the next one."""
    sockets = [await connect(ItemConsumer) for _ in range(10)]
    for socket in sockets:
        await socket.subscribe(item.pk)
    feed = feed_of("default")
    go_on = hold_marks(feed, monkeypatch)
    await sockets[0].send(action="settled", request_id=1)
    await _until(lambda: feed.fence.rounds == 1)
    for socket in sockets[1:]:
        await socket.send(action="settled", request_id=1)
    await _until(lambda: len(feed.fence._waiting) == 9)
    go_on.set()
    for socket in sockets:
        assert (await socket.receive())["action"] == "settled"

    assert feed.fence.rounds == 2


async def test_closed_socket(connect: Any, item: Item, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that closes while it waits leaves nothing behind."""
    socket = await connect(ItemConsumer)
    await socket.subscribe(item.pk)
    feed = feed_of("default")
    with monkeypatch.context() as patched:
        patched.setattr(feed.hub, "take", lambda limit, lane=None: [])
        await run_sql(UPDATE, "x", item.pk)
        for number in range(3):
            await socket.send(action="settled", request_id=number)
        await _until(lambda: bool(feed.hub._awaited))
        await socket.close()

    assert feed.hub.empty
    assert feed.fence._task is None
    assert not [
        task
        for task in asyncio.all_tasks()
        if "settled" in task.get_name() or "fence" in task.get_name()
    ]


async def test_closed_while_marked(
    connect: Any, item: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that closes before the mark is back ends the mark's task."""
    socket = await connect(ItemConsumer)
    await socket.subscribe(item.pk)
    feed = feed_of("default")
    monkeypatch.setattr(feed.fence, "receive", lambda keys: None)
    monkeypatch.setattr(feed.fence, "_reached", lambda snapshot: asyncio.sleep(3600))
    await socket.send(action="settled", request_id=1)
    await _until(lambda: feed.fence.rounds == 1)
    await socket.close()

    assert feed.fence._task is None
    assert not feed.fence._names


async def test_feed_is_stopped(connect: Any, item: Item, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the feeds are closed the request is answered with 503, and no feed starts again."""
    socket = await connect(ItemConsumer)
    await socket.subscribe(item.pk)
    feed = feed_of("default")
    monkeypatch.setattr(feed.fence, "receive", lambda keys: None)
    monkeypatch.setattr(feed.fence, "_reached", lambda snapshot: asyncio.sleep(3600))
    await socket.send(action="settled", request_id=1)
    await _until(lambda: feed.fence.rounds == 1)
    await runtime.current().aclose()

    assert (await socket.receive())["response_status"] == 503
    assert not feed.running


async def test_own_action(connect: Any, item: Item) -> None:
    """A project's own action of that name is called, in whatever order it derives."""

    class Base(GenericAsyncAPIConsumer):
        @action()
        async def settled(self, **kwargs: Any) -> tuple[Any, int]:
            return "paid", 202

    class Own(ObserverModelInstanceMixin, Base):
        queryset = Item.objects.all()
        serializer_class = ItemSerializer

    socket = await connect(Own)

    assert (await socket.ask("settled", request_id=1))["data"] == "paid"


async def test_own_method(connect: Any, item: Item) -> None:
    """A project's method of that name that is no action is left alone."""

    class Own(ItemConsumer):
        settled = False

    socket = await connect(Own)

    assert await answered(socket) == []


async def test_not_there(connect: Any) -> None:
    """A consumer without subscriptions and observers has no such action."""
    socket = await connect(AsyncAPIConsumer)

    assert (await socket.ask("settled", request_id=1))["response_status"] == 405


async def test_permissions(connect: Any, item: Item) -> None:
    """Permissions are asked as for any action."""

    class Closed(ItemConsumer):
        async def check_permissions(self, action: str, **kwargs: Any) -> None:
            if action == "settled":
                raise PermissionDenied

    socket = await connect(Closed)

    assert (await socket.ask("settled", request_id=1))["response_status"] == 403


async def test_forged_mark(connect: Any, item: Item, transport: str) -> None:
    """A mark of another process, or a forged one, is no answer to anybody's request."""
    socket = await connect(ItemConsumer)
    await socket.subscribe(item.pk)
    feed = feed_of("default")
    assert feed.listener is not None
    ignored = feed.listener.state.ignored
    await run_sql(
        "SELECT pg_notify('pgobserve', "
        """'{"v":1,"t":"pgobserve.fence","o":"I","x":"0","k":["x", 1, [2]]}')"""
    )
    await run_sql(UPDATE, "x", item.pk)

    assert len(await answered(socket)) == 1
    assert feed.listener.state.ignored == ignored


@pytest.fixture
def flooded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every change is a flood."""
    monkeypatch.setattr("pgobserve.listen.intake.MAX_STEPS", 0)


async def test_flood(connect: Any, item: Item, flooded: None) -> None:
    """A table whose changes are marked late, for there are too many, is waited for."""
    socket = await connect(ItemConsumer)
    await socket.subscribe(item.pk)
    for number in range(5):
        await run_sql(UPDATE, f"name {number}", item.pk)

        assert [each["data"]["name"] for each in await answered(socket)] == [f"name {number}"]


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
