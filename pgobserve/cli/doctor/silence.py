"""Check of settings that mute triggers: ``session_replication_role`` and ``pgobserve.mute``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgobserve.cli.doctor.finding import ok, problem, warning

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgobserve.cli.doctor.case import Examination
    from pgobserve.cli.doctor.finding import Finding

_SESSION: Final = """
SELECT pg_catalog.current_setting('session_replication_role') = 'replica',
       coalesce(pg_catalog.current_setting(%s, true), '') = 'on'
"""

_DEFAULTS: Final = """
SELECT CASE WHEN c.setrole = 0 THEN 'all roles' ELSE 'the role ' || r.rolname END, s.setting
  FROM pg_catalog.pg_db_role_setting c
 CROSS JOIN LATERAL pg_catalog.unnest(c.setconfig) s(setting)
  LEFT JOIN pg_catalog.pg_roles r ON r.oid = c.setrole
  LEFT JOIN pg_catalog.pg_database d ON d.oid = c.setdatabase
 WHERE (c.setdatabase = 0 OR d.datname = pg_catalog.current_database())
   AND s.setting IN ('session_replication_role=replica', %s)
 ORDER BY 1, 2
"""


def silent(case: Examination) -> Finding:
    """Check that no setting mutes triggers."""
    reasons = of_session(case, (each.always for each in case.statuses))
    defaults = [
        f"{setting} for {role}"
        for role, setting in case.query(_DEFAULTS, [f"{case.namespace.mute_setting}=on"])
    ]
    advice = "ALTER ROLE … RESET or ALTER DATABASE … RESET the setting, or install with --always."
    if reasons:
        return problem(" ".join(reasons), *defaults, advice=advice)
    if defaults:
        return warning("Changes of some roles are not published.", *defaults, advice=advice)
    return ok("No setting mutes the triggers.")


def of_session(case: Examination, always: Iterable[bool]) -> list[str]:
    """
    Return a sentence for each setting of this session that mutes triggers.

    ``always`` has, for each table, whether its triggers always fire.
    """
    setting = case.namespace.mute_setting
    ((replica, muted),) = case.query(_SESSION, [setting])
    reasons = []
    if replica and not all(always):
        reasons.append(
            "session_replication_role is replica in sessions of this role, so triggers don't fire."
        )
    if muted:
        reasons.append(f"{setting} is on in sessions of this role, so triggers publish nothing.")
    return reasons
