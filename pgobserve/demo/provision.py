"""A temporary database and role for the demo, on any server."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@contextlib.contextmanager
def provision(
    admin: Mapping[str, Any], name: str, *, drop: bool = True
) -> Iterator[tuple[dict[str, Any], bool]]:
    """
    Create a database, owned by an unprivileged role of the same name, for a ``with`` block.

    Yields psycopg's keywords for it, and whether its server records commit timestamps.

    The page runs visitors' statements as that role, which can neither read the server's files nor change
    another database. Dropping them is not needed if the server ends, too.

    Raises:
        RuntimeError: The server is unreachable or refuses; the message contains the reason.
    """
    password = secrets.token_urlsafe(9)
    try:
        with psycopg.connect(**admin, autocommit=True, connect_timeout=10) as connection:
            # Explicit, so that psql connects in a terminal without these environment variables.
            address = {"host": connection.info.host, "port": connection.info.port}
            own = {"dbname": name, "user": name, "password": password}
            parameters = {**admin, **address, **own}
            commit_times = _create(connection, name, password)
    except psycopg.Error as error:
        raise RuntimeError(_refused(error)) from error
    try:
        try:
            psycopg.connect(**parameters, connect_timeout=10).close()
        except psycopg.Error as error:
            raise RuntimeError(_refused(error)) from error
        yield parameters, commit_times
    finally:
        if drop:
            _drop(admin, name)


def _create(connection: psycopg.Connection[Any], name: str, password: str) -> bool:
    role = sql.Identifier(name)
    connection.execute(
        sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(password))
    )
    try:
        # Only a member of a role may create a database for it.
        connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(role))
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))
    except psycopg.Error:
        connection.execute(sql.SQL("DROP ROLE {}").format(role))
        raise
    row = connection.execute("SELECT current_setting('track_commit_timestamp')::bool").fetchone()
    return bool(row and row[0])


def _drop(admin: Mapping[str, Any], name: str) -> None:
    try:
        with psycopg.connect(**admin, autocommit=True, connect_timeout=10) as connection:
            identifier = sql.Identifier(name)
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(identifier)
            )
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(identifier))
    except psycopg.Error as error:
        raise RuntimeError(
            f"Dropping the demo's database failed ({str(error).strip()}). Drop it: "
            f'DROP DATABASE "{name}" WITH (FORCE); DROP ROLE "{name}";'
        ) from error


def _refused(error: psycopg.Error) -> str:
    return (
        f"The server that the environment names refuses the demo ({str(error).strip()}). The demo "
        "needs a role that may create a database and a role, and a password login for that role. Or "
        "unset DATABASE_URL and the PG* variables, and the demo starts a server."
    )
