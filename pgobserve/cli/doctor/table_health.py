"""Checks of observed tables: their triggers, what mutes them, rights, routes and replication."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pgobserve.cli.doctor.case import ok, problem, warning
from pgobserve.dependencies import row_dependencies
from pgobserve.install import consumer_registry, targets, unseen_tables
from pgobserve.triggers.server.drift import State, compare
from pgobserve.triggers.trigger_values import Comment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pgobserve.cli.doctor.case import Examination, Finding
    from pgobserve.triggers.registry import Registration
    from pgobserve.triggers.trigger_values import CatalogEntry, TableInfo

_SUBSCRIBED: Final = """
SELECT srrelid::int8 FROM pg_catalog.pg_subscription_rel WHERE srrelid = ANY(%s::oid[])
"""

_RIGHTS: Final = """
SELECT c.oid::int8, pg_catalog.has_any_column_privilege(c.oid, 'SELECT'),
       pg_catalog.pg_has_role(c.relowner, 'USAGE'), pg_catalog.pg_get_userbyid(c.relowner)
  FROM pg_catalog.pg_class c WHERE c.oid = ANY(%s::oid[])
"""

_OTHER_NAMESPACES: Final = """
SELECT t.tgrelid::pg_catalog.regclass::text, t.tgname,
       pg_catalog.obj_description(t.oid, 'pg_trigger')
  FROM pg_catalog.pg_trigger t
 WHERE NOT t.tgisinternal AND t.tgname LIKE 'pgobserve%%' AND t.tgname <> ALL (%s)
 ORDER BY 1, 2
"""

_ROLE: Final = """
SELECT current_user::text,
       CASE WHEN pg_catalog.to_regnamespace(%(schema)s) IS NULL
            THEN pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')
            ELSE pg_catalog.has_schema_privilege(%(schema)s, 'CREATE')
             AND pg_catalog.has_schema_privilege(%(schema)s, 'USAGE') END
"""

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


def consumers(case: Examination) -> Finding:
    """Check that the consumers can be imported, and that ``observe_related`` names what exists."""
    only_settings = targets.only_settings()
    classes = consumer_registry.consumers()
    for each in classes:
        row_dependencies.check(each)
    tables = len(case.registrations)
    named = [each for each in classes if each.observed_models()]  # type: ignore[attr-defined]
    if only_settings is not None:
        return warning(
            only_settings,
            advice="Set ASGI_APPLICATION, so that the models of consumers are observed too.",
        )
    if not tables:
        return warning(
            "Nothing is observed: no consumer and no setting names a model.",
            advice="Import the consumers in the module of ASGI_APPLICATION.",
        )
    if unseen := [*unseen_tables.of(case.connection.alias)]:
        state = "Consumers read tables whose changes can't be seen."
        return warning(state, *unseen, advice="Change observe_related as it says there.")
    return ok(f"Consumers with subscriptions: {len(named)}. Observed tables: {tables}.")


def triggers(case: Examination) -> Finding:
    """Check that all tables have their triggers, as ``status`` does."""
    slow = {
        each.title
        for each in case.registrations
        if lacks_only_routes(each, case.tables.get(each.title), case.triggers)
    }
    statuses = [
        each for each in case.statuses if each.title not in slow and each.state is not State.CLASH
    ]
    bad = [each for each in statuses if each.state is not State.OK]
    if not bad:
        return ok(f"Tables that have their triggers: {len(statuses)}.")
    details = [f"{each.sentence} ({each.detail})" for each in bad]
    state = f"{len(bad)} of {len(statuses)} tables are not as wanted."
    advice = "Run manage.py pgobserve install, as the owner of the tables."
    if all(each.state is State.ORPHAN for each in bad):
        return warning(state, *details, advice="Run manage.py pgobserve uninstall --orphans.")
    return problem(state, *details, advice=advice)


def namespace(case: Examination) -> Finding:
    """Check that no other project uses this project's namespace or channel."""
    others = [each for each in case.statuses if each.state is State.CLASH]
    schema = case.namespace.schema
    if others:
        return problem(
            f"Another project has triggers in the namespace {schema}.",
            *(f"{each.detail}." for each in others),
            advice=others[0].remedy,
        )
    others_triggers = [
        f"{table}, trigger {name}"
        for table, name, text in case.query(_OTHER_NAMESPACES, [[*case.namespace.all_triggers]])
        if (comment := Comment.parse(text)) is not None and comment.channel == case.channel
    ]
    if others_triggers:
        return warning(
            f"Triggers of another namespace notify on the channel {case.channel} too.",
            *others_triggers,
            advice="Remove PGOBSERVE['CHANNEL']: each namespace has its own channel.",
        )
    return ok(f"No other project uses the namespace {schema}.")


def routes(case: Examination) -> Finding:
    """Check that triggers send the values of all routes."""
    missing = {
        each.title: columns
        for each in case.registrations
        if (columns := missing_routes(each, case.tables.get(each.title), case.triggers))
    }
    if not missing:
        return ok("Changes of related rows can be resolved to the rows that show them.")
    return warning(
        "Triggers do not send columns by which related rows are resolved, so each change makes feeds "
        "read every row again that may show such a row.",
        *(f"{title}: {', '.join(columns)}" for title, columns in missing.items()),
        advice=f"Run manage.py pgobserve install {' '.join(missing)}.",
    )


def missing_routes(
    registration: Registration,
    table: TableInfo | None,
    triggers: Mapping[int, Mapping[str, CatalogEntry]],
) -> list[str]:
    """Return the routes whose values a table's triggers do not send; the outbox has all."""
    on_table = triggers.get(table.oid, {}) if table is not None else {}
    comments = [each.comment for each in on_table.values() if each.comment is not None]
    if registration.transport != "notify" or any(e.transport != "notify" for e in comments):
        return []
    return [
        column for column in registration.routes if any(column not in e.routes for e in comments)
    ]


def lacks_only_routes(
    registration: Registration,
    table: TableInfo | None,
    triggers: Mapping[int, Mapping[str, CatalogEntry]],
) -> bool:
    """Return whether a table's triggers lack values of routes, and nothing else."""
    missing = missing_routes(registration, table, triggers)
    present = tuple(column for column in registration.routes if column not in missing)
    without = replace(registration, routes=present)
    return bool(missing) and compare(without, table, triggers).state is State.OK


def replication(case: Examination) -> Finding:
    """Check that no observed table is filled by logical replication."""
    names = {
        part.oid: f"{title} ({part})"
        for title, table in case.tables.items()
        for part in (table, *table.parts)
    }
    filled = [names[oid] for oid in subscribed(case, names)]
    if not filled:
        return ok("No observed table is filled by logical replication.")
    return problem(
        "Logical replication writes to observed tables and fires no statement-level triggers, so what "
        "it writes is not published.",
        *filled,
        advice="Observe them on the publisher, or call pgobserve.mute.announce() regularly.",
    )


def subscribed(case: Examination, oids: Iterable[int]) -> list[int]:
    """Return which of the tables logical replication writes to, by object id."""
    return [oid for (oid,) in case.query(_SUBSCRIBED, [[*oids]])]


def rights(case: Examination) -> Finding:
    """Check that the role may read observed tables; report whether it may install."""
    titles = {table.oid: title for title, table in case.tables.items()}
    ((role, may_create),) = case.query(_ROLE, {"schema": case.namespace.schema})
    rows = case.query(_RIGHTS, [[*titles]])
    unreadable = [titles[oid] for oid, readable, _, _ in rows if not readable]
    if unreadable:
        return problem(
            f"The role {role} may not read observed tables.",
            *unreadable,
            advice=f"GRANT SELECT on them to {role}.",
        )
    owners = sorted({owner for _, _, owns, owner in rows if not owns})
    if owners:
        return ok(
            f"The role {role} may read all observed tables.",
            advice=f"Run install as the owner of the tables: {', '.join(owners)}.",
        )
    install = "and install" if may_create else "but not install: it may not create in the database"
    return ok(f"The role {role} may read all observed tables, {install}.")


def silent(case: Examination) -> Finding:
    """Check that no setting mutes triggers."""
    reasons = muted_by(case, (each.always for each in case.statuses))
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


def muted_by(case: Examination, always: Iterable[bool]) -> list[str]:
    """Return a sentence for each setting of this session that mutes triggers that do not ``always`` fire."""
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
