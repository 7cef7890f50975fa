"""
Which server each connection of a feed has reached.

After a failover the old primary may live on. LISTEN on one server and loads from the other would show old
rows and miss new rows. So a feed compares the runs of its connections' servers, which snapshots carry.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg
from django.db import connections

from pgobserve.database.async_connection import execute
from pgobserve.database.connection_watchdog import Unreachable
from pgobserve.database.session import discard, session_of
from pgobserve.errors import FeedUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pgobserve.database.async_connection import Connection

#: Seconds for which an older timeline is refused after a newer timeline. Later it is accepted: a restored
#: server may start on an older timeline.
REMEMBERED: Final = 300.0

#: The start of the server's run. After a crash of one process the server recovers without a new start
#: time, but resets its statistics. Up to PostgreSQL 14 their reset time comes from a file, too slow here.
_STARTED: Final = (
    "greatest(pg_catalog.pg_postmaster_start_time(),"
    " CASE WHEN pg_catalog.current_setting('server_version_num')::int >= 150000"
    " THEN pg_catalog.pg_stat_get_bgwriter_stat_reset_time() END)"
)

RUN: Final = f"(extract(epoch FROM {_STARTED}) OPERATOR(pg_catalog.*) 1000000)::bigint"

SELECT_RUN: Final = f"SELECT {RUN}"

#: The second column fails on a standby. Managed services may deny the third.
_IDENTITY: Final = (
    f"SELECT {RUN}, "
    "pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8), "
    "{}"
)
_CLUSTER: Final = "(SELECT c.system_identifier FROM pg_catalog.pg_control_system() c)"


@dataclass(frozen=True, slots=True)
class Identity:
    """
    The server behind a connection.

    Attributes:
        run: The time of its start or crash recovery, in microseconds since the epoch.
        timeline: Grows with each promotion of a standby.
        cluster: The system identifier shared by primary and standbys; 0 if the role may not read it.
    """

    run: int
    timeline: int
    cluster: int = 0


async def identify(connection: Connection, within: float) -> Identity:
    """
    Return the primary that a connection has reached.

    Raises ``FeedUnavailable`` if it is silent, ``psycopg.Error`` if it is a standby.
    """
    try:
        answer = await execute(connection, _IDENTITY.format(_CLUSTER), within=within)
    except psycopg.errors.InsufficientPrivilege:
        answer = await execute(connection, _IDENTITY.format("0"), within=within)
    row = await answer.fetchone()
    assert row is not None  # noqa: S101 (a SELECT without FROM)
    return Identity(row[0], int(row[1], 16), row[2])


class Servers:
    """The run of the server that a feed listens to, None without LISTEN, and the timelines seen before."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.run: int | None = None
        self._clock = clock
        self._newest: dict[int, tuple[int, float]] = {}

    def reached(self, identity: Identity) -> None:
        """Follow a server from now on; ``FeedUnavailable`` if one of its standbys has been promoted."""
        now = self._clock()
        timeline, seen = self._newest.get(identity.cluster, (0, now))
        if identity.cluster and identity.timeline < timeline and now - seen < REMEMBERED:
            raise FeedUnavailable(
                f"the server is on timeline {identity.timeline}, but a server on timeline {timeline} "
                "was seen: it is an old primary whose standby was promoted"
            )
        self._newest[identity.cluster] = (identity.timeline, now)
        self.run = identity.run


class ServerCheck:
    """
    Checks in the loader's threads that loads come from the server that LISTEN has reached.

    Args:
        alias: The database alias.
        servers: Knows which server the listener has reached.
        doubt: Called in a loader thread if even a new connection reaches another server.
    """

    def __init__(self, alias: str, servers: Servers, doubt: Callable[[], object]) -> None:
        self._alias = alias
        self._servers = servers
        self._doubt = doubt
        self._here = threading.local()

    def compare(self) -> None:
        """Query which server a kept connection has reached, once for each server of the listener."""
        connection, run = connections[self._alias], self._servers.run
        raw: Any = connection.connection
        known = getattr(self._here, "compared", None)
        if run is None or raw is None or (known and known[0] is raw and known[1] == run):
            return
        with session_of(connection), connection.cursor() as cursor:
            cursor.execute(SELECT_RUN)
            ((reached,),) = cursor.fetchall()
        self.check([reached])
        self._here.compared = raw, run

    def check(self, runs: Sequence[int]) -> None:
        """
        Compare the servers of a load with the listener's.

        Through a pool of transactions a connection may reach another server at any time.

        Raises:
            Unreachable: It is another server. The connection is closed.
        """
        expected = self._servers.run
        # A load that read nothing has no run.
        if expected is None or all(run in (expected, 0) for run in runs):
            self._here.differs = False
            return
        self._here.compared = None
        discard(connections[self._alias])
        if getattr(self._here, "differs", False):
            # The connection before was new, too: not only old connections differ.
            self._doubt()
        self._here.differs = True
        raise Unreachable("it is another server than the one listened to: was there a failover?")
