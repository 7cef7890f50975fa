"""Checks of the server and the settings: version, recovery, prepared transactions, connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.db import connections

from pgobserve.cli.doctor.case import ok, problem, warning
from pgobserve.install import outbox_report, targets

if TYPE_CHECKING:
    from pgobserve.cli.doctor.case import Examination, Finding

#: The first and the last major version that the tests run on.
OLDEST, NEWEST = 14, 18

#: The first minor release of each major version in which VACUUM keeps what the notification queue
#: still needs.
FIXED_IN: Final = {14: 21, 15: 16, 16: 12, 17: 8, 18: 2}

#: Seconds after which a prepared transaction is old.
FORGOTTEN: Final = 60.0

_PREPARED: Final = """
SELECT gid, extract(epoch FROM pg_catalog.clock_timestamp() - prepared)::float8
  FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database()
 ORDER BY prepared
"""

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


def version(case: Examination) -> Finding:
    """Check that the tests cover the server's version."""
    major, minor = case.connection.get_database_version()
    name = f"PostgreSQL {major}.{minor}"
    if major < OLDEST:
        return problem(f"{name} is too old.", advice=f"Upgrade to {OLDEST} or newer.")
    if major > NEWEST:
        return warning(
            f"{name} is newer than the versions that pgobserve is tested with ({OLDEST} to {NEWEST}).",
            advice="Look for a newer pgobserve.",
        )
    return ok(f"{name}.")


def update(case: Examination) -> Finding:
    """Check that the server's release fixes a bug in NOTIFY."""
    major, minor = case.connection.get_database_version()
    fixed = FIXED_IN.get(major)
    if fixed is None or minor >= fixed:
        return ok("The release has no known bug in NOTIFY.")
    return warning(
        f"In PostgreSQL {major}.{minor} VACUUM may remove what the notification queue still needs. Then "
        'LISTEN fails ("could not access status of transaction"), or notifications are skipped '
        "silently.",
        advice=f"Update the server to {major}.{fixed} or newer.",
    )


def standby(case: Examination) -> Finding:
    """Check that the alias connects to a primary."""
    ((replica,),) = case.query("SELECT pg_catalog.pg_is_in_recovery()")
    if not replica:
        return ok("The server is a primary.")
    return problem(
        f"The database {case.alias!r} is a hot standby: its rows lag behind notifications, and "
        "triggers can't be installed there.",
        advice="Name the alias of the primary with --database, and make the routers' db_for_write "
        "return it.",
    )


def prepared(case: Examination) -> Finding:
    """Check for prepared transactions, which can't notify."""
    ((most,),) = case.query("SELECT pg_catalog.current_setting('max_prepared_transactions')::int4")
    old = [(gid, age) for gid, age in case.query(_PREPARED) if age > FORGOTTEN]
    if old:
        return warning(
            "Transactions are prepared and not ended: their changes are not published, and they block "
            "vacuum and the outbox.",
            *(f"{gid!r}, for {age:,.0f} s" for gid, age in old),
            advice="COMMIT PREPARED or ROLLBACK PREPARED, as their transaction manager decides.",
        )
    if most == 0:
        return ok("The server allows no prepared transactions.")
    if not case.listens:
        return ok("Triggers don't notify, so transactions can be prepared.")
    return ok(
        f"max_prepared_transactions is {most}.",
        advice="A transaction that has notified can't be prepared. If the project prepares some, mute their "
        "triggers and announce the change afterwards.",
    )


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
