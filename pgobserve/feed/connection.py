"""
The LISTEN connection: how it is opened, and how it is cut when the other side has gone silent.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from pgobserve.errors import FeedUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

#: What a dedicated, long-lived connection needs. TCP gives up on a dead peer after 15 s, a connect
#: attempt after 10.
DEFAULTS: Mapping[str, Any] = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}

#: The same from the server's side: a process that is stuck must not pin the notification queue and
#: vacuum's horizon, so the server drops it. They do nothing on a Unix-domain socket.
SESSION = ("tcp_user_timeout = '15s'", "tcp_keepalives_idle = '15s'")

#: Arguments that Django gives to psycopg and a plain asynchronous connection must not get.
DJANGO_ONLY = ("cursor_factory", "context", "prepare_threshold", "isolation_level", "pool")


async def connect(parameters: Mapping[str, Any]) -> Connection:
    """
    Open a connection that can LISTEN.

    Args:
        parameters: psycopg keywords; they win over :data:`DEFAULTS`.

    Raises:
        FeedUnavailable: The server is a standby, or a proxy between gives each statement another
            session.
        psycopg.Error: The connection can't be made.
    """
    name = f"pgobserve:{os.getpid()}"
    given = {k: v for k, v in parameters.items() if k not in DJANGO_ONLY}
    wanted = {**DEFAULTS, "application_name": name, **given, "autocommit": True}
    connection: Connection = await psycopg.AsyncConnection.connect(**wanted)
    try:
        await _prepare(connection)
    except BaseException:
        await connection.close()
        raise
    return connection


async def listen(connection: Connection, channel: str) -> None:
    """
    LISTEN on the channel and prove that what is sent arrives.

    Raises:
        FeedUnavailable: A probe sent over the same connection did not come back.
    """
    probe = f"{channel}_probe_{os.getpid()}"
    await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
    await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(probe)))
    await connection.execute("SELECT pg_catalog.pg_notify(%s, '')", [probe])
    arrived = await _arrives(connection, probe)
    await connection.execute(sql.SQL("UNLISTEN {}").format(sql.Identifier(probe)))
    if not arrived:
        raise FeedUnavailable(
            "LISTEN does not work on this connection: a notification sent to itself did not come "
            "back within 2 s. Is it made through a proxy that pools transactions, like PgBouncer? "
            "Point PGOBSERVE['CONNECTION'] at the server itself, e.g. "
            "{'default': {'host': …, 'port': 5432}}."
        )


async def _arrives(connection: Connection, probe: str, patience: float = 2.0) -> bool:
    # Changes heard meanwhile need no care: all that is watched is read once LISTEN is committed.
    deadline = time.monotonic() + patience
    arrived = False
    while not arrived and (left := deadline - time.monotonic()) > 0:
        async for notification in connection.notifies(timeout=left, stop_after=1):
            arrived = arrived or notification.channel == probe
    return arrived


async def _prepare(connection: Connection) -> None:
    cursor = await connection.execute("SELECT pg_catalog.pg_is_in_recovery()")
    row = await cursor.fetchone()
    if row is None or row[0]:
        raise FeedUnavailable(
            "The server is a standby, and a standby can't LISTEN. Point PGOBSERVE['CONNECTION'] at "
            "the primary, e.g. {'default': {'host': …}}."
        )
    for setting in SESSION:
        await connection.execute(f"SET {setting}")


def abort(connection: Connection) -> None:
    """
    Cut the connection at the socket: whoever waits on it wakes with an error.

    Cancelling the waiting task does not do that. psycopg answers a cancellation by asking the
    server to cancel the query, and then waits for the server, which is what went silent.
    """
    with (
        suppress(OSError, psycopg.Error),
        # The duplicate is closed; the shutdown holds for the connection itself.
        socket.socket(fileno=os.dup(connection.fileno())) as duplicate,
    ):
        duplicate.shutdown(socket.SHUT_RDWR)
