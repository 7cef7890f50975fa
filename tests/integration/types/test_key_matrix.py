"""Rows with a key of any type: created, updated, nested, deleted, resumed, and as events."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from rest_framework import serializers

import pgobserve
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.generics import ObserverModelInstanceMixin, ObserverModelListMixin
from pgobserve.outbox.event import Event
from pgobserve.runtime import runtime
from tests.integration.deliver.conftest import Socket, run_sql, settled
from tests.integration.outbox.test_event_stream import exists
from tests.integration.types.tables import tables

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from tests.integration.types.tables import Kind

    #: By request, the action, the status and the note of each frame.
    Frames = dict[str, list[tuple[str, int, Any]]]

#: Keys of which Django itself can't read the rows that refer to them.
NO_REVERSE: Final = {
    *("json", "array", "epoch", "regclass", "regtype", "tsrange", "texts", "moments", "record"),
    *("int4multirange", "int8multirange", "nummultirange", "datemultirange"),
    *("tsmultirange", "tstzmultirange", "interval_text", "float4"),
}

#: Keys by whose shown value Django finds no row: an interval with months, and a date under an IntegerField.
UNNAMED: Final = {"interval_text", "epoch"}


def _consumer(queryset: Any, **fields: Any) -> Any:
    meta = type("Meta", (), {"model": queryset.model, "fields": [*fields]})
    declared = {name: field for name, field in fields.items() if field is not None}
    serializer: Any = type("Shown", (serializers.ModelSerializer,), {"Meta": meta, **declared})
    bases = (ObserverModelListMixin, ObserverModelInstanceMixin, GenericAsyncAPIConsumer)
    members = {"queryset": queryset, "serializer_class": serializer}
    return type("Consumer", bases, members)


class Case:
    """One table, with sockets that subscribe to its rows and to those that refer to them."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.consumers: dict[str, Any] = {}
        objects: Any = kind.model._default_manager
        more: dict[str, Any] = {}
        if kind.line is not None:
            owner = _consumer(objects.all(), note=None).serializer_class()
            lines: Any = kind.line._default_manager.select_related("owner")
            self.consumers = {"lines": _consumer(lines, text=None, owner=owner)}
            if kind.name.removeprefix("types_") not in NO_REVERSE:
                more = {"lines": serializers.SlugRelatedField("text", many=True, read_only=True)}
        self.reversed = bool(more)
        self.named = kind.name.removeprefix("types_") not in UNNAMED
        self.consumers = {**self.consumers, "rows": _consumer(objects.all(), note=None, **more)}
        self.found: dict[str, Any] = {}
        self.sockets: dict[str, Socket] = {}

    async def open(self) -> None:
        """Subscribe to the list, by its keys, to the row, and to the list of lines."""
        for name, consumer in self.consumers.items():
            socket = self.sockets[name] = Socket(consumer.as_asgi())
            await socket.open()
            self.found[name] = await socket.ask("subscribe_list", request_id=name)
        rows, listed = self.sockets["rows"], self.found["rows"]
        have = dict(zip(listed["keys"], listed["etags"], strict=True))
        self.found["again"] = await rows.ask("subscribe_list", request_id="again", have=have)
        shown = await rows.ask("subscribe_list", request_id="keys", only="keys")
        (pk,) = (each["pk"] for each in shown["data"]["results"])
        if self.named:
            self.found["row"] = await rows.ask("subscribe_instance", request_id="row", pk=pk)

    async def frames(self) -> dict[str, list[tuple[str, int, Any]]]:
        """Return what each subscription has received."""
        got: dict[str, list[tuple[str, int, Any]]] = {}
        for socket in self.sockets.values():
            while not socket.communicator.output_queue.empty():
                frame = await socket.receive()
                data = frame["data"]
                shown = data.get("note") if isinstance(data, dict) else data
                got.setdefault(frame["request_id"], []).append(
                    (frame["action"], frame["response_status"], shown)
                )
        return got


@pytest.fixture(params=["notify", "outbox"])
def transport(request: pytest.FixtureRequest, settings: Any) -> str:
    """How changes travel."""
    settings.PGOBSERVE = {"TRANSPORT": request.param}
    return str(request.param)


@pytest.fixture
def kinds(transport: str, transactional_db: None) -> Iterator[list[Kind]]:
    """The tables."""
    with tables(transport) as made:
        yield made


@pytest.fixture
async def cases(kinds: list[Kind]) -> AsyncIterator[list[Case]]:
    """Subscriptions to all tables, each with a row and a line."""
    made = [Case(kind) for kind in kinds]
    await _write(
        kinds,
        "INSERT INTO {t} VALUES ({a}, 'one')",
        "INSERT INTO {t}_line (owner_id, text) VALUES ({a}, 'l')",
    )
    await asyncio.gather(*(case.open() for case in made))
    yield made
    for case in made:
        for each in case.sockets.values():
            await each.close()
    await runtime.current().aclose()
    await sync_to_async(connections.close_all)()


async def _write(kinds: Sequence[Kind], *statements: str) -> None:
    texts = [
        each.format(t=kind.name, a=kind.values[0], b=kind.values[1], key=f"({kind.columns})")
        for kind in kinds
        for each in statements
        if kind.line is not None or "_line" not in each
    ]
    await run_sql(";".join(texts).replace("%", "%%"))


async def _received(cases: list[Case], *statements: str) -> dict[str, Frames]:
    """Write to all tables, and return what the subscriptions to each have received."""
    await _write([case.kind for case in cases], *statements)
    await settled()
    return {case.kind.name: await case.frames() for case in cases}


_ROW: Final = ("rows", "again", "row")
_LIST: Final = ("rows", "again")

#: By step, what is written, and the frames that follow: action, status and note.
STEPS: Final = (
    (
        "UPDATE {t} SET note = 'two'",
        dict.fromkeys(_ROW, ("update", 200, "two")) | {"lines": ("update", 200, None)},
    ),
    (
        "UPDATE {t}_line SET text = 'm'",
        dict.fromkeys(_ROW, ("update", 200, "two")) | {"lines": ("update", 200, None)},
    ),
    (
        "INSERT INTO {t} VALUES ({b}, 'new')",
        dict.fromkeys(_LIST, ("create", 200, "new")) | {"keys": ("create", 200, None)},
    ),
    ("UPDATE {t} SET note = 'x' WHERE note = 'new'", dict.fromkeys(_LIST, ("update", 200, "x"))),
    ("DELETE FROM {t} WHERE note = 'x'", dict.fromkeys((*_LIST, "keys"), ("delete", 204, None))),
)


def _wanted(case: Case, statement: str, expected: dict[str, Any]) -> Frames:
    """Return the frames of a step for a table."""
    of_lines = "_line" in statement
    return {
        name: [frame]
        for name, frame in expected.items()
        if (name != "row" or case.named)
        and (name != "lines" or case.kind.line is not None)
        and (name == "lines" or not of_lines or case.reversed)
    }


async def test_keys(cases: list[Case]) -> None:
    """Each change of a row reaches its list, its own subscriber, and the rows that show it."""
    wrong: dict[str, Any] = {}
    for case in cases:
        for name, frame in case.found.items():
            if frame["errors"]:
                wrong.setdefault(case.kind.name, {})[name] = frame
    for statement, expected in STEPS:
        received = await _received(cases, statement)
        for case in cases:
            frames = received[case.kind.name]
            if frames != _wanted(case, statement, expected):
                wrong.setdefault(case.kind.name, {})[statement] = frames
    assert wrong == {}, wrong


@pytest.mark.parametrize("transport", ["outbox"], indirect=True)
async def test_events(kinds: list[Kind]) -> None:
    """Each change of a row is an event with the row's key as the ORM has it."""
    actions = ["create", "update", "delete"]
    got: dict[str, list[Any]] = {each.model._meta.label_lower: [] for each in kinds}
    async with aclosing(pgobserve.events(*got, cursor="types")) as events:
        first = asyncio.ensure_future(anext(events))
        async with asyncio.timeout(60):
            while not await exists("types"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await _write(kinds, "INSERT INTO {t} VALUES ({a}, 'one')")
        await _write(kinds, "UPDATE {t} SET note = 'two'")
        await _write(kinds, "DELETE FROM {t}")
        async with asyncio.timeout(60):
            event = await first
            while True:
                assert isinstance(event, Event)
                got[event.label].append(event)
                if sum(map(len, got.values())) == len(actions) * len(kinds):
                    break
                event = await anext(events)
    assert {k: v for k, v in got.items() if [each.action for each in v] != actions} == {}
    assert all(
        each.key == each.instance.pk or each.key != each.key for v in got.values() for each in v
    )
