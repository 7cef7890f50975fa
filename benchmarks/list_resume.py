"""A thousand clients who must be brought up to date at once: after restarts, and after a gap."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from benchmarks.reading.client import allow_descriptors, sockets
from benchmarks.reading.databases import COMMON, OPTIONS, databases
from benchmarks.reading.lists import counted
from benchmarks.reading.servers import OURS, serving
from benchmarks.results import Row
from pgobserve.demo import postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.reading.client import Connection, Sockets

CLIENTS = 1_000

#: The lists: where they are served, and what each client asks for.
LISTS: dict[str, tuple[str, Callable[[int], dict[str, Any]]]] = {
    "one list of 1,000 rows": ("/books/", lambda _: {}),
    "1,000 lists of 20 rows": ("/books/own/", lambda number: {"user": number + 1}),
}

#: What changes while nobody looks: a row of each own list, one in ten of the shared one, and two
#: that are on all own ones.
_CHANGE = (
    "UPDATE reading_book SET pages = pages + 1 "
    f"WHERE id % 10 = 3 AND id < {COMMON} OR id IN ({COMMON} + 1, {COMMON} + 2)"
)


@dataclass
class Replica:
    """What a client has of a list, made of frames alone."""

    rows: dict[int, int] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)

    def take(self, text: bytes) -> None:
        """Take a frame."""
        frame = json.loads(text)
        data, action = frame["data"], frame["action"]
        if data is None:
            return
        if action == "delete":
            self.rows.pop(data["pk"], None)
            self.etags.pop(frame["key"], None)
        elif "results" in data:
            self.rows.update({row["id"]: row["pages"] for row in data["results"]})
            self.etags.update(zip(frame["keys"], frame["etags"], strict=True))
        else:
            self.rows[data["id"]], self.etags[frame["key"]] = data["pages"], frame["etag"]


class World:
    """A PostgreSQL that can be restarted, and clients."""

    def __init__(self, server: postgres.Server, database: dict[str, Any]) -> None:
        self._server = server
        self.database = database
        self.replicas: list[Replica] = []

    def execute(self, query: str, dbname: str | None = None) -> list[Any]:
        """Run a statement; return its rows."""
        parameters = self.database if dbname is None else {**self.database, "dbname": dbname}
        with psycopg.connect(**parameters, autocommit=True) as connection:
            cursor = connection.execute(sql.SQL(query))  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def restart(self) -> None:
        """Restart PostgreSQL; returns when it accepts connections."""
        directory = self._server.directory
        options = ["-D", str(directory), "-m", "fast", "-w", "-s", "-l", f"{directory}/restarted"]
        postgres._run([str(self._server.bin / "pg_ctl"), *options, "restart"], directory.parent)

    @contextlib.contextmanager
    def unreachable(self) -> Iterator[None]:
        """End all connections to the database and allow no new ones, but one that changes rows."""
        name = self.database["dbname"]
        with psycopg.connect(**self.database, autocommit=True) as kept:
            self.execute(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS false', "postgres")
            self.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                f"WHERE datname = '{name}' AND pid <> {kept.info.backend_pid}",
                "postgres",
            )
            kept.execute(_CHANGE)  # type: ignore[arg-type]
            yield
        self.execute(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS true', "postgres")

    def subscribe(self, watching: Sockets, content: Callable[[int], dict[str, Any]]) -> None:
        """Let all clients have their lists, new ones."""
        self.replicas = [Replica() for _ in watching.all]
        self._listen(watching)
        watching.ask_each(content)

    def resume(self, watching: Sockets, content: Callable[[int], dict[str, Any]]) -> None:
        """Let all clients come back at once, with what they have."""
        self._listen(watching)

        def back(number: int) -> dict[str, Any]:
            return {**content(number), "have": self.replicas[number].etags}

        watching.ask_each(back, batch=len(watching.all))

    def _listen(self, watching: Sockets) -> None:
        for connection, replica in zip(watching.all, self.replicas, strict=True):
            connection.listen = replica.take

    def wait_until_right(self, watching: Sockets) -> None:
        """Read until all replicas have what the table has."""
        truth = dict(self.execute("SELECT id, pages FROM reading_book"))
        waiting: dict[Connection, Replica] = dict(zip(watching.all, self.replicas, strict=True))

        def all_right() -> bool:
            # Those who got nothing just now are looked at again all the same: it is cheap.
            for connection, replica in [*waiting.items()]:
                if all(truth[key] == pages for key, pages in replica.rows.items()):
                    del waiting[connection]
                else:
                    return False
            return True

        watching.receive_until(all_right)


def run(*, quick: bool) -> list[Row]:
    """Measure each fault with each kind of list."""
    allow_descriptors()
    count = 100 if quick else CLIENTS
    rows = []
    with (
        postgres.embedded(OPTIONS) as server,
        databases(1, server.parameters()) as (database,),
    ):
        world = World(server, database)
        for name, (path, content) in LISTS.items():
            case = partial(_case, world, count, path, content)
            rows += [
                _row(f"the server process is restarted, {name}", *case()),
                _row(f"PostgreSQL and the server process are restarted, {name}", *case(both=True)),
                _row(f"connections are cut, {name}", *_gap(world, count, path, content)),
                _row(
                    f"PostgreSQL is restarted, {name}",
                    *_gap(world, count, path, content, restart=True),
                ),
            ]
    return rows


def _case(
    world: World,
    count: int,
    path: str,
    content: Callable[[int], dict[str, Any]],
    *,
    both: bool = False,
) -> tuple[float, int]:
    """Restart the server, maybe PostgreSQL too; return how long clients and what queries it took."""
    with serving(OURS, world.database) as server, sockets(server.port, count, path) as watching:
        world.subscribe(watching, content)
    world.execute(_CHANGE)
    if both:
        world.restart()
    with (
        serving(OURS, world.database, BENCHMARK_COUNT="yes") as server,
        sockets(server.port, 1, "/write/") as asking,
        sockets(server.port, count, path) as watching,
    ):
        before, began = counted(asking), time.monotonic()
        world.resume(watching, content)
        world.wait_until_right(watching)
        took = time.monotonic() - began
        return took, counted(asking)["queries"] - before.get("queries", 0)


def _gap(
    world: World,
    count: int,
    path: str,
    content: Callable[[int], dict[str, Any]],
    *,
    restart: bool = False,
) -> tuple[float, int]:
    """Cut the server's connections while rows change; return how long the clients took."""
    with (
        serving(OURS, world.database, BENCHMARK_COUNT="yes") as server,
        sockets(server.port, 1, "/write/") as asking,
        sockets(server.port, count, path) as watching,
    ):
        world.subscribe(watching, content)
        before = counted(asking)
        with world.unreachable():
            pass
        if restart:
            world.restart()
        began = time.monotonic()
        world.wait_until_right(watching)
        took = time.monotonic() - began
        return took, counted(asking)["queries"] - before["queries"]


def _row(work: str, seconds: float, queries: int) -> Row:
    return Row(
        f"{work}: until all {CLIENTS:,} are right",
        f"{seconds:,.2f} s",
        "",
        f"{queries:,} queries",
    )
