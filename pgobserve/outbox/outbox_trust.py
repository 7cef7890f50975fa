"""
In whose hands the schema is that a feed reads the outbox from.

Reading a view, or a table with policies, runs code of its owner with the reader's rights. A role that may
create schemas could have made one of our name.
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

#: The owners of a schema and of what is in it, apart from those that could do as much without it:
#: superusers, roles whose rights the reader has, the database's owner, and roles that own a table of the
#: project, or may put triggers there. Every role is a member of what a superuser is, so it counts by name.
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
    """Return what :data:`QUERY` is run with to look at a namespace's schema."""
    tables = {model._meta.db_table for model in apps.get_models(include_auto_created=True)}
    return [namespace.schema, sorted(map(_quoted, tables))]


def _quoted(table: str) -> str:
    # As Django quotes it, which leaves a name alone that has its quotes already.
    return table if table.startswith('"') and table.endswith('"') else f'"{table}"'


def refuse(strangers: Sequence[Sequence[Any]], namespace: Namespace) -> None:
    """
    Refuse to read, given what :data:`QUERY` has found.

    Raises:
        FeedUnavailable: Something belongs to a role that has no right on any table of the project.
    """
    if strangers:
        roles = ", ".join(sorted(role for (role,) in strangers))
        raise FeedUnavailable(
            f"the schema {namespace.schema}, or something in it, belongs to {roles}: nothing in it is "
            "read, because code of that role would run. See manage.py pgobserve doctor"
        )


async def check(connection: Connection, namespace: Namespace, within: float) -> None:
    """
    Return if the outbox may be read over a connection, or if there is none.

    Raises:
        FeedUnavailable: It may not; or the server is silent.
        psycopg.Error: The connection is lost.
    """
    answer = await execute(connection, QUERY, parameters(namespace), within=within)
    refuse(await answer.fetchall(), namespace)
