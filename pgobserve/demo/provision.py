"""A database and a role for the demo alone, on whichever server it is; gone at the end."""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True)
class Database:
    """
    The demo's database.

    Attributes:
        parameters: How to connect to it, as psycopg keywords.
        commit_times: Whether the server remembers when a transaction was committed.
    """

    parameters: Mapping[str, Any]
    commit_times: bool

    @property
    def name(self) -> str:
        """Return the name, which is that of its role as well."""
        return str(self.parameters["dbname"])


@contextlib.contextmanager
def provision(admin: Mapping[str, Any], name: str, *, drop: bool = True) -> Iterator[Database]:
    """
    Make a database, owned by an unprivileged role of the same name, for a ``with`` block.

    What the visitors of the page type is run as that role: it can neither read the server's files
    nor touch another database.

    Args:
        admin: How to connect to the server, as psycopg keywords, with the right to create both.
        name: The name of both.
        drop: Whether to remove them at the end; no need if the server goes with them.

    Yields:
        The database.

    Raises:
        RuntimeError: The server can't be reached, or does not let us; the message says why.
    """
    password = secrets.token_urlsafe(9)
    try:
        with psycopg.connect(**admin, autocommit=True, connect_timeout=10) as connection:
            parameters = dict(admin) | _address(connection)
            parameters |= {"dbname": name, "user": name, "password": password}
            commit_times = _create(connection, name, password)
    except psycopg.Error as error:
        raise RuntimeError(_refused(error)) from error
    try:
        _try_out(parameters)
        yield Database(parameters, commit_times)
    finally:
        if drop:
            _drop(admin, name)


def _address(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    # Said outright, so that the psql command works in a terminal without our environment.
    return {"host": connection.info.host, "port": connection.info.port}


def _create(connection: psycopg.Connection[Any], name: str, password: str) -> bool:
    role = sql.Identifier(name)
    connection.execute(
        sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(password))
    )
    try:
        # Only a member of a role may give it a database.
        connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(role))
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))
    except psycopg.Error:
        connection.execute(sql.SQL("DROP ROLE {}").format(role))
        raise
    row = connection.execute("SELECT current_setting('track_commit_timestamp')::bool").fetchone()
    return bool(row and row[0])


def _try_out(parameters: Mapping[str, Any]) -> None:
    try:
        psycopg.connect(**parameters, connect_timeout=10).close()
    except psycopg.Error as error:
        raise RuntimeError(_refused(error)) from error


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
            f"The demo's database could not be removed ({str(error).strip()}). Do it yourself: "
            f'DROP DATABASE "{name}" WITH (FORCE); DROP ROLE "{name}";'
        ) from error


def _refused(error: psycopg.Error) -> str:
    return (
        f"The server that the environment names does not let the demo in ({str(error).strip()}). "
        "It needs a role that may create a database and a role, and a password login for the "
        "latter. Or unset DATABASE_URL and the PG* variables to have a server started."
    )
