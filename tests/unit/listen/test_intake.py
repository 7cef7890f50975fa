"""What a flood of notifications may cost, and that nothing of it is missed."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from pgobserve.deliver.send_queue import SendQueue
from pgobserve.hub.hub import Hub, TableDependencies
from pgobserve.hub.snapshot import Snapshot
from pgobserve.hub.subscriptions import RowSubscription
from pgobserve.listen import intake as module
from pgobserve.listen.intake import MAX_STEPS, Intake
from pgobserve.wire import Change, Operation
from tests.project.models import Item
from tests.project.shapes import PairKey, UuidKey

SNAPSHOT = Snapshot(100, 100, frozenset())


class Scene:
    """An intake, and what reached the hub."""

    def __init__(self, model: Any, *keys: Any) -> None:
        self.model, self.table = model, model._meta.db_table
        self.hub = Hub()
        self.kicks = 0
        self.ignored: list[str] = []
        self.published: list[Any] = []
        self.intake = Intake(self.hub, self.ignored.append, self._kick)
        for key in keys:
            watch = RowSubscription(SendQueue(lambda: None), key, 1, None, lambda outcome: None)
            self.hub.add(watch, TableDependencies((self.table,)))
        self.read()
        publish = self.hub.publish

        def note(table: str, xid: Any, keys: Any, routes: Any = None) -> None:
            self.published.append(keys)
            publish(table, xid, keys, routes)

        self.hub.publish = note  # type: ignore[method-assign]

    def _kick(self) -> None:
        self.kicks += 1

    def read(self) -> list[Any]:
        rows = self.hub.take(1000)
        for row in rows:
            self.hub.done(row, SNAPSHOT)
        return sorted(row.key for row in rows)

    def hear(self, *keys: Any, xid: int = 200, every: bool = False) -> bool:
        label = self.model._meta.label_lower
        return self.intake.route(Change(label, Operation.UPDATE, xid, None if every else keys))


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Two rows that are watched. The clock stands still: what comes in one window does so on any machine."""
    monkeypatch.setattr(module, "monotonic", lambda: 1000.0)
    return Scene(Item, "1", "2")


async def flooded(scene: Scene) -> None:
    """Hear more than is marked row by row."""
    while None not in scene.published:
        scene.hear(*map(str, range(1000, 2000)))
    assert scene.read() == ["1", "2"]


async def test_few_changes(scene: Scene) -> None:
    """What comes in a usual number is marked row by row."""
    assert scene.hear("1", "7")

    assert scene.published == [("1", "7")]
    assert scene.read() == ["1"]


async def test_flood_is_one_mark(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound changes are marked together: once for all of them, after a while."""
    monkeypatch.setattr(module, "FLOOD_INTERVAL", 0.0)
    await flooded(scene)
    marks = len(scene.published)
    for key in range(10_000):
        assert not scene.hear(str(key))
    assert len(scene.published) == marks

    while not scene.kicks:  # noqa: ASYNC110
        await asyncio.sleep(0)

    assert scene.published[marks:] == [None]
    assert scene.read() == ["1", "2"]


async def test_flood_ends(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while without changes rows are marked one by one again."""
    monkeypatch.setattr(module, "FLOOD_INTERVAL", 0.0)
    await flooded(scene)
    ends = module.monotonic() + module.WINDOW
    monkeypatch.setattr(module, "monotonic", lambda: ends)
    while scene.intake._flooded:  # noqa: ASYNC110
        await asyncio.sleep(0)

    assert scene.hear("2")

    assert scene.published[-1] == ("2",)
    assert scene.kicks == 0


async def test_flood_of_one_table_alone(scene: Scene) -> None:
    """Another table's changes are marked as ever."""
    await flooded(scene)
    other = UuidKey._meta
    key = str(uuid.uuid4())
    watch = RowSubscription(SendQueue(lambda: None), key, 1, None, lambda outcome: None)
    scene.hub.add(watch, TableDependencies((other.db_table,)))

    change = Change(other.label_lower, Operation.UPDATE, 200, (key,))
    assert scene.intake.route(change)

    assert scene.published[-1] == (key,)


async def test_read_all_again(scene: Scene) -> None:
    """Changes that name no keys cost as much as there are rows, and are bounded as well."""
    for _ in range(MAX_STEPS // module.DECODE_STEPS):
        scene.hear(every=True)
    assert scene.intake._flooded
    assert len(scene.published) < MAX_STEPS // module.DECODE_STEPS


@pytest.mark.parametrize(
    ("model", "keys"), [(Item, [("1", "2")]), (PairKey, ["1"]), (PairKey, [("a", "1"), ("b",)])]
)
async def test_keys_of_another_form(model: Any, keys: list[Any]) -> None:
    """Keys that have another number of columns than the model's may be any: its table is read again."""
    scene = Scene(model, "1")

    assert scene.hear(*keys)
    assert scene.published == [None]


async def test_composite_keys() -> None:
    """The columns of a composite key become one text, as PostgreSQL writes a JSON array."""
    scene = Scene(PairKey, '["a\\n\u20ac", "1"]')

    scene.hear(("a\n\u20ac", "1"))
    assert scene.read() == ['["a\\n\u20ac", "1"]']


async def test_unknown_model(scene: Scene) -> None:
    """A change of no model is ignored."""
    assert not scene.intake.route(Change("no.model", Operation.UPDATE, 1, ("1",)))
    assert len(scene.ignored) == 1


async def test_not_decoded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A payload of a table in a flood is not even decoded; of others each is."""
    monkeypatch.setattr(module, "FLOOD_INTERVAL", 0.0)
    decoded: list[str] = []
    parse = module.parse
    monkeypatch.setattr(module, "parse", lambda text: [decoded.append(text), parse(text)][1])
    text = '{"v":1,"t":"project.item","o":"U","x":"1","k":[1]}'
    scene.intake.take(text)
    assert decoded == [text]
    await flooded(scene)

    scene.intake.take(text)
    assert decoded == [text]
    others = [text.replace("project.item", "auth.user"), text.replace("project.item", "no.model")]
    for other in [*others, "x"]:
        scene.intake.take(other)
    assert decoded == [text, *others, "x"]
    before = scene.kicks
    while scene.kicks == before:  # noqa: ASYNC110
        await asyncio.sleep(0)

    assert scene.read() == ["1", "2"]
