"""Asynchronous connections for LISTEN and the outbox; one whose server falls silent is cut."""

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
    from collections.abc import Callable, Mapping, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

#: For a long-lived connection: TCP gives up on a dead peer after 15 s, connecting after 10 s.
DEFAULTS: Mapping[str, Any] = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}

#: The same from the server's side: a stuck process must not pin the notification queue and vacuum's
#: horizon. Without effect on a Unix-domain socket.
SESSION = ("tcp_user_timeout = '15s'", "tcp_keepalives_idle = '15s'")

#: Seconds within which the server must answer a statement.
CONNECT_TIMEOUT: Final = 5.0

#: Arguments of Django's that a plain asynchronous connection does not take.
DJANGO_ONLY = ("cursor_factory", "context", "prepare_threshold", "isolation_level", "pool")


def parameters_of(
    connection: BaseDatabaseWrapper, overrides: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """
    Return psycopg keywords for a connection like Django's, with the same ``assume_role``.

    Overrides win over Django's keywords. With another ``user``, no role is assumed.
    """
    wrapper: Any = connection
    parameters = {**wrapper.get_connection_params(), **(overrides or {})}
    role = connection.settings_dict["OPTIONS"].get("assume_role")
    if role and "user" not in (overrides or {}):
        escaped = re.sub(r"([\\ ])", r"\\\1", role)
        parameters["options"] = f"{parameters.get('options') or ''} -c role={escaped}".strip()
    return parameters


async def connect(parameters: Mapping[str, Any], within: float = CONNECT_TIMEOUT) -> Connection:
    """
    Open a connection that can LISTEN; parameters win over :data:`DEFAULTS`.

    Raises ``FeedUnavailable`` if the server is a standby, or left a statement unanswered.
    """
    connection = await open_connection(parameters)
    try:
        await _prepare(connection, within)
    except BaseException:
        await connection.close()
        raise
    return connection


async def listen(
    connection: Connection,
    channel: str,
    parameters: Mapping[str, Any],
    within: float = CONNECT_TIMEOUT,
) -> None:
    """
    LISTEN on the channel, and prove that notifications of another session arrive.

    A second connection with the same ``parameters`` sends a probe. The server must answer each statement
    ``within`` seconds. Raises ``FeedUnavailable`` if it does not, or if a proxy gives each statement
    another session.
    """
    probe = f"pgobserve_probe_{secrets.token_hex(8)}"
    for name in (channel, probe):
        statement = sql.SQL("LISTEN {}").format(sql.Identifier(name))
        await execute(connection, statement, within=within)
    await _send(probe, parameters, within)
    # Changes notified meanwhile may be dropped: every watched row is read after LISTEN has committed.
    arrived = await notified(connection, 2.0, lambda each: each.channel == probe)
    statement = sql.SQL("UNLISTEN {}").format(sql.Identifier(probe))
    await execute(connection, statement, within=within)
    if not arrived:
        raise FeedUnavailable(
            "LISTEN does not work on this connection: a notification from a second connection did "
            "not arrive within 2 s. Does it go through a transaction-pooling proxy, like PgBouncer? "
            "Point PGOBSERVE['CONNECTION'] at the server itself, e.g. "
            "{'default': {'host': …, 'port': 5432}}."
        )


async def execute(
    connection: Connection,
    query: str | sql.Composed,
    params: Sequence[Any] | Mapping[str, Any] = (),
    *,
    within: float,
) -> psycopg.AsyncCursor[tuple[Any, ...]]:
    """
    Run a statement; on a silent server, or on cancellation, cut the connection.

    Raises ``FeedUnavailable`` if no answer came within ``within`` seconds.
    """
    task = asyncio.create_task(connection.execute(query, params or None), name="pgobserve-execute")
    try:
        done, _ = await asyncio.wait({task}, timeout=within)
        if not done:
            abort(connection)
            await asyncio.wait({task})
    except asyncio.CancelledError:
        abort(connection)
        await asyncio.gather(task, return_exceptions=True)
        raise
    if not done:
        await asyncio.gather(task, return_exceptions=True)
        raise FeedUnavailable(f"the server was silent for {within:g} s")
    return task.result()


async def open_connection(parameters: Mapping[str, Any]) -> Connection:
    """Open a connection for statements; see :func:`connect`."""
    name = f"pgobserve:{os.getpid()}"
    own = {k: v for k, v in parameters.items() if k not in DJANGO_ONLY}
    keywords = {**DEFAULTS, "application_name": name, **own, "autocommit": True}
    return await psycopg.AsyncConnection.connect(**keywords)


async def _send(probe: str, parameters: Mapping[str, Any], within: float) -> None:
    # A second connection: the server sends a session its own notifications with the statement's answer,
    # which a pool passes on although others' notifications would be lost.
    other = await open_connection(parameters)
    try:
        await execute(other, "SELECT pg_catalog.pg_notify(%s, '')", [probe], within=within)
    finally:
        await other.close()


async def notified(
    connection: Connection, seconds: float, matches: Callable[[psycopg.Notify], bool]
) -> bool:
    """Wait for a matching notification, at most so many seconds; return whether it came."""
    deadline = time.monotonic() + seconds
    matched = False
    while not matched and (left := deadline - time.monotonic()) > 0:
        async for notification in connection.notifies(timeout=left, stop_after=1):
            matched = matches(notification) or matched
    return matched


async def _prepare(connection: Connection, within: float) -> None:
    query = "SELECT pg_catalog.pg_is_in_recovery()"
    row = await (await execute(connection, query, within=within)).fetchone()
    if row is None or row[0]:
        raise FeedUnavailable(
            "The server is a standby, and a standby can't LISTEN. Point PGOBSERVE['CONNECTION'] at "
            "the primary, e.g. {'default': {'host': …}}."
        )
    for setting in SESSION:
        await execute(connection, f"SET {setting}", within=within)


def abort(connection: Connection) -> None:
    """
    Cut the connection at the socket, so that a waiting thread or task wakes with an error.

    Cancelling the task does not: psycopg then waits for the silent server's answer to a cancel request.
    """
    with (
        suppress(OSError, psycopg.Error),
        # Closing the duplicate keeps the file descriptor valid; the shutdown affects both.
        socket.socket(fileno=os.dup(connection.fileno())) as duplicate,
    ):
        duplicate.shutdown(socket.SHUT_RDWR)
