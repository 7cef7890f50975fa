"""Check of the notification queue: how full it is, and which sessions do not read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgobserve.cli.doctor.finding import Level, ok, problem, warning
from pgobserve.listen.listener import QUEUE_WARNING

if TYPE_CHECKING:
    from pgobserve.cli.doctor.case import Examination
    from pgobserve.cli.doctor.finding import Finding

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


def queue(case: Examination) -> Finding:
    """Check that the notification queue is empty; list sessions that do not read."""
    ((usage,),) = case.query("SELECT pg_catalog.pg_notification_queue_usage()")
    level = _level(usage)
    details = tuple(_blocking(case, all_sessions=level is not Level.OK).values())
    state = f"The notification queue of the cluster is {usage:.2%} full"
    if level is Level.OK and not details:
        return ok(f"{state}.")
    hidden = "" if _sees_all(case) else " To see other roles' sessions, GRANT pg_read_all_stats."
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


def _sees_all(case: Examination) -> bool:
    ((sees_all,),) = case.query("SELECT pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')")
    return bool(sees_all)
