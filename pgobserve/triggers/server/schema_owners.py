"""Which other roles control objects in our schema, whose functions run with the installer's rights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from django.apps import apps
from psycopg import sql

from pgobserve.triggers import names, trigger_statements
from pgobserve.triggers.server import pinned_search_path

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.wire import Namespace

#: The role that installed owns trigger functions and may create triggers on a table of the project.
#: Owning such functions is not enough: any role can create a schema of our name.
_INSTALLERS: Final = """
SELECT DISTINCT r.rolname::pg_catalog.text
  FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_roles r ON r.oid = p.proowner
 WHERE n.nspname = %s AND p.prorettype = 'pg_catalog.trigger'::pg_catalog.regtype
   AND (r.rolsuper OR EXISTS (
         SELECT FROM pg_catalog.unnest(%s::pg_catalog.oid[]) t(oid)
          WHERE pg_catalog.has_table_privilege(r.oid, t.oid, 'TRIGGER')))
 ORDER BY 1
"""

#: Other roles' code is reachable only through functions that run as their owner.
_UNPINNED: Final = """
SELECT p.oid::pg_catalog.regprocedure::text
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname = %s AND p.prosecdef
   AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY(p.proconfig), false)
 ORDER BY 1
"""

_OPEN: Final = """
SELECT 'every role may execute ' || p.oid::pg_catalog.regprocedure
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
 CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
 WHERE n.nspname = %s AND a.grantee = 0 AND p.prosecdef
UNION ALL
SELECT 'every role may ' || a.privilege_type || ' on ' || n.nspname || '.' || c.relname
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) a
 WHERE n.nspname = %s AND a.grantee = 0
UNION ALL
SELECT 'every role may use the schema ' || n.nspname
  FROM pg_catalog.pg_namespace n CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) a
 WHERE n.nspname = %s AND a.grantee = 0 AND a.privilege_type = 'USAGE'
 ORDER BY 1
"""


def foreign_objects(connection: BaseDatabaseWrapper, namespace: Namespace) -> list[str]:
    """
    Describe what other roles control in a namespace's schema.

    Such a role could run code with the rights of roles that use the schema. The check reads only
    the catalog and runs nothing of the schema.
    """
    models = apps.get_models(include_auto_created=True)
    tables = pinned_search_path.resolve(
        connection, sorted({names.quote(e._meta.db_table) for e in models})
    )
    parameters = [namespace.schema, [*tables.values()]]
    installers = [role for (role,) in pinned_search_path.fetch(connection, _INSTALLERS, parameters)]
    role = sql.Literal(installers[0]) if installers else sql.SQL("CURRENT_USER")
    return [
        what
        for (what,) in pinned_search_path.fetch(
            connection, trigger_statements.foreign_query(namespace, role)
        )
    ]


def problems(connection: BaseDatabaseWrapper, namespace: Namespace) -> list[str]:
    """Describe what other roles control in the schema, and what every role may do there."""
    schema = namespace.schema
    unpinned = pinned_search_path.fetch(connection, _UNPINNED, [schema])
    return [
        *foreign_objects(connection, namespace),
        *(f"{function} has no pinned search_path" for (function,) in unpinned),
        *(what for (what,) in pinned_search_path.fetch(connection, _OPEN, [schema] * 3)),
    ]
