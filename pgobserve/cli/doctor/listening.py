"""Checks of LISTEN: whether it works where feeds connect, and which feeds are connected."""

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

#: Seconds to wait for a notification.
HEARING_TIMEOUT: Final = 2.0

_FEEDS: Final = """
SELECT count(*), count(DISTINCT (application_name, client_addr))
  FROM pg_catalog.pg_stat_activity
 WHERE datname = pg_catalog.current_database() AND application_name LIKE 'pgobserve:%'
"""


def listen(case: Examination) -> Finding:
    """Check that feeds can LISTEN, and receive what this alias notifies."""
    if not case.listens:
        return ok("Feeds do not LISTEN: all changes go to the outbox, which they poll.")
    try:
        where = asyncio.run(_listen(case.parameters, case.channel))
    except FeedUnavailable as error:
        state, point, what = str(error).partition(" Point ")
        remedy = f"Point {what}" if point else f"See that the server answers {_named(case)}."
        return problem(state, advice=remedy)
    except (psycopg.Error, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return problem(
            f"A connection with the feeds' parameters fails: {reason}",
            advice=f"Correct {_named(case)}.",
        )
    if not _receives(case):
        return problem(
            f"LISTEN works on {where}, but notifications of the database {case.alias!r} do not arrive "
            "there: it is another server or another database.",
            advice=f"Point {_named(case)} at the database where the rows are written.",
        )
    return ok(f"LISTEN works on {where}, and receives what {case.alias!r} notifies.")


def _named(case: Examination) -> str:
    """Return the name of the setting for the connection of feeds."""
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


def _receives(case: Examination) -> bool:
    if case.connection.in_atomic_block:
        return True  # PostgreSQL sends notifications only after the commit.
    channel = f"pgobserve_probe_{secrets.token_hex(8)}"
    with psycopg.connect(**{**DEFAULTS, **case.parameters, "autocommit": True}) as listener:
        listener.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        case.query("SELECT pg_catalog.pg_notify(%s, '')", [channel])
        if not case.connection.get_autocommit():
            case.connection.commit()
        return any(True for _ in listener.notifies(timeout=HEARING_TIMEOUT, stop_after=1))


def pooling(case: Examination) -> Finding:
    """Check that Django's settings match a transaction pool that feeds bypass."""
    if not case.overrides:
        return ok("Feeds connect as Django does.")
    parameters = own(parameters_of(case.connection))
    if not asyncio.run(_is_pooled(parameters, case.channel)):
        return ok("Django's own connections do not go through a transaction pool.")
    if case.connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS"):
        return ok("Django's own connections go through a transaction pool, and its settings match.")
    return warning(
        f"Django's connections to {case.alias!r} go through a transaction pool that its settings do not "
        "mention: a cursor or prepared statement may be missing in the next session.",
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
    """Report which feeds are connected now."""
    name = case.feed_parameters.get("application_name")
    if name is not None:
        return ok(
            f"Feeds can't be distinguished from other sessions: their application_name is {name!r}."
        )
    sessions, processes = connected(case)
    if not sessions:
        return ok(
            "No feed is connected now.",
            advice="A server process has one while it has subscribers. If it has, see its log.",
        )
    many = "es" if processes != 1 else ""
    return ok(f"Feeds of {processes} server process{many} are connected ({sessions} sessions).")


def connected(case: Examination) -> tuple[int, int]:
    """Return the number of sessions of feeds now, and of their server processes."""
    ((sessions, processes),) = case.query(_FEEDS)
    return sessions, processes
