"""
Which server the connections of a feed have reached.

After a failover the old primary may live on, with the connections that it has. LISTEN on one server and
loads from the other would show old rows, and miss new ones. So all connections are compared by the run of
the server that they have reached, which every snapshot carries.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psycopg

from pgobserve.database.async_connection import ask
from pgobserve.errors import FeedUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgobserve.database.async_connection import Connection

#: Seconds for which an older timeline is refused after a newer one was reached. A restored server may
#: begin with an older one again.
REMEMBERED: Final = 300.0

#: When the server was started. When one of its processes is killed it comes back by itself, as after
#: any crash, and was not started anew; but then its statistics begin anew. Up to PostgreSQL 14 those
#: came from a file, which takes too long to ask for.
_STARTED: Final = (
    "greatest(pg_catalog.pg_postmaster_start_time(),"
    " CASE WHEN pg_catalog.current_setting('server_version_num')::int >= 150000"
    " THEN pg_catalog.pg_stat_get_bgwriter_stat_reset_time() END)"
)

RUN: Final = f"(extract(epoch FROM {_STARTED}) OPERATOR(pg_catalog.*) 1000000)::bigint"

SELECT_RUN: Final = f"SELECT {RUN}"

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
