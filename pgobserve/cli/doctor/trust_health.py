"""Checks of roles that could run code as another role, or block writers and readers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgobserve.cli.doctor.finding import ok, problem, warning
from pgobserve.triggers.server import schema_owners

if TYPE_CHECKING:
    from pgobserve.cli.doctor.case import Examination
    from pgobserve.cli.doctor.finding import Finding

#: Locks on our tables that block writers or the rotation.
_HELD: Final = """
SELECT DISTINCT a.pid, coalesce(a.application_name, ''), coalesce(a.usename::text, '?'),
       c.relname::text, l.mode, extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::float8
  FROM pg_catalog.pg_locks l
  JOIN pg_catalog.pg_class c ON c.oid = l.relation
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_database d ON d.oid = l.database AND d.datname = pg_catalog.current_database()
  JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'relation' AND l.granted AND n.nspname = %s AND c.relkind IN ('r', 'p')
   AND a.pid <> pg_catalog.pg_backend_pid()
   AND (a.xact_start IS NULL OR a.xact_start < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %s))
 ORDER BY a.pid, c.relname::text
"""

#: Seconds after which a transaction that holds locks is reported.
LONG: Final = 60.0


def schema(case: Examination) -> Finding:
    """Check that only the installing role can change what runs with its rights."""
    name = case.namespace.schema
    ((there,),) = case.query("SELECT pg_catalog.to_regnamespace(%s) IS NOT NULL", [name])
    if not there:
        return ok(f"There is no schema {name} yet.")
    problems = schema_owners.problems(case.connection, case.namespace)
    if not problems:
        return ok(f"One role controls the schema {name} and all that is in it.")
    return problem(
        f"Other roles control part of the schema {name}: they can run code with the rights of the "
        "installing role, or read rows.",
        *problems,
        advice="REVOKE their rights, make the installing role the owner, and run manage.py pgobserve "
        "install. The page on security lists what may be granted.",
    )


def locks(case: Examination) -> Finding:
    """Check that no long transaction holds locks on the outbox."""
    held = case.query(_HELD, [case.namespace.schema, LONG])
    if not held:
        return ok("No long transaction holds a lock on the outbox.")
    return warning(
        "Long transactions hold locks on the outbox. The rotation skips what they use, so the outbox "
        "grows.",
        *(
            f"pid {pid}, {application!r}, role {role}: {mode} on {table}"
            + ("" if age is None else f", for {age:,.0f} s")
            for pid, application, role, table, mode, age in held
        ),
        advice="Keep transactions short, or end those sessions: SELECT pg_terminate_backend(pid).",
    )
