"""
Which server the connections of a feed have reached.

After a failover the old primary may live on, with the connections that it has. LISTEN on one server and
loads from the other would show old rows, and miss new ones. So all connections are compared by the run of
the server that they have reached, which every snapshot carries.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg
from django.db import connections

from pgobserve.database.async_connection import ask
from pgobserve.database.connection_watchdog import Unreachable
from pgobserve.database.session import discard, session_of
from pgobserve.errors import FeedUnavailable
from pgobserve.sql.keyed_query import RUN

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from pgobserve.database.async_connection import Connection
    from pgobserve.hub.hub import ReverseLookup
    from pgobserve.hub.load_requests import (
        ListLoadRequest,
        ListLoadResult,
        LoadRequest,
        LoadResult,
    )
    from pgobserve.load.loader import RowReader

#: Seconds for which an older timeline is refused after a newer one was reached. A restored server may
#: begin with an older one again.
REMEMBERED: Final = 300.0

_RUN: Final = f"SELECT {RUN}"

#: On a standby the second fails. Managed services may not let a role see the third.
_IDENTITY: Final = (
    f"SELECT {RUN}, "
    "pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8), "
    "{}"
)
_CLUSTER: Final = "(SELECT c.system_identifier FROM pg_catalog.pg_control_system() c)"


@dataclass(frozen=True, slots=True)
class Identity:
    """
    A server, as one connection has reached it.

    Attributes:
        run: When it was started, or came back after a crash, in microseconds since the epoch.
        timeline: Grows with each promotion of a standby.
        cluster: What primary and standbys have in common; 0 if the role may not see it.
    """

    run: int
    timeline: int
    cluster: int = 0


async def identify(connection: Connection, patience: float) -> Identity:
    """
    Return which server a connection has reached, a primary.

    Raises:
        FeedUnavailable: It is silent.
        psycopg.Error: It is a standby, or lost.
    """
    try:
        answer = await ask(connection, _IDENTITY.format(_CLUSTER), patience=patience)
    except psycopg.errors.InsufficientPrivilege:
        answer = await ask(connection, _IDENTITY.format("0"), patience=patience)
    row = await answer.fetchone()
    assert row is not None  # noqa: S101 (a SELECT without FROM)
    return Identity(row[0], int(row[1], 16), row[2])


class Servers:
    """
    The server that a feed follows, and which ones it has met.

    Attributes:
        run: Of the server that is listened to; None while there is none.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.run: int | None = None
        self._clock = clock
        self._newest: dict[int, tuple[int, float]] = {}

    def reached(self, identity: Identity) -> None:
        """
        Follow a server from now on.

        Raises:
            FeedUnavailable: A standby of it has been promoted: it is no primary any more, whatever it
                thinks.
        """
        now = self._clock()
        timeline, seen = self._newest.get(identity.cluster, (0, now))
        if identity.cluster and identity.timeline < timeline and now - seen < REMEMBERED:
            raise FeedUnavailable(
                f"the server is on timeline {identity.timeline}, and another one on {timeline}: it is "
                "an old primary, of which a standby was promoted"
            )
        self._newest[identity.cluster] = (identity.timeline, now)
        self.run = identity.run


class Believed:
    """
    Sources of which nothing is believed that comes from another server than the one listened to.

    Args:
        sources: Read and render.
        alias: The database alias.
        servers: Says which server is listened to.
        doubt: Called, in the loader's thread, if a new connection reaches another server.
    """

    def __init__(
        self, sources: RowReader, alias: str, servers: Servers, doubt: Callable[[], object]
    ) -> None:
        self._sources = sources
        self._alias = alias
        self._servers = servers
        self._doubt = doubt
        self._here = threading.local()

    def load(self, jobs: Sequence[LoadRequest]) -> Sequence[LoadResult]:
        """Read and render a batch of rows."""
        self._compare()
        found = self._sources.load(jobs)
        self._look([item.snapshot.run for item in found[:1]])
        return found

    def load_lists(self, jobs: Sequence[ListLoadRequest]) -> Sequence[ListLoadResult | None]:
        """Read and render lists."""
        self._compare()
        found = self._sources.load_lists(jobs)
        self._look([whole.snapshot.run for whole in found if whole is not None])
        return found

    def trace(self, trace: ReverseLookup) -> Sequence[Hashable] | None:
        """Return the keys of the rows that changes concern."""
        self._compare()
        return self._sources.trace(trace)

    def owner(self, watch: Any) -> type:
        """Return the class whose hooks a subscription runs."""
        return self._sources.owner(watch)

    def label(self, watch: Any) -> str:
        """Return the label of the model whose rows a subscription shows."""
        return self._sources.label(watch)

    def _compare(self) -> None:
        """Ask which server a kept connection has reached, once for each that is listened to."""
        connection, run = connections[self._alias], self._servers.run
        raw: Any = connection.connection
        known = getattr(self._here, "compared", None)
        if run is None or raw is None or (known and known[0] is raw and known[1] == run):
            return
        with session_of(connection), connection.cursor() as cursor:
            cursor.execute(_RUN)
            ((reached,),) = cursor.fetchall()
        self._look([reached])
        self._here.compared = raw, run

    def _look(self, runs: Sequence[int]) -> None:
        """
        Compare.

        Through a pool of transactions a connection may reach another server at any time.

        Raises:
            Unreachable: It is another server; the connection is closed.
        """
        wanted = self._servers.run
        # A load that read nothing has no run.
        if wanted is None or all(run in (wanted, 0) for run in runs):
            self._here.strange = False
            return
        self._here.compared = None
        discard(connections[self._alias])
        if getattr(self._here, "strange", False):
            # Not an old connection only: one that was just made, too.
            self._doubt()
        self._here.strange = True
        raise Unreachable("it is another server than the one listened to: was there a failover?")
