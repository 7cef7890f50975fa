"""Finds the PostgreSQL that ``DATABASE_URL`` or the ``PG*`` variables name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

if TYPE_CHECKING:
    from collections.abc import Mapping

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
