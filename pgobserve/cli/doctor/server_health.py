"""Checks of the server: its version, whether it is a standby, prepared transactions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgobserve.cli.doctor.finding import ok, problem, warning

if TYPE_CHECKING:
    from pgobserve.cli.doctor.case import Examination
    from pgobserve.cli.doctor.finding import Finding

#: The first and the last major version that the tests run on.
OLDEST, NEWEST = 14, 18

#: The first minor release of each major version in which VACUUM leaves alone what the notification
#: queue still needs (all of the same day).
MENDED: Final = {14: 21, 15: 16, 16: 12, 17: 8, 18: 2}

#: Seconds after which a prepared transaction is old.
FORGOTTEN: Final = 60.0

_PREPARED: Final = """
SELECT gid, extract(epoch FROM pg_catalog.clock_timestamp() - prepared)::float8
  FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database()
 ORDER BY prepared
"""


def version(case: Examination) -> Finding:
    """Check that the server is of a version that this package was tried with."""
    major, minor = case.connection.get_database_version()
    told = f"PostgreSQL {major}.{minor}"
    if major < OLDEST:
        return problem(f"{told} is too old.", advice=f"Upgrade to {OLDEST} or newer.")
    if major > NEWEST:
        return warning(
            f"{told} is newer than all that pgobserve was tried with ({OLDEST} to {NEWEST}).",
            advice="See whether there is a newer pgobserve.",
        )
    return ok(f"{told}.")


def update(case: Examination) -> Finding:
    """Check that the server has the release in which a bug of NOTIFY was mended."""
    major, minor = case.connection.get_database_version()
    mended = MENDED.get(major)
    if mended is None or minor >= mended:
        return ok("The release has no bug of NOTIFY that is known.")
    return warning(
        f"In PostgreSQL {major}.{minor} VACUUM may remove what the notification queue still needs, so "
        'that LISTEN fails ("could not access status of transaction"), and an error while '
        "notifications are read passes in silence.",
        advice=f"Update the server to {major}.{mended} or newer.",
    )


def standby(case: Examination) -> Finding:
    """Check that the alias leads to a primary."""
    ((replica,),) = case.query("SELECT pg_catalog.pg_is_in_recovery()")
    if not replica:
        return ok("The server is a primary.")
    return problem(
        f"The database {case.alias!r} is a hot standby: its rows lag behind what is notified, and "
        "triggers can't be installed there.",
        advice="Name the alias of the primary with --database, and let db_for_write of the routers "
        "return it.",
    )


def prepared(case: Examination) -> Finding:
    """Check what two-phase commits mean for NOTIFY."""
    ((most,),) = case.query("SELECT pg_catalog.current_setting('max_prepared_transactions')::int4")
    old = [(gid, age) for gid, age in case.query(_PREPARED) if age > FORGOTTEN]
    if old:
        return warning(
            "Transactions were prepared and not ended: nothing that they wrote is told, and they hold "
            "back vacuum and the outbox.",
            *(f"{gid!r}, for {age:,.0f} s" for gid, age in old),
            advice="COMMIT PREPARED or ROLLBACK PREPARED, whichever their manager wanted.",
        )
    if most == 0:
        return ok("The server takes no prepared transactions.")
    if not case.listens:
        return ok("Triggers don't notify, so transactions can be prepared.")
    return ok(
        f"max_prepared_transactions is {most}.",
        advice="A transaction that has notified can't be prepared. If the project does that, mute the "
        "triggers in it and announce the change afterwards.",
    )
