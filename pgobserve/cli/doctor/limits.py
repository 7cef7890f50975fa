"""Checks of settings: numbers that conflict with each other, the server, or the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.db import connections

from pgobserve.cli.doctor.finding import ok, problem, warning
from pgobserve.install import outbox_report, targets

if TYPE_CHECKING:
    from pgobserve.cli.doctor.case import Examination
    from pgobserve.cli.doctor.finding import Finding

#: Settings that must be whole numbers of at least 1.
COUNTS: Final = ("MAX_SUBSCRIPTIONS", "MAX_LIST_ROWS", "LOADER_THREADS")

#: A list of more rows is slow to subscribe to, and takes much memory.
MANY_ROWS: Final = 100_000

#: Connections of a pool whose size is not set.
POOL_SIZE: Final = 4

_ROOM: Final = """
SELECT pg_catalog.current_setting('max_connections')::int4
       - pg_catalog.current_setting('superuser_reserved_connections')::int4
       - coalesce(pg_catalog.current_setting('reserved_connections', true)::int4, 0)
       - count(*) FILTER (WHERE a.backend_type = 'client backend'),
       (SELECT r.rolconnlimit FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)
       - count(*) FILTER (WHERE a.usename = current_user),
       (SELECT r.rolconnlimit < 0 FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)
  FROM pg_catalog.pg_stat_activity a
"""


def settings(case: Examination) -> Finding:
    """Check the values in ``PGOBSERVE``."""
    given = case.settings
    outbox_report.check_settings()
    targets.named()
    wrong = [
        f"{name} must be a whole number of at least 1, not {value!r}"
        for name in COUNTS
        if not isinstance(value := getattr(given, name), int) or value < 1
    ]
    unknown = sorted(set(given.CONNECTION) - set(connections))
    wrong += [f"CONNECTION names {alias!r}, which DATABASES lacks" for alias in unknown]
    if wrong:
        return problem("PGOBSERVE has wrong values.", *wrong, advice="Correct it.")
    if given.MAX_LIST_ROWS > MANY_ROWS:
        return warning(
            f"MAX_LIST_ROWS is {given.MAX_LIST_ROWS:,}: a list of so many rows is read in one "
            "transaction, and each server process keeps its keys in memory.",
            advice=f"Lower it to {MANY_ROWS:,} or less, and let clients filter.",
        )
    return ok("PGOBSERVE is valid.")


def autocommit(case: Examination) -> Finding:
    """Check that the transaction of a read ends with its statement."""
    if case.connection.settings_dict.get("AUTOCOMMIT", True):
        return ok("Connections are in autocommit mode.")
    return problem(
        f"AUTOCOMMIT of DATABASES[{case.alias!r}] is False: connections that read watched rows stay in "
        "a transaction, which blocks vacuum, the outbox and migrations.",
        advice="Remove AUTOCOMMIT, and use atomic().",
    )


def pool(case: Examination) -> Finding:
    """Check that Django's connection pool has room for the loader's threads."""
    options: Any = case.connection.settings_dict["OPTIONS"].get("pool")
    if not options:
        return ok("Django uses no connection pool.")
    given = options if isinstance(options, dict) else {}
    most = given.get("max_size") or given.get("min_size", POOL_SIZE)
    threads = case.settings.LOADER_THREADS
    if most > threads:
        return ok(f"Django's pool has {most} connections, for {threads} threads of the loader.")
    return problem(
        f"Django's pool has at most {most} connections, and the loader keeps one for each of its "
        f"{threads} threads: all other code waits for a connection.",
        advice=f"Raise max_size in DATABASES[{case.alias!r}]['OPTIONS']['pool'], or lower "
        "PGOBSERVE['LOADER_THREADS'].",
    )


def room(case: Examination) -> Finding:
    """Check that the database has connections left for another server process."""
    ((of_server, of_role, unlimited),) = case.query(_ROOM)
    free = of_server if unlimited else min(of_server, of_role)
    needed = case.settings.LOADER_THREADS + case.listens + bool(case.by_outbox)
    state = (
        f"A server process with subscriptions needs up to {needed} connections, besides those of its "
        f"other requests; {max(free, 0)} are free now"
    )
    if free >= needed:
        return ok(f"{state}.")
    return warning(
        f"{state}, of the server or of the role.",
        advice="Raise max_connections or the role's CONNECTION LIMIT, lower "
        "PGOBSERVE['LOADER_THREADS'], or put a pool before the server.",
    )
