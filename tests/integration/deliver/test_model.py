"""Observers of models: which events reach which handlers, whoever writes."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, transaction
from django.db.models.signals import m2m_changed, post_delete, post_init, post_save
from rest_framework import serializers

from pgobserve.consumers import AsyncAPIConsumer
from pgobserve.decorators import action
from pgobserve.event_handlers import dispatch
from pgobserve.install import targets
from pgobserve.observer import model_observer
from tests import installing
from tests.integration.deliver.conftest import run_sql
from tests.project.models import Note, Photo, Topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class NoteSerializer(serializers.ModelSerializer[Note]):
    class Meta:
        model = Note
        fields = ["id", "name", "rank"]


def install() -> None:
    """Install the triggers of notes, photos, and what notes are about."""
    installing.install(*(model._meta.label for model in (Photo, Note.topics.through)))


@pytest.fixture
def evented(transactional_db: None, settings: Any) -> Iterator[None]:
    """Triggers that write to the outbox."""
    settings.PGOBSERVE = {"TRANSPORT": "outbox"}
    install()
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA pgobserve CASCADE")


class Plain(AsyncAPIConsumer):
    """Tells all that its handler is told."""

    @model_observer(Note, serializer_class=NoteSerializer)
    async def changed(
        self, message: Any, action: str, subscribing_request_ids: Any = (), **kwargs: Any
    ) -> None:
        await self.send_json({"action": action, "message": message, "ids": subscribing_request_ids})

    @action()
    async def watch(self, request_id: Any = None, **kwargs: Any) -> tuple[Any, int]:
        return await self.changed.subscribe(request_id=request_id), 201

    @action()
    async def leave(self, request_id: Any = None, **kwargs: Any) -> tuple[Any, int]:
        return await self.changed.unsubscribe(request_id=request_id), 204


class Grouped(AsyncAPIConsumer):
    """Tells what happens to items of a name."""

    @model_observer(Note, serializer_class=NoteSerializer)
    async def changed(
        self, message: Any, action: str, subscribing_request_ids: Any = (), **kwargs: Any
    ) -> None:
        await self.send_json({"action": action, "message": message, "ids": subscribing_request_ids})

    @changed.groups_for_signal
    def changed(self, instance: Note, **kwargs: Any) -> Iterator[str]:
        yield instance.name

    @changed.groups_for_consumer
    def changed(self, name: str, **kwargs: Any) -> Iterator[str]:
        yield name

    @action()
    async def watch(self, name: str, request_id: Any = None, **kwargs: Any) -> tuple[Any, int]:
        return await self.changed.subscribe(name, request_id=request_id), 201

    @action()
    async def leave(self, name: str, request_id: Any = None, **kwargs: Any) -> tuple[Any, int]:
        return await self.changed.unsubscribe(name, request_id=request_id), 204


def told(action: str, pk: int, name: str, rank: int = 0, ids: Any = (1,)) -> dict[str, Any]:
    """Return the frame that the consumers above send."""
    message = {"id": pk, "name": name, "rank": rank}
    return {"action": action, "message": message, "ids": list(ids)}


async def test_sql_is_seen(connect: Callable[..., Any], evented: None) -> None:
    """A row that a program writes, changes and deletes by SQL makes three events, the last whole."""
    socket = await connect(Plain)
    assert (await socket.ask("watch", request_id=1))["response_status"] == 201

    await run_sql("INSERT INTO project_note (id, name, rank) VALUES (7, 'a', 0)")
    await run_sql("UPDATE project_note SET rank = 1")
    await run_sql("DELETE FROM project_note")

    assert await socket.receive() == told("create", 7, "a")
    assert await socket.receive() == told("update", 7, "a", 1)
    assert await socket.receive() == told("delete", 7, "a", 1)


async def test_bulk_writes_are_seen(connect: Callable[..., Any], evented: None) -> None:
    """Rows that are written in bulk make one event each."""
    socket = await connect(Plain)
    await socket.ask("watch", request_id=1)

    await asyncio.to_thread(
        lambda: (
            Note.objects.bulk_create([Note(pk=n, name="a") for n in (1, 2)]),
            Note.objects.update(rank=5),
            Note.objects.all().delete(),
            connection.close(),
        )
    )

    frames = [await socket.receive() for _ in range(6)]
    assert [(f["action"], f["message"]["id"]) for f in frames] == [
        (action, pk) for action in ("create", "update", "delete") for pk in (1, 2)
    ]


def _in_one_transaction(*steps: Callable[[], Any]) -> None:
    with transaction.atomic():
        for step in steps:
            step()
    connection.close()


async def test_folds_a_transaction(connect: Callable[..., Any], evented: None) -> None:
    """A transaction makes one event for a row: what became of it in the end."""
    socket = await connect(Plain)
    await socket.ask("watch", request_id=1)
    items = Note.objects
    await asyncio.to_thread(
        _in_one_transaction,
        lambda: items.create(pk=1, name="a"),
        lambda: items.filter(pk=1).update(rank=1),
        lambda: items.create(pk=2, name="never"),
        lambda: items.filter(pk=2).delete(),
    )
    await asyncio.to_thread(
        _in_one_transaction,
        lambda: items.filter(pk=1).update(rank=2),
        lambda: items.filter(pk=1).delete(),
    )

    assert await socket.receive() == told("create", 1, "a", 1)
    assert await socket.receive() == told("delete", 1, "a", 1)


async def test_no_event_before_the_subscription(connect: Callable[..., Any], evented: None) -> None:
    """What was committed before a subscription began is not told, though it comes after the 201."""
    other = await connect(Plain)
    await other.ask("watch", request_id=9)
    await run_sql("INSERT INTO project_note (id, name, rank) VALUES (1, 'before', 0)")
    socket = await connect(Plain)
    await socket.ask("watch", request_id=1)
    await run_sql("INSERT INTO project_note (id, name, rank) VALUES (2, 'after', 0)")

    assert await socket.receive() == told("create", 2, "after")
    assert [(await other.receive())["message"]["id"] for _ in range(2)] == [1, 2]


async def test_reply_goes_before_its_events(connect: Callable[..., Any], evented: None) -> None:
    """The reply to an action precedes the events that it caused."""

    class Writing(Plain):
        @action()
        async def write(self, **kwargs: Any) -> tuple[Any, int]:
            await run_sql("INSERT INTO project_note (id, name, rank) VALUES (1, 'a', 0)")
            await asyncio.wait_for(seen.wait(), 60)
            return None, 200

    seen = asyncio.Event()
    other = await connect(Plain)
    await other.ask("watch", request_id=9)
    socket = await connect(Writing)
    await socket.ask("watch", request_id=1)
    await socket.send(action="write", request_id=2)
    await other.receive()
    seen.set()

    assert (await socket.receive())["action"] == "write"
    assert await socket.receive() == told("create", 1, "a")


async def test_moves_between_groups(connect: Callable[..., Any], evented: None) -> None:
    """A row that moves is deleted for its old group and created for its new one."""
    old, new = await connect(Grouped), await connect(Grouped)
    await old.ask("watch", name="old", request_id=1)
    await new.ask("watch", name="new", request_id=2)

    await run_sql("INSERT INTO project_note (id, name, rank) VALUES (1, 'old', 0)")
    await run_sql("UPDATE project_note SET rank = 1")
    await run_sql("UPDATE project_note SET name = 'new'")
    await run_sql("DELETE FROM project_note")

    frames = [await old.receive() for _ in range(3)]
    assert [frame["action"] for frame in frames] == ["create", "update", "delete"]
    assert await new.receive() == told("create", 1, "new", 1, [2])
    assert await new.receive() == told("delete", 1, "new", 1, [2])


async def test_request_ids(connect: Callable[..., Any], evented: None) -> None:
    """The handler is called once for all of a socket's ids; ending one leaves the others."""
    socket = await connect(Grouped)
    for request_id in (1, {"any": "JSON"}, 1):
        await socket.ask("watch", name="a", request_id=request_id)
    await run_sql("INSERT INTO project_note (id, name, rank) VALUES (1, 'a', 0)")
    assert await socket.receive() == told("create", 1, "a", ids=[1, {"any": "JSON"}])

    await socket.ask("leave", name="a", request_id=1)
    await run_sql("UPDATE project_note SET rank = 1")
    assert await socket.receive() == told("update", 1, "a", 1, ids=[{"any": "JSON"}])

    await socket.ask("leave", name="a")
    await run_sql("UPDATE project_note SET rank = 2")
    await socket.ask("watch", name="a", request_id=3)
    await run_sql("UPDATE project_note SET rank = 3")
    assert await socket.receive() == told("update", 1, "a", 3, ids=[3])


async def test_unsubscribes_what_has_no_request_id(
    connect: Callable[..., Any], evented: None
) -> None:
    """A subscription without a request id tells no ids, and ends before any event has come."""
    socket = await connect(Plain)
    await socket.ask("watch")
    await socket.ask("leave")
    await run_sql("INSERT INTO project_note (id, name, rank) VALUES (1, 'a', 0)")
    await socket.ask("watch")
    await run_sql("UPDATE project_note SET rank = 1")

    assert await socket.receive() == told("update", 1, "a", 1, ids=[])


async def test_handler_that_raises(
    connect: Callable[..., Any], evented: None, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception in a handler is logged, and the socket goes on with the next event."""

    class Raising(AsyncAPIConsumer):
        @model_observer(Note)
        async def changed(self, message: Any, action: str, **kwargs: Any) -> None:
            if action == "create":
                raise RuntimeError("no")
            await self.send_json([message, action])

        @action()
        async def watch(self, **kwargs: Any) -> tuple[Any, int]:
            return await self.changed.subscribe(), 201

    socket = await connect(Raising)
    await socket.ask("watch")
    await run_sql("INSERT INTO project_note (id, name, rank) VALUES (1, 'a', 0)")
    await run_sql("UPDATE project_note SET rank = 1")

    assert await socket.receive() == [{"pk": 1}, "update"]
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "changed failed; the socket stays open." in record.message


async def test_slow_handler_holds_its_own_socket(
    connect: Callable[..., Any], evented: None
) -> None:
    """While one socket's handler waits, others are told; it then gets all, in order."""
    go = asyncio.Event()

    class Slow(Plain):
        async def send_json(self, content: Any, close: bool = False) -> None:
            if "ids" in content:
                await go.wait()
            await super().send_json(content, close)

    slow, quick = await connect(Slow), await connect(Plain)
    await slow.ask("watch", request_id=1)
    await quick.ask("watch", request_id=1)
    await run_sql("INSERT INTO project_note (id, name, rank) VALUES (1, 'a', 0)")
    for rank in range(1, 20):
        await run_sql("UPDATE project_note SET rank = %s", rank)

    ranks = [(await quick.receive())["message"]["rank"] for _ in range(20)]
    go.set()
    assert ranks == [(await slow.receive())["message"]["rank"] for _ in range(20)]
    assert ranks == [*range(20)]


async def test_one_serialization_for_many_sockets(
    connect: Callable[..., Any], evented: None
) -> None:
    """An event is serialized once for 300 sockets, and no socket costs a query."""
    made = []

    class Many(Plain):
        @model_observer(Note)
        async def many(self, message: Any, **kwargs: Any) -> None:
            await self.send_json({"message": message, "queries": len(queries)})

        @many.serializer
        def many(self, instance: Note, action: Any, **kwargs: Any) -> Any:
            made.append(action.value)
            return {"pk": instance.pk}

        @action()
        async def enter(self, **kwargs: Any) -> tuple[Any, int]:
            return await self.many.subscribe(), 201

    queries: list[str] = []
    sockets = [await connect(Many) for _ in range(300)]
    for socket in sockets:
        await socket.ask("enter")
    patched = dispatch.prepare

    def prepare(*args: Any) -> Any:
        def note(execute: Any, sql: Any, *rest: Any) -> Any:
            queries.append(sql)
            return execute(sql, *rest)

        with connection.execute_wrapper(note):
            return patched(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "prepare", prepare)
        await run_sql("INSERT INTO project_note (id, name, rank) VALUES (1, 'a', 0)")
        frames = [await socket.receive() for socket in sockets]

    assert frames == [{"message": {"pk": 1}, "queries": 0}] * 300
    assert made == ["create"]


async def test_methods_of_one_name(connect: Callable[..., Any], evented: None) -> None:
    """Two consumers with the same name and method name, one left over, each get an event once."""

    def make(tag: str) -> Any:
        class Same(AsyncAPIConsumer):
            @model_observer(Note)
            async def changed(self, message: Any, **kwargs: Any) -> None:
                await self.send_json({"tag": tag, **message})

            @action()
            async def watch(self, **kwargs: Any) -> tuple[Any, int]:
                return await type(self).changed.subscribe(self), 201

        return Same

    one, two = await connect(make("one")), await connect(make("two"))
    await one.ask("watch")
    await two.ask("watch")
    for _ in range(2):
        await run_sql("INSERT INTO project_note (name, rank) VALUES ('a', 0)")

    assert [(await one.receive())["tag"] for _ in range(2)] == ["one", "one"]
    assert [(await two.receive())["tag"] for _ in range(2)] == ["two", "two"]


class Related(AsyncAPIConsumer):
    """Tells what happens to notes, their topics included."""

    @model_observer(Note, many_to_many=True)
    async def changed(self, message: Any, action: str, **kwargs: Any) -> None:
        await self.send_json({"action": action, **message})

    @changed.serializer
    def changed(self, instance: Note, action: Any, **kwargs: Any) -> Any:
        names = instance.topics.values_list("name", flat=True) if action != "delete" else ()
        return {"note": instance.name, "topics": sorted(names)}

    @action()
    async def watch(self, **kwargs: Any) -> tuple[Any, int]:
        return await self.changed.subscribe(), 201


async def test_many_to_many(connect: Callable[..., Any], evented: None) -> None:
    """Rows between many and many are updates of their owner; deleting a related row, too."""
    socket = await connect(Related)
    await socket.ask("watch")

    def write() -> None:
        with transaction.atomic():
            note = Note.objects.create(name="a")
            topic = Topic.objects.create(name="sea")
            note.topics.add(topic)
        topic.note_set.remove(note)
        topic.note_set.set([note])
        Topic.objects.all().delete()
        connection.close()

    await asyncio.to_thread(write)

    frames = [await socket.receive() for _ in range(4)]
    assert [frame["action"] for frame in frames] == ["create", "update", "update", "update"]
    assert frames[-1] == {"action": "update", "note": "a", "topics": []}


class Photos(AsyncAPIConsumer):
    """Tells what happens to photos, whose rows are in two tables."""

    @model_observer(Photo)
    async def changed(self, message: Any, action: str, **kwargs: Any) -> None:
        await self.send_json([action, *message])

    @changed.serializer
    def changed(self, instance: Photo, action: Any, **kwargs: Any) -> Any:
        return [instance.pk, instance.name, instance.place]

    @action()
    async def watch(self, **kwargs: Any) -> tuple[Any, int]:
        return await self.changed.subscribe(), 201


async def test_inherited_rows(connect: Callable[..., Any], evented: None) -> None:
    """A row in two tables makes one event for a transaction, whole, whichever table was written."""
    socket, notes = await connect(Photos), await connect(Plain)
    await socket.ask("watch")
    await notes.ask("watch", request_id=1)

    def create() -> None:
        with transaction.atomic():
            Photo.objects.create(pk=1, name="a")
        Note.objects.create(pk=2, name="no photo")
        connection.close()

    await asyncio.to_thread(create)
    assert await socket.receive() == ["create", 1, "a", "here"]
    await run_sql("UPDATE project_note SET name = 'b'")
    assert await socket.receive() == ["update", 1, "b", "here"]
    await run_sql("UPDATE project_photo SET place = 'there'")
    assert await socket.receive() == ["update", 1, "b", "there"]
    await asyncio.to_thread(lambda: (Photo.objects.all().delete(), connection.close()))
    assert await socket.receive() == ["delete", 1, "b", "there"]

    frames = [await notes.receive() for _ in range(5)]
    assert [f["action"] for f in frames] == ["create", "create", "update", "update", "delete"]


async def test_reset(connect: Callable[..., Any], evented: None) -> None:
    """A TRUNCATE, which names no rows, is told as a reset."""
    socket = await connect(Plain)
    await socket.ask("watch", request_id=1)
    await run_sql("TRUNCATE project_note CASCADE")

    frame = await socket.receive()
    assert (frame["action"], frame["response_status"], frame["request_id"]) == ("reset", 205, 1)


async def test_own_reset(connect: Callable[..., Any], evented: None) -> None:
    """A consumer may handle a reset by itself."""

    class Careful(Plain):
        @model_observer(Note)
        async def items(self, message: Any, **kwargs: Any) -> None: ...

        @items.reset
        async def items(self, reason: str, subscribing_request_ids: Any, **kwargs: Any) -> None:
            await self.send_json([reason, subscribing_request_ids])

        @action()
        async def enter(self, request_id: Any, **kwargs: Any) -> tuple[Any, int]:
            return await self.items.subscribe(request_id=request_id), 201

    socket = await connect(Careful)
    await socket.ask("enter", request_id=1)
    await run_sql("TRUNCATE project_note CASCADE")

    assert await socket.receive() == ["whole table", [1]]


@pytest.fixture
def notified(transactional_db: None, settings: Any) -> Iterator[None]:
    """Triggers that only notify, because the project says so."""
    options = {"transport": "notify"}
    settings.PGOBSERVE = {"MODELS": {"project.Note": options, "project.Note_topics": options}}
    install()
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA pgobserve CASCADE")


async def test_needs_the_outbox(connect: Callable[..., Any], notified: None) -> None:
    """On a table whose triggers only notify, the refusal names the command."""
    socket = await connect(Plain)

    frame = await socket.ask("watch", request_id=1)

    assert frame["response_status"] == 503
    assert "run manage.py pgobserve install project.Note" in frame["errors"][0]


def test_installs_what_is_observed(evented: None, settings: Any) -> None:
    """A model observer makes its tables outbox tables, where nothing else is said."""
    settings.PGOBSERVE = {}
    found = {
        each.title: each.transport
        for each in targets.registrations(["project.Note", "project.Topic"])
    }

    assert found == {"project.Note": "outbox", "project.Topic": "notify"}


async def test_no_receiver_is_connected(connect: Callable[..., Any], evented: None) -> None:
    """Observers connect nothing to Django's signals: loading and saving cost what they cost."""
    signals = (post_init, post_save, post_delete, m2m_changed)

    def receivers() -> list[Any]:
        gc.collect()
        return [
            each
            for signal in signals
            for each in signal.receivers
            if "pgobserve" in getattr(each[1](), "__module__", "")
        ]

    socket = await connect(Related)
    await socket.ask("watch")

    assert receivers() == []


async def test_nothing_is_left(connect: Callable[..., Any], evented: None) -> None:
    """When the last socket has closed, nobody is remembered and nothing is followed."""
    socket = await connect(Plain)
    await socket.ask("watch", request_id=1)
    of_alias = dispatch.dispatcher("default")
    assert of_alias.members

    await socket.close()

    assert of_alias.members == {}
    assert of_alias._subscriptions == {}
