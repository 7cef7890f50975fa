"""In whose hands our schema is: what is in it may run with the rights of the role that installed it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from django.apps import apps
from psycopg import sql

from pgobserve.triggers import compiler, names
from pgobserve.triggers.server import pinned_search_path

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.wire import Namespace

#: The role that installed: it may put triggers on a table of the project. Any role can make a schema of
#: our name with trigger functions in it.
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

#: Code of another role's can only be reached through functions that run as their owner.
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


def strangers(connection: BaseDatabaseWrapper, namespace: Namespace) -> list[str]:
    """
    Say what in the schema is in the hands of other roles, which could run code as those that use it.

    Only the catalog is read: nothing that is in the schema runs.

    Args:
        connection: The database.
        namespace: Whose schema.
    """
    models = apps.get_models(include_auto_created=True)
    tables = pinned_search_path.resolve(
        connection, sorted({names.quote(e._meta.db_table) for e in models})
    )
    found = pinned_search_path.fetch(
        connection, _INSTALLERS, [namespace.schema, [*tables.values()]]
    )
    installers = [role for (role,) in found]
    role = sql.Literal(installers[0]) if installers else sql.SQL("CURRENT_USER")
    return [
        what
        for (what,) in pinned_search_path.fetch(connection, compiler.strangers(namespace, role))
    ]


def problems(connection: BaseDatabaseWrapper, namespace: Namespace) -> list[str]:
    """Say that, and what every role may do in the schema."""
    schema = namespace.schema
    unpinned = pinned_search_path.fetch(connection, _UNPINNED, [schema])
    return [
        *strangers(connection, namespace),
        *(f"{function} has no pinned search_path" for (function,) in unpinned),
        *(what for (what,) in pinned_search_path.fetch(connection, _OPEN, [schema] * 3)),
    ]
