"""
The LISTEN connection: how it is opened, and how it is cut when the other side has gone silent.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql

from pgobserve.errors import FeedUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

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

#: Seconds that the server has to answer a statement.
CONNECT_TIMEOUT: Final = 5.0

#: Arguments that Django gives to psycopg and a plain asynchronous connection must not get.
DJANGO_ONLY = ("cursor_factory", "context", "prepare_threshold", "isolation_level", "pool")


def parameters_of(
    connection: BaseDatabaseWrapper, overrides: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """
    Return psycopg keywords for a connection like Django's, which assumes the same role.

    Args:
        connection: Of the database alias.
        overrides: Win over Django's. Another user of theirs assumes no role.
    """
    wrapper: Any = connection
    given = {**wrapper.get_connection_params(), **(overrides or {})}
    role = connection.settings_dict["OPTIONS"].get("assume_role")
    if role and "user" not in (overrides or {}):
        named = re.sub(r"([\\ ])", r"\\\1", role)
        given["options"] = f"{given.get('options') or ''} -c role={named}".strip()
    return given


async def connect(parameters: Mapping[str, Any], patience: float = CONNECT_TIMEOUT) -> Connection:
    """
    Open a connection that can LISTEN.

    Args:
        parameters: psycopg keywords; they win over :data:`DEFAULTS`.
        patience: Seconds that the server has to answer each statement.

    Raises:
        FeedUnavailable: The server is a standby, or silent.
        psycopg.Error: The connection can't be made.
    """
    connection = await open_connection(parameters)
    try:
        await _prepare(connection, patience)
    except BaseException:
        await connection.close()
        raise
    return connection


async def listen(
    connection: Connection,
    channel: str,
    parameters: Mapping[str, Any],
    patience: float = CONNECT_TIMEOUT,
) -> None:
    """
    LISTEN on the channel and prove that what others send arrives.

    Args:
        connection: From :func:`connect`.
        channel: The channel.
        parameters: As given to :func:`connect`; the probe is sent over a second connection.
        patience: Seconds that the server has to answer each statement.

    Raises:
        FeedUnavailable: A probe did not arrive, for a proxy between gives each statement another
            session; or the server is silent.
    """
    probe = f"pgobserve_probe_{secrets.token_hex(8)}"
    for name in (channel, probe):
        statement = sql.SQL("LISTEN {}").format(sql.Identifier(name))
        await ask(connection, statement, patience=patience)
    await _send(probe, parameters, patience)
    arrived = await _arrives(connection, probe)
    statement = sql.SQL("UNLISTEN {}").format(sql.Identifier(probe))
    await ask(connection, statement, patience=patience)
    if not arrived:
        raise FeedUnavailable(
            "LISTEN does not work on this connection: a notification sent over another one did not "
            "arrive within 2 s. Is it made through a proxy that pools transactions, like PgBouncer? "
            "Point PGOBSERVE['CONNECTION'] at the server itself, e.g. "
            "{'default': {'host': …, 'port': 5432}}."
        )


async def ask(
    connection: Connection,
    query: str | sql.Composed,
    params: Sequence[Any] | Mapping[str, Any] = (),
    *,
    patience: float,
) -> psycopg.AsyncCursor[tuple[Any, ...]]:
    """
    Run a statement; if the server stays silent, or on cancellation, the connection is cut.

    Raises:
        FeedUnavailable: No answer came in time.
        psycopg.Error: The statement failed.
    """
    task = asyncio.create_task(connection.execute(query, params or None), name="pgobserve-ask")
    try:
        done, _ = await asyncio.wait({task}, timeout=patience)
        if not done:
            abort(connection)
            await asyncio.wait({task})
    except asyncio.CancelledError:
        abort(connection)
        await asyncio.gather(task, return_exceptions=True)
        raise
    if not done:
        await asyncio.gather(task, return_exceptions=True)
        raise FeedUnavailable(f"the server was silent for {patience:g} s")
    return task.result()


async def open_connection(parameters: Mapping[str, Any]) -> Connection:
    """Open a connection for statements; see :func:`connect`."""
    name = f"pgobserve:{os.getpid()}"
    given = {k: v for k, v in parameters.items() if k not in DJANGO_ONLY}
    wanted = {**DEFAULTS, "application_name": name, **given, "autocommit": True}
    return await psycopg.AsyncConnection.connect(**wanted)


async def _send(probe: str, parameters: Mapping[str, Any], patience: float) -> None:
    # Not over the same connection: a pool passes on what comes with a statement's answer, and a
    # session is told its own notifications just then.
    other = await open_connection(parameters)
    try:
        await ask(other, "SELECT pg_catalog.pg_notify(%s, '')", [probe], patience=patience)
    finally:
        await other.close()


async def _arrives(connection: Connection, probe: str, patience: float = 2.0) -> bool:
    # Changes heard meanwhile need no care: all that is watched is read once LISTEN is committed.
    deadline = time.monotonic() + patience
    arrived = False
    while not arrived and (left := deadline - time.monotonic()) > 0:
        async for notification in connection.notifies(timeout=left, stop_after=1):
            arrived = arrived or notification.channel == probe
    return arrived


async def _prepare(connection: Connection, patience: float) -> None:
    query = "SELECT pg_catalog.pg_is_in_recovery()"
    row = await (await ask(connection, query, patience=patience)).fetchone()
    if row is None or row[0]:
        raise FeedUnavailable(
            "The server is a standby, and a standby can't LISTEN. Point PGOBSERVE['CONNECTION'] at "
            "the primary, e.g. {'default': {'host': …}}."
        )
    for setting in SESSION:
        await ask(connection, f"SET {setting}", patience=patience)


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
