"""Read tables, their partitions, and our triggers from the server's catalog."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from pgobserve.search_path import first_schema
from pgobserve.triggers import names
from pgobserve.triggers.server import pinned_search_path
from pgobserve.triggers.trigger_values import (
    CatalogEntry,
    ColumnInfo,
    Comment,
    TableInfo,
    Trigger,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.wire import Namespace

#: Kinds of relations that can have statement-level triggers with transition tables.
TRIGGERABLE = ("r", "p")

#: The columns are sorted by name, because their order may differ between databases of a project. See
#: :class:`ColumnInfo` for the names of types; PostgreSQL looks for a cast to ``json`` itself.
_RELATIONS = """
WITH RECURSIVE uses(relid, attnum, oid) AS (
  SELECT a.attrelid, a.attnum, a.atttypid
    FROM pg_catalog.pg_attribute a
   WHERE a.attrelid = ANY(%(oids)s::pg_catalog.oid[]) AND a.attnum > 0 AND NOT a.attisdropped
  UNION
  SELECT u.relid, u.attnum, part.oid
    FROM uses u
    JOIN pg_catalog.pg_type t ON t.oid = u.oid
   CROSS JOIN LATERAL (
     SELECT t.typelem
      UNION ALL
     SELECT t.typbasetype
      UNION ALL
     SELECT g.rngsubtype FROM pg_catalog.pg_range g WHERE t.oid IN (g.rngtypid, g.rngmultitypid)
      UNION ALL
     SELECT a.atttypid
       FROM pg_catalog.pg_attribute a
      WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) AS part(oid)
   WHERE part.oid <> 0
), types AS (
  SELECT u.relid, u.attnum,
         pg_catalog.array_agg(DISTINCT name.name) FILTER (WHERE name.name IS NOT NULL) AS names
    FROM uses u
    JOIN pg_catalog.pg_type t ON t.oid = u.oid
   CROSS JOIN LATERAL (
     SELECT CASE WHEN t.typtype IN ('r', 'm') THEN 'range'
                 WHEN t.oid < 16384 THEN t.typname::pg_catalog.text
                 WHEN t.typtype = 'b' AND NOT (t.typlen = -1 AND t.typelem <> 0) THEN 'other' END
      UNION ALL
     SELECT 'json' FROM pg_catalog.pg_cast x
      WHERE x.castsource = t.oid AND x.castsource >= 16384 AND x.castmethod = 'f'
        AND x.casttarget = 'pg_catalog.json'::pg_catalog.regtype) AS name(name)
   GROUP BY u.relid, u.attnum
)
SELECT c.oid, n.nspname, c.relname, c.relkind,
       pg_catalog.json_agg(
         pg_catalog.json_build_array(a.attname, a.attgenerated = 'v', t.names) ORDER BY a.attname
       ) FILTER (WHERE a.attname IS NOT NULL)::pg_catalog.text
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN types t ON t.relid = c.oid
  LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = t.attnum
 WHERE c.oid = ANY(%(oids)s::pg_catalog.oid[])
 GROUP BY c.oid, n.nspname
"""

_UNIQUE = """
SELECT i.indrelid,
       ARRAY(SELECT a.attname FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = i.indrelid
                AND a.attnum = ANY((i.indkey::pg_catalog.int2[])[0:i.indnkeyatts - 1]))
  FROM pg_catalog.pg_index i
 WHERE i.indrelid = ANY(%s::pg_catalog.oid[]) AND i.indisunique AND i.indisvalid
   AND i.indpred IS NULL AND i.indexprs IS NULL
"""

_BEHIND = """
WITH RECURSIVE reads(view, oid) AS (
  SELECT w.ev_class, d.refobjid FROM pg_catalog.pg_rewrite w JOIN pg_catalog.pg_depend d
      ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass::pg_catalog.oid AND d.objid = w.oid
     AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid
     AND d.refobjid <> w.ev_class
), behind(root, oid) AS (
  SELECT r.view, r.oid FROM reads r WHERE r.view = ANY(%s::pg_catalog.oid[])
  UNION
  SELECT b.root, r.oid FROM behind b JOIN reads r ON r.view = b.oid
)
SELECT b.root, c.relname FROM behind b JOIN pg_catalog.pg_class c ON c.oid = b.oid
 WHERE c.relkind IN ('r', 'p') ORDER BY 1, 2
"""

_PARTS = """
SELECT r.root, c.oid, n.nspname, c.relname, c.relkind
  FROM pg_catalog.unnest(%s::pg_catalog.oid[]) AS r(root)
 CROSS JOIN LATERAL pg_catalog.pg_partition_tree(r.root::pg_catalog.regclass) t
  JOIN pg_catalog.pg_class c ON c.oid = t.relid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid <> r.root
 ORDER BY t.level, n.nspname, c.relname
"""

_TRIGGERS = """
SELECT c.oid, cn.nspname, c.relname, c.relkind,
       t.tgname, t.tgtype, t.tgenabled, t.tgoldtable, t.tgnewtable, t.tgqual IS NOT NULL,
       t.tgattr::pg_catalog.text, t.tgnargs,
       fn.nspname, p.proname, l.lanname, p.prosrc, p.prosecdef, p.proconfig, d.description
  FROM pg_catalog.pg_trigger t
  JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
  JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace
  JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
  JOIN pg_catalog.pg_namespace fn ON fn.oid = p.pronamespace
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
  LEFT JOIN pg_catalog.pg_description d
    ON d.objoid = t.oid AND d.classoid = 'pg_catalog.pg_trigger'::pg_catalog.regclass
 WHERE NOT t.tgisinternal AND t.tgname = ANY(%s)
"""

#: The fields of :class:`Trigger` that the query returns, in its order.
_FIELDS = (
    *("name", "type", "enabled", "old_table", "new_table", "condition", "columns", "arguments"),
    *("function_schema", "function", "language", "source", "security_definer"),
)

# Triggers on some tables, and triggers on others that share a function with them.
_OF_TABLES = """
   AND t.tgfoid IN (SELECT o.tgfoid FROM pg_catalog.pg_trigger o
                     WHERE o.tgrelid = ANY(%s) AND NOT o.tgisinternal)
"""


def relations(connection: BaseDatabaseWrapper, tables: Iterable[str]) -> dict[str, TableInfo]:
    """
    Return the tables that exist, by their quoted names.

    A name without schema follows the session's ``search_path``.
    """
    oids = pinned_search_path.resolve(connection, tables)
    rows = (
        pinned_search_path.fetch(connection, _RELATIONS, {"oids": [*oids.values()]}) if oids else []
    )
    partitioned = [oid for oid, _, _, kind, _ in rows if kind == "p"]
    parts = _parts(connection, partitioned) if partitioned else {}
    unique = _grouped(connection, _UNIQUE, [oid for oid, *_ in rows])
    behind = _grouped(connection, _BEHIND, [oid for oid, _, _, kind, _ in rows if kind in "vm"])
    by_oid = {
        oid: TableInfo(
            schema=schema,
            name=name,
            kind=kind,
            types=tuple(
                ColumnInfo(column, frozenset(types or ()), is_virtual)
                for column, is_virtual, types in json.loads(columns or "[]")
            ),
            parts=tuple(parts.get(oid, ())),
            oid=oid,
            unique=frozenset(map(frozenset, unique[oid])),
            behind=tuple(behind[oid]),
        )
        for oid, schema, name, kind, columns in rows
    }
    return {name: by_oid[oid] for name, oid in oids.items() if oid in by_oid}


def home(connection: BaseDatabaseWrapper) -> str:
    """
    Return the first schema of this role's ``search_path``; empty for ``public``.

    Ignores what the session has set since, such as a tenant's schema.
    """
    query = "SELECT reset_val FROM pg_catalog.pg_settings WHERE name = 'search_path'"
    ((search_path,),) = pinned_search_path.fetch(connection, query)
    return first_schema(search_path)


def triggers(
    connection: BaseDatabaseWrapper, namespace: Namespace, tables: Iterable[TableInfo] | None = None
) -> dict[int, dict[str, CatalogEntry]]:
    """
    Return a namespace's triggers in this database, by the table's object id and their name.

    Args:
        tables: Return only triggers on these tables, their partitions, and tables that share a
            function with them; None means all.
    """
    query, parameters = _TRIGGERS, [list(namespace.all_triggers)]
    if tables is not None:
        oids: list[Any] = [each.oid for table in tables for each in (table, *table.parts)]
        query, parameters = query + _OF_TABLES, [*parameters, oids]
    found: dict[int, dict[str, CatalogEntry]] = defaultdict(dict)
    for row in pinned_search_path.fetch(connection, query, parameters):
        oid, schema, table_name, kind, *fields, description = row
        trigger = _trigger(fields)
        if names.is_ours(trigger.name, trigger.function_schema, description, namespace):
            relation = TableInfo(schema=schema, name=table_name, kind=kind, oid=oid)
            found[oid][trigger.name] = CatalogEntry(trigger, relation, Comment.parse(description))
    return dict(found)


def functions(found: Mapping[int, Mapping[str, CatalogEntry]], namespace: Namespace) -> set[str]:
    """Return the names of a namespace's functions that these triggers call."""
    return {
        each.trigger.function
        for on_table in found.values()
        for each in on_table.values()
        if each.trigger.function_schema == namespace.schema
    }


def _grouped(
    connection: BaseDatabaseWrapper, query: str, oids: Sequence[int]
) -> defaultdict[int, list[Any]]:
    """Return the values of a query's second column by its first."""
    found: defaultdict[int, list[Any]] = defaultdict(list)
    for oid, value in pinned_search_path.fetch(connection, query, [[*oids]]) if oids else ():
        found[oid].append(value)
    return found


def _parts(connection: BaseDatabaseWrapper, roots: Sequence[int]) -> dict[int, list[TableInfo]]:
    parts: dict[int, list[TableInfo]] = defaultdict(list)
    rows = pinned_search_path.fetch(connection, _PARTS, [list(roots)])
    for root, oid, schema, name, kind in rows:
        parts[root].append(TableInfo(schema=schema, name=name, kind=kind, oid=oid))
    return parts


def _trigger(fields: Sequence[Any]) -> Trigger:
    *others, config = fields
    return Trigger(**dict(zip(_FIELDS, others, strict=True)), config=tuple(config or ()))
