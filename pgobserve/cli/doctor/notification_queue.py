"""Checks of the notification queue: how full it is, and who holds it back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgobserve.cli.doctor.finding import (
    Level,
    ok,
    problem,
    warning,
)
from pgobserve.listen.listener import QUEUE_WARNING

if TYPE_CHECKING:
    from pgobserve.cli.doctor.case import Examination
    from pgobserve.cli.doctor.finding import Finding

#: From this share on PostgreSQL itself warns; when it is full, whoever notifies fails.
NEARLY_FULL: Final = 0.5

#: Seconds after which a transaction is old, and between two looks at sessions that may just be busy.
OLD: Final = 60.0
BETWEEN: Final = 1.0

#: A session is told what it listens to between its transactions only. Which sessions listen, no view
#: tells.
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
    """Check that the notification queue is empty, and name those who don't read."""
    ((usage,),) = case.query("SELECT pg_catalog.pg_notification_queue_usage()")
    level = _level(usage)
    details = tuple(_held(case, everybody=level is not Level.OK).values())
    told = f"The notification queue of the cluster is {usage:.2%} full"
    if level is Level.OK and not details:
        return ok(f"{told}.")
    known = _sees_all(case)
    blind = "" if known else " Sessions of other roles can't be seen: GRANT pg_read_all_stats."
    made = problem if level is Level.PROBLEM else warning
    return made(
        f"{told}: some session listens and does not read. When it is full, whatever notifies fails."
        if level is not Level.OK
        else f"{told}, and sessions don't read what they are sent.",
        *details,
        advice=f"End those sessions: SELECT pg_terminate_backend(pid). Feeds come back by themselves.{blind}",
    )


def _level(usage: float) -> Level:
    if usage >= NEARLY_FULL:
        return Level.PROBLEM
    return Level.WARNING if usage >= QUEUE_WARNING else Level.OK


def _held(case: Examination, *, everybody: bool) -> dict[int, str]:
    """Return those who hold it back, also after another look."""
    first = _suspects(case, everybody=everybody)
    if not first:
        return {}
    case.query("SELECT pg_catalog.pg_sleep(%s)", [BETWEEN])
    return {pid: text for pid, text in _suspects(case, everybody=everybody).items() if pid in first}


def _suspects(case: Examination, *, everybody: bool) -> dict[int, str]:
    found = {}
    for pid, name, role, address, state, stuck, age in case.query(_SESSIONS):
        if not stuck and (age < OLD or not (everybody or name.startswith("pgobserve:"))):
            continue
        why = "does not read what it is sent" if stuck else f"{state} for {age:,.0f} s"
        found[pid] = f"pid {pid}, {name or 'no name'!r}, role {role}, from {address}: {why}"
    return found


def _sees_all(case: Examination) -> bool:
    ((all_of_them,),) = case.query("SELECT pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')")
    return bool(all_of_them)
