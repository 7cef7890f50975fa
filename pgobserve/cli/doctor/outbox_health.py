"""Checks of the outbox: its storage, rights, cursors, locks, and the gate in front of the wake-up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgobserve.cli.doctor.case import ok, problem, warning
from pgobserve.hub.snapshot import Snapshot
from pgobserve.install import outbox_report
from pgobserve.outbox import outbox_page as feed
from pgobserve.outbox.cursor import Cursor, gap_reason
from pgobserve.outbox.outbox_page import qualified
from pgobserve.triggers.server import outbox_storage, schema_owners
from pgobserve.wire import OUTBOX_WAKE_SLOTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgobserve.cli.doctor.case import Examination, Finding
    from pgobserve.outbox.cursor import GapReason

#: Seconds after which a transaction that holds the gate is reported.
LONG: Final = 10.0

#: The share of the retention after which a cursor that has not moved is reported.
LAGS: Final = 0.25

NONE: Final = "There is no outbox."

#: Uses object ids: a role can't look up names in a schema that it may not use.
_RIGHTS: Final = """
SELECT r.name, pg_catalog.has_schema_privilege(r.name, n.oid, 'USAGE'),
       ARRAY(SELECT 'SELECT on ' || n.nspname || '.' || c.relname FROM pg_catalog.pg_class c
              WHERE c.relnamespace = n.oid AND c.relname = ANY(%s::text[])
                AND NOT pg_catalog.has_table_privilege(r.name, c.oid, 'SELECT')
              ORDER BY c.relname)
       || ARRAY(SELECT 'EXECUTE on ' || n.nspname || '.' || p.proname FROM pg_catalog.pg_proc p
                 WHERE p.pronamespace = n.oid AND p.proname = 'outbox_rotate'
                   AND NOT pg_catalog.has_function_privilege(r.name, p.oid, 'EXECUTE'))
  FROM (SELECT coalesce(%s, current_user)::name) r(name), pg_catalog.pg_namespace n
 WHERE n.nspname = %s
"""

#: The relations that feeds read.
_READ: Final = ["outbox", "outbox_gate", "outbox_lost", "outbox_state"]

#: The relations that this command reads for the cursors of workers.
_PLACES: Final = ["outbox_cursor", "outbox_gate", "outbox_lost", "outbox_state"]

_EXISTS: Final = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_class c
                WHERE c.relnamespace = pg_catalog.to_regnamespace(%s) AND c.relname = %s)
"""

_CURSORS: Final = """
SELECT name, seen::text, extract(epoch FROM pg_catalog.clock_timestamp() - moved_at)::float8
  FROM {schema}.outbox_cursor ORDER BY name
"""

_GATE: Final = """
SELECT l.pid, coalesce(a.application_name, ''),
       extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::float8
  FROM pg_catalog.pg_locks l
  JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
   AND l.classid = %s::oid AND l.objid < %s::oid AND a.datname = pg_catalog.current_database()
   AND a.xact_start < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %s)
 ORDER BY a.xact_start
"""

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
LONG_LOCK: Final = 60.0


def stored(case: Examination) -> Finding:
    """Check that a needed outbox exists, is intact, not full, and rotates."""
    if not _exists(case, "outbox"):
        if not case.by_outbox:
            return ok("No observed table needs an outbox, and there is none.")
        return problem(
            "Changes go to the outbox, which does not exist.",
            *(each.title for each in case.by_outbox),
            advice="Run manage.py pgobserve install.",
        )
    wrong = outbox_storage.problem(case.connection, case.namespace)
    if wrong:
        return problem(
            f"The outbox is damaged or outdated: {wrong}.",
            advice="Run manage.py pgobserve install, as its owner.",
        )
    status = outbox_report.read_status(case.connection)
    if status is None:
        if not case.by_outbox:
            return ok("There is an outbox, which this role may not read and does not need.")
        return warning(
            "This role may not read the status of the outbox.",
            advice="Run this as its owner, or grant what the check of rights lists.",
        )
    size = f"The outbox takes {status.size:,} of {status.max_bytes:,} bytes"
    warnings = outbox_report.warnings(status)
    if not warnings:
        return ok(f"{size}, and rotated last at {status.rotated_at:%Y-%m-%d %H:%M} UTC.")
    finding = problem if status.is_full else warning
    sentences = [each.partition(": ") for each in warnings]
    advice = "; ".join(remedy for _, _, remedy in sentences) + "."
    return finding(f"{size}.", *(f"{what}." for what, _, _ in sentences), advice=advice)


def rights(case: Examination) -> Finding:
    """Check that the role of feeds may read the outbox and rotate it."""
    if not _exists(case, "outbox") or outbox_storage.damage(case.connection, case.namespace):
        return ok(NONE)
    role, lacking = _lacking(case, _READ, case.feed_parameters.get("user"))
    if not lacking:
        return ok(f"The role {role} may read the outbox and rotate it.")
    if not case.by_outbox:
        return ok(
            f"The role {role} may not read the outbox and does not need it: no observed table writes there."
        )
    return problem(
        f"The role {role}, with which feeds connect, lacks rights on the outbox.",
        *lacking,
        advice=f"GRANT them to {role}, as the owner of the outbox.",
    )


def cursors(case: Examination) -> Finding:
    """Check that the cursors of workers move."""
    if not _exists(case, "outbox_cursor") or outbox_storage.damage(case.connection, case.namespace):
        return ok("No worker keeps a cursor.")
    role, lacking = _lacking(case, _PLACES, None)
    if lacking:
        return ok(f"The role {role} may not read the cursors of workers.")
    rows = case.query(qualified(_CURSORS, case.namespace))
    facts = feed.status_of(case.query(qualified(feed.STATUS, case.namespace))[0])
    late = case.settings.OUTBOX_RETENTION * LAGS
    lost = [
        (name, age, gap_reason(Cursor(Snapshot.parse(seen)), facts)) for name, seen, age in rows
    ]
    behind = [each for each in lost if each[1] > late or each[2] is not None]
    if not behind:
        return ok(f"Cursors of workers that keep up: {len(rows)}.")
    finding = problem if any(why is not None for _, _, why in behind) else warning
    return finding(
        "Workers lag behind or do not run.",
        *_described(behind),
        advice="Start them, or raise PGOBSERVE['OUTBOX_RETENTION']. An obsolete cursor "
        f"is a row of {case.namespace.schema}.outbox_cursor: delete it.",
    )


def _described(cursors: list[tuple[str, float, GapReason | None]]) -> Iterator[str]:
    for name, age, why in cursors:
        gone = f", and it must start again ({why})" if why is not None else ""
        yield f"{name!r} has not moved for {age:,.0f} s{gone}"


def _exists(case: Examination, table: str) -> bool:
    ((there,),) = case.query(_EXISTS, [case.namespace.schema, table])
    # What looks like a table may be another role's view, which would run its code.
    return bool(there) and not case.foreign_objects


def _lacking(case: Examination, tables: list[str], role: str | None) -> tuple[str, list[str]]:
    """Return the name of a role, by default this one's, and the rights that it lacks."""
    schema = case.namespace.schema
    ((name, may_use, lacking),) = case.query(_RIGHTS, [tables, role, schema])
    return name, [*([] if may_use else [f"USAGE on the schema {schema}"]), *lacking]


def gate(case: Examination) -> Finding:
    """Check that no transaction holds the gate in front of the wake-up for long."""
    if not _exists(case, "outbox"):
        return ok(NONE)
    if case.settings.OUTBOX_WAKE == "poll":
        return ok("Readers poll the outbox, so no transaction wakes them.")
    held = case.query(_GATE, [case.namespace.outbox_lock, OUTBOX_WAKE_SLOTS, LONG])
    if not held:
        return ok("No transaction holds the gate in front of the readers' wake-up for long.")
    return warning(
        "Open transactions hold the gate, so other commits wake no reader: changes arrive up to a second "
        "later.",
        *(f"pid {pid}, {name!r}, for {age:,.0f} s" for pid, name, age in held),
        advice="Keep transactions short, or end those sessions: SELECT pg_terminate_backend(pid).",
    )


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
    held = case.query(_HELD, [case.namespace.schema, LONG_LOCK])
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
