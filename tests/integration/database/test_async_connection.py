"""The LISTEN connection, with real servers and what stands before them."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.db import connections

from pgobserve.database.async_connection import (
    abort,
    connect,
    listen,
    parameters_of,
)
from pgobserve.errors import FeedUnavailable
from tests.integration.conftest import (
    directory,
    free_port,
    parameters,
    process,
    run,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from pgobserve.database.async_connection import Connection
    from pgobserve.demo.postgres import Server
    from tests.integration.conftest import Writer


@pytest.fixture
async def opened() -> AsyncIterator[Callable[..., Any]]:
    """Return connect; what it opens is closed in the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def opened(given: Mapping[str, Any]) -> Connection:
            connection = await connect(given)
            stack.push_async_callback(connection.close)
            return connection

        yield opened


async def test_listen(writer: Writer, opened: Any) -> None:
    """After listen what is sent on the channel arrives, and nothing of the probe is left."""
    connection = await opened(parameters())
    await listen(connection, "pgobserve", parameters())
    writer.notify("hello")

    heard = [n.payload async for n in connection.notifies(timeout=60, stop_after=1)]
    cursor = await connection.execute("SELECT pg_listening_channels()")
    assert heard == ["hello"]
    assert await cursor.fetchall() == [("pgobserve",)]


async def test_assumed_role(writer: Writer, opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection has the role that Django's connections assume, whatever it is called."""
    writer.rows('CREATE ROLE "a role\\"')
    options = connections["default"].settings_dict["OPTIONS"]
    try:
        with monkeypatch.context() as patch:
            patch.setitem(options, "assume_role", "a role\\")
            given = parameters_of(connections["default"])
            cursor = await (await opened(given)).execute("SELECT current_user")
            assert await cursor.fetchall() == [("a role\\",)]
            assert "options" not in parameters_of(connections["default"], {"user": "another"})
    finally:
        writer.rows('DROP ROLE "a role\\"')


async def test_longest_channel(writer: Writer, opened: Any) -> None:
    """A channel's name may be as long as PostgreSQL allows."""
    connection = await opened(parameters())
    await listen(connection, "c" * 63, parameters())
    writer.notify("hello", channel="c" * 63)

    assert [n.payload async for n in connection.notifies(timeout=60, stop_after=1)] == ["hello"]


async def test_probe_leaves_no_connection(writer: Writer, opened: Any) -> None:
    """Besides the connection itself none is left open."""
    connection = await opened(parameters())
    await listen(connection, "pgobserve", parameters())

    assert writer.listener()


async def test_settings_of_the_session(writer: Writer, opened: Any) -> None:
    """The connection names its process, and server and client both give up on a dead peer."""
    connection = await opened(parameters())
    cursor = await connection.execute(
        "SELECT current_setting('application_name'), current_setting('tcp_user_timeout'), "
        "current_setting('tcp_keepalives_idle')"
    )

    row = await cursor.fetchone()
    assert row is not None
    assert row[0] == f"pgobserve:{os.getpid()}"
    # Of a Unix-domain socket there is nothing to tell.
    assert row[1:] in {("15000", "15"), ("0", "0")}
    assert connection.info.get_parameters()["tcp_user_timeout"] == "15000"
    assert connection.autocommit


async def test_parameters_win(writer: Writer, opened: Any) -> None:
    """What is given wins over the defaults; what is Django's own does not reach psycopg."""
    given = {
        **parameters(),
        "application_name": "mine",
        "keepalives_idle": 3,
        "cursor_factory": psycopg.ClientCursor,
        "autocommit": False,
        "prepare_threshold": 1,
    }
    connection = await opened(given)

    assert connection.info.get_parameters()["application_name"] == "mine"
    assert connection.info.get_parameters()["keepalives_idle"] == "3"
    assert connection.cursor_factory is psycopg.AsyncCursor
    assert connection.autocommit


async def test_abort(writer: Writer, opened: Any) -> None:
    """An aborted connection fails whoever waits on it; to abort it again is no error."""
    connection = await opened(parameters())
    abort(connection)
    with pytest.raises(psycopg.OperationalError):
        await connection.execute("SELECT 1")

    abort(connection)
    await connection.close()
    abort(connection)


async def test_standby(own_server: Server) -> None:
    """A standby is refused with the remedy."""
    given, port = own_server.parameters(), free_port()
    with directory() as home:
        data = home / "standby"
        run(
            own_server.bin / "pg_basebackup",
            *("-D", data, "-h", "127.0.0.1", "-p", own_server.port, "-U", "postgres"),
            *("-R", "-c", "fast", "-X", "stream", "--no-sync"),
            cwd=home,
            PGPASSWORD=own_server.password,
        )
        postgres = [str(own_server.bin / "postgres"), "-D", str(data), "-p", str(port)]
        postgres += ["-h", "127.0.0.1", "-c", "unix_socket_directories="]
        standby = {**given, "port": port}
        with (
            process(postgres, lambda: psycopg.connect(**standby).close(), home),
            pytest.raises(FeedUnavailable, match=r"is a standby.*PGOBSERVE\['CONNECTION'\]"),
        ):
            await connect(standby)


async def test_transaction_pool(bouncer: Callable[[str], dict[str, Any]], opened: Any) -> None:
    """A pool that gives each transaction another session is refused with the remedy."""
    through = bouncer("transaction")
    connection = await opened(through)
    with pytest.raises(FeedUnavailable, match=r"transaction-pooling.*PGOBSERVE\['CONNECTION'\]"):
        await listen(connection, "pgobserve", through)


async def test_session_pool(
    bouncer: Callable[[str], dict[str, Any]], opened: Any, writer: Writer
) -> None:
    """A pool that gives each client a session of its own is fine."""
    through = bouncer("session")
    connection = await opened(through)
    await listen(connection, "pgobserve", through)
    writer.notify("hello")

    assert [n.payload async for n in connection.notifies(timeout=60, stop_after=1)] == ["hello"]
    await connection.close()
