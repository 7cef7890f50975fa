"""Checks of LISTEN: whether it works where feeds connect, which feeds are connected, and the queue."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql

from pgobserve.cli.doctor.case import Level, ok, own, problem, warning
from pgobserve.database.async_connection import DEFAULTS, connect, parameters_of
from pgobserve.database.async_connection import listen as listen_over
from pgobserve.errors import FeedUnavailable
from pgobserve.listen.listener import QUEUE_WARNING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgobserve.cli.doctor.case import Examination, Finding

#: Seconds to wait for a notification.
HEARING_TIMEOUT: Final = 2.0

_FEEDS: Final = """
SELECT count(*), count(DISTINCT (application_name, client_addr))
  FROM pg_catalog.pg_stat_activity
 WHERE datname = pg_catalog.current_database() AND application_name LIKE 'pgobserve:%'
"""

#: At this share PostgreSQL itself warns. When the queue is full, every NOTIFY fails.
NEARLY_FULL: Final = 0.5

#: Seconds after which a transaction is old, and between two samples of sessions that may be busy.
OLD: Final = 60.0
BETWEEN: Final = 1.0

#: A session receives notifications between its transactions only. No view lists the sessions that
#: listen.
_SESSIONS: Final = """
SELECT pid, coalesce(application_name, ''), coalesce(usename::text, '?'),
       coalesce(pg_catalog.host(client_addr), 'a local socket'), coalesce(state, '?'),
       coalesce(wait_event = 'ClientWrite', false),
       coalesce(extract(epoch FROM pg_catalog.clock_timestamp() - xact_start), 0)::float8
  FROM pg_catalog.pg_stat_activity
 WHERE backend_type = 'client backend' AND pid <> pg_catalog.pg_backend_pid()
   AND (wait_event = 'ClientWrite' OR xact_start IS NOT NULL)
   AND (state <> 'active' OR application_name LIKE 'pgobserve:%%')
 ORDER BY backend_start
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


def queue(case: Examination) -> Finding:
    """Check that the notification queue is empty; list sessions that do not read."""
    ((usage,),) = case.query("SELECT pg_catalog.pg_notification_queue_usage()")
    level = _level(usage)
    details = tuple(_blocking(case, all_sessions=level is not Level.OK).values())
    state = f"The notification queue of the cluster is {usage:.2%} full"
    if level is Level.OK and not details:
        return ok(f"{state}.")
    ((sees_all,),) = case.query("SELECT pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')")
    hidden = "" if sees_all else " To see other roles' sessions, GRANT pg_read_all_stats."
    finding = problem if level is Level.PROBLEM else warning
    return finding(
        f"{state}: a session listens and does not read. When the queue is full, every NOTIFY fails."
        if level is not Level.OK
        else f"{state}, and sessions do not read what they receive.",
        *details,
        advice=f"End those sessions: SELECT pg_terminate_backend(pid). Feeds reconnect.{hidden}",
    )


def _level(usage: float) -> Level:
    if usage >= NEARLY_FULL:
        return Level.PROBLEM
    return Level.WARNING if usage >= QUEUE_WARNING else Level.OK


def _blocking(case: Examination, *, all_sessions: bool) -> dict[int, str]:
    """Return the sessions that block the queue in two samples."""
    first = _suspects(case, all_sessions=all_sessions)
    if not first:
        return {}
    case.query("SELECT pg_catalog.pg_sleep(%s)", [BETWEEN])
    second = _suspects(case, all_sessions=all_sessions)
    return {pid: text for pid, text in second.items() if pid in first}


def _suspects(case: Examination, *, all_sessions: bool) -> dict[int, str]:
    sessions = {}
    for pid, name, role, address, state, stuck, age in case.query(_SESSIONS):
        if not stuck and (age < OLD or not (all_sessions or name.startswith("pgobserve:"))):
            continue
        why = "does not read what it receives" if stuck else f"{state} for {age:,.0f} s"
        sessions[pid] = f"pid {pid}, {name or 'no name'!r}, role {role}, from {address}: {why}"
    return sessions
