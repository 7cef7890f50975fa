"""
Checks that the outbox's schema belongs to trusted roles, before anything in it is read.

Reading a view, or a table with policies, runs its owner's code with the reader's rights. A role that may
create schemas could have created one with our name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.apps import apps

from pgobserve.database.async_connection import execute
from pgobserve.errors import FeedUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgobserve.database.async_connection import Connection
    from pgobserve.wire import Namespace

#: The untrusted owners of a schema and of its contents. Trusted are roles that could do as much without
#: the schema: superusers, roles whose rights the reader has, the database's owner, and roles that own a
#: table of the project or may create triggers on it. A superuser is a member of every role, so for a
#: superuser membership does not count.
QUERY: Final = """
SELECT DISTINCT r.rolname::pg_catalog.text
  FROM (SELECT n.oid, n.nspowner FROM pg_catalog.pg_namespace AS n) AS n
 CROSS JOIN LATERAL (
   SELECT n.nspowner
   UNION ALL
   SELECT c.relowner FROM pg_catalog.pg_class AS c WHERE c.relnamespace OPERATOR(pg_catalog.=) n.oid
   UNION ALL
   SELECT p.proowner FROM pg_catalog.pg_proc AS p WHERE p.pronamespace OPERATOR(pg_catalog.=) n.oid) AS o(owner)
  JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) o.owner
  JOIN pg_catalog.pg_roles AS me ON me.rolname OPERATOR(pg_catalog.=) CURRENT_USER
 WHERE n.oid OPERATOR(pg_catalog.=) pg_catalog.to_regnamespace(%s)::pg_catalog.oid
   AND NOT r.rolsuper
   AND r.oid OPERATOR(pg_catalog.<>) me.oid
   AND (me.rolsuper OR NOT pg_catalog.pg_has_role(r.oid, 'USAGE'))
   AND NOT EXISTS (
     SELECT FROM pg_catalog.pg_database AS d
      WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
        AND d.datdba OPERATOR(pg_catalog.=) r.oid)
   AND NOT EXISTS (
     SELECT FROM pg_catalog.unnest(%s::pg_catalog.text[]) AS t(name)
      WHERE pg_catalog.has_table_privilege(
        r.oid, pg_catalog.to_regclass(t.name)::pg_catalog.oid, 'TRIGGER'))
"""


def parameters(namespace: Namespace) -> Sequence[Any]:
    """Return the parameters of :data:`QUERY` for a namespace."""
    tables = {model._meta.db_table for model in apps.get_models(include_auto_created=True)}
    return [namespace.schema, sorted(map(_quoted, tables))]


def _quoted(table: str) -> str:
    # As Django does: a name that has its quotes already stays as it is.
    return table if table.startswith('"') and table.endswith('"') else f'"{table}"'


def refuse(strangers: Sequence[Sequence[Any]], namespace: Namespace) -> None:
    """Raise ``FeedUnavailable`` if :data:`QUERY` found something of a role without rights on the tables."""
    if strangers:
        roles = ", ".join(sorted(role for (role,) in strangers))
        raise FeedUnavailable(
            f"the schema {namespace.schema}, or something in it, belongs to {roles}: it is not read, "
            "because code of that role would run. See manage.py pgobserve doctor"
        )


async def check(connection: Connection, namespace: Namespace, within: float) -> None:
    """Return if the outbox may be read, or does not exist; raise ``FeedUnavailable`` otherwise."""
    answer = await execute(connection, QUERY, parameters(namespace), within=within)
    refuse(await answer.fetchall(), namespace)
