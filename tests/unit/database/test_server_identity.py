"""Which server is followed, and what is not believed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from pgobserve.database import server_identity
from pgobserve.database.connection_watchdog import Unreachable
from pgobserve.database.server_identity import REMEMBERED, Identity, ServerCheck, Servers
from pgobserve.errors import FeedUnavailable
from pgobserve.hub.hub import ReverseLookup, TableDependencies
from pgobserve.hub.load_requests import NEVER
from pgobserve.hub.snapshot import Snapshot
from pgobserve.read import row_reader
from pgobserve.read.row_reader import RowReader

OLD, NEW = Identity(run=10, timeline=1, cluster=5), Identity(run=20, timeline=2, cluster=5)


LOOKUP = ReverseLookup(TableDependencies(("item",)), None, (), None, None)  # type: ignore[arg-type]


class Clock:
    """Seconds that are set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_follows_what_is_reached() -> None:
    """The server that was reached last is followed."""
    servers = Servers()
    assert servers.run is None
    for each in (OLD, NEW):
        servers.reached(each)
        assert servers.run == each.run


def test_old_primary() -> None:
    """A server whose standby was promoted is refused, for a while."""
    clock = Clock()
    servers = Servers(clock)
    servers.reached(NEW)
    with pytest.raises(FeedUnavailable, match="timeline 1"):
        servers.reached(OLD)
    assert servers.run == NEW.run

    clock.now += REMEMBERED
    servers.reached(OLD)
    assert servers.run == OLD.run


@pytest.mark.parametrize("cluster", [0, 6])
def test_other_cluster(cluster: int) -> None:
    """Timelines of servers that have nothing in common are not compared."""
    servers = Servers()
    servers.reached(NEW)
    servers.reached(Identity(30, 1, cluster))
    assert servers.run == 30


class Connection:
    """A connection to a server, which is made anew when it is closed."""

    def __init__(self, *runs: int) -> None:
        self.runs = [*runs]
        self.connection: object = object()
        self.closed = self.asked = 0

    def cursor(self) -> AbstractContextManager[Connection]:
        return nullcontext(self)

    def execute(self, query: str) -> None:
        self.asked += 1

    def fetchall(self) -> list[tuple[int]]:
        return [(self.runs[0],)]

    def close(self) -> None:
        self.closed += 1
        self.connection = object()
        if len(self.runs) > 1:
            del self.runs[0]


Made = tuple[RowReader, list[str]]


def believed(
    monkeypatch: pytest.MonkeyPatch, connection: Connection, snapshot: Snapshot | None = None
) -> Made:
    """Return a reader that is compared with a server of run 20, and what was doubted."""

    def load(*_: Any) -> Any:
        found = snapshot or Snapshot(1, 1, frozenset(), connection.runs[0])
        return [SimpleNamespace(snapshot=found)]

    servers, doubts = Servers(), list[str]()
    servers.reached(NEW)
    for module in (server_identity, row_reader):
        monkeypatch.setattr(module, "connections", {"default": connection})
    monkeypatch.setattr(server_identity, "session_of", nullcontext)
    monkeypatch.setattr(server_identity, "discard", Connection.close)
    monkeypatch.setattr(row_reader, "RowLoad", lambda *_: SimpleNamespace(run=load))
    monkeypatch.setattr(row_reader, "load_lists", load)
    monkeypatch.setattr(row_reader, "resolve", lambda *_, **__: [1])
    check = ServerCheck("default", servers, lambda: doubts.append("!"))
    return RowReader("default", check), doubts


def test_same_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes from the server listened to is believed; it is asked once for a connection."""
    connection = Connection(20)
    sources, doubts = believed(monkeypatch, connection)
    for _ in range(3):
        assert sources.load([])
        assert sources.load_lists([])
        assert sources.resolve(LOOKUP)

    assert (connection.asked, connection.closed, doubts) == (1, 0, [])


@pytest.mark.parametrize("method", ["load", "load_lists", "resolve"])
def test_old_connection(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """A connection to another server is closed, and nothing that it says is believed."""
    connection = Connection(10, 20)
    sources, doubts = believed(monkeypatch, connection)
    with pytest.raises(Unreachable):
        getattr(sources, method)(LOOKUP)

    assert getattr(sources, method)(LOOKUP)
    assert (connection.closed, doubts) == (1, [])


def test_new_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a new connection leads elsewhere as well, the server listened to is in doubt."""
    connection = Connection(10)
    sources, doubts = believed(monkeypatch, connection)
    for _ in range(2):
        with pytest.raises(Unreachable):
            sources.load([])

    assert doubts == ["!"]


def test_behind_a_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """A load whose snapshot is another server's is not believed, whatever the connection said."""
    connection = Connection(20)
    sources, _ = believed(monkeypatch, connection, Snapshot(1, 1, frozenset(), 10))
    with pytest.raises(Unreachable):
        sources.load([])


def test_nothing_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A load that read nothing has no snapshot to compare."""
    sources, _ = believed(monkeypatch, Connection(20), NEVER)
    assert sources.load([])
