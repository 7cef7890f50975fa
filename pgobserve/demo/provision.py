"""The server that the environment names, and a temporary database and role for the demo on any server."""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Variables that select a server. ``PGUSER`` and ``PGPASSWORD`` don't: many users set them in a profile.
NAMING = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGSERVICE")


def named_server(environ: Mapping[str, str] = os.environ) -> dict[str, Any] | None:
    """
    Return psycopg's keywords for the server that the environment names, or None.

    ``DATABASE_URL`` wins over ``PG*``, which libpq reads itself; ``ValueError`` if it is no PostgreSQL URL.
    """
    url = environ.get("DATABASE_URL")
    if url:
        try:
            return dict(conninfo_to_dict(url))
        except psycopg.ProgrammingError:
            # Without the cause, which may quote the password.
            scheme = url.partition(":")[0] if ":" in url else "no scheme"
            raise ValueError(
                f"DATABASE_URL names no PostgreSQL server (it begins with {scheme!r}). Set it to "
                "postgresql://…, or unset it, and the demo starts a server."
            ) from None
    if any(environ.get(name) for name in NAMING):
        # A name given here would override the service's database.
        dbname = environ.get("PGDATABASE") or ("" if environ.get("PGSERVICE") else "postgres")
        return {"dbname": dbname} if dbname else {}
    return None


def django_database(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry of Django's ``DATABASES`` for psycopg keywords."""
    names = {
        "dbname": "NAME",
        "host": "HOST",
        "port": "PORT",
        "user": "USER",
        "password": "PASSWORD",
    }
    entry: dict[str, Any] = {"ENGINE": "django.db.backends.postgresql", "NAME": "postgres"}
    entry |= {names[key]: str(value) for key, value in parameters.items() if key in names}
    entry["OPTIONS"] = {key: value for key, value in parameters.items() if key not in names}
    return entry


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
