"""Checks of the server: version, recovery, prepared transactions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgobserve.cli.doctor.finding import ok, problem, warning

if TYPE_CHECKING:
    from pgobserve.cli.doctor.case import Examination
    from pgobserve.cli.doctor.finding import Finding

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
