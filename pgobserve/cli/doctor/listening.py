"""Checks of LISTEN: whether it works where feeds would do it, and which feeds are there."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql

from pgobserve.cli.doctor.case import own
from pgobserve.cli.doctor.finding import ok, problem, warning
from pgobserve.database.async_connection import DEFAULTS, connect, parameters_of
from pgobserve.database.async_connection import listen as listen_over
from pgobserve.errors import FeedUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgobserve.cli.doctor.case import Examination
    from pgobserve.cli.doctor.finding import Finding

#: Seconds that a notification may take.
HEARING_TIMEOUT: Final = 2.0

_FEEDS: Final = """
SELECT count(*), count(DISTINCT (application_name, client_addr))
  FROM pg_catalog.pg_stat_activity
 WHERE datname = pg_catalog.current_database() AND application_name LIKE 'pgobserve:%'
"""


def listen(case: Examination) -> Finding:
    """Check that feeds can LISTEN, and that they hear who writes by this alias."""
    if not case.listens:
        return ok("Nobody needs to LISTEN: all goes by the outbox, which is polled.")
    try:
        where = asyncio.run(_listen(case.parameters, case.channel))
    except FeedUnavailable as error:
        state, point, what = str(error).partition(" Point ")
        remedy = f"Point {what}" if point else f"See that the server answers {_named(case)}."
        return problem(state, advice=remedy)
    except (psycopg.Error, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return problem(
            f"The connection that feeds would use can't be made: {reason}",
            advice=f"Correct {_named(case)}.",
        )
    if not _hears(case):
        return problem(
            f"LISTEN works on {where}, and what is notified by the database {case.alias!r} is not heard "
            "there: it is another server or another database.",
            advice=f"Let {_named(case)} lead to where the rows are written.",
        )
    return ok(f"LISTEN works on {where}, and hears what is notified by {case.alias!r}.")


def _named(case: Examination) -> str:
    """Return the setting that says how feeds connect."""
    name = "PGOBSERVE['CONNECTION']" if case.overrides else "DATABASES"
    return f"{name}[{case.alias!r}]"


async def _listen(parameters: Mapping[str, Any], channel: str) -> str:
    connection = await connect(parameters)
    try:
        await listen_over(connection, channel, parameters)
        info = connection.info
        return (
            f"{info.host or 'a local socket'}:{info.port}, database {info.dbname}, as {info.user}"
        )
    finally:
        await connection.close()


def _hears(case: Examination) -> bool:
    if case.connection.in_atomic_block:
        return True  # nothing is sent before its end
    channel = f"pgobserve_probe_{secrets.token_hex(8)}"
    with psycopg.connect(**{**DEFAULTS, **case.parameters, "autocommit": True}) as ear:
        ear.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        case.query("SELECT pg_catalog.pg_notify(%s, '')", [channel])
        if not case.connection.get_autocommit():
            case.connection.commit()
        return any(True for _ in ear.notifies(timeout=HEARING_TIMEOUT, stop_after=1))


def pooling(case: Examination) -> Finding:
    """Check that Django knows of a pool of transactions which feeds go round."""
    if not case.overrides:
        return ok("Feeds connect as Django does.")
    parameters = own(parameters_of(case.connection))
    if not asyncio.run(_is_pooled(parameters, case.channel)):
        return ok("Django's own connections are no pool's.")
    if case.connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS"):
        return ok("Django's own connections come from a pool of transactions, and it knows.")
    return warning(
        f"Django's connections to {case.alias!r} come from a pool of transactions, and it does not know: "
        "cursors and prepared statements may be looked for in another session than they are in.",
        advice=f"Set DATABASES[{case.alias!r}]['DISABLE_SERVER_SIDE_CURSORS'] = True.",
    )


async def _is_pooled(parameters: Mapping[str, Any], channel: str) -> bool:
    connection = await connect(parameters)
    try:
        await listen_over(connection, channel, parameters)
    except FeedUnavailable:
        return True
    finally:
        await connection.close()
    return False


def feeds(case: Examination) -> Finding:
    """Tell which feeds are connected now."""
    name = case.feed_parameters.get("application_name")
    if name is not None:
        return ok(f"Feeds can't be told from other sessions: their application_name is {name!r}.")
    sessions, processes = connected(case)
    if not sessions:
        return ok(
            "No feed is connected now.",
            advice="A server process has one while somebody is subscribed. If somebody is, see its log.",
        )
    many = "es" if processes != 1 else ""
    return ok(f"Feeds of {processes} server process{many} are connected ({sessions} sessions).")


def connected(case: Examination) -> tuple[int, int]:
    """Return how many sessions feeds have now, and how many server processes have them."""
    ((sessions, processes),) = case.query(_FEEDS)
    return sessions, processes
