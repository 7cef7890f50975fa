"""
Columns as the catalog has them, and the text of their values.

A model's field may differ from its column: a ``CharField`` on a ``uuid`` column, an ``IntegerField`` on a
``bigint``. PostgreSQL decides which values are equal, and how they are written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pgobserve.database.session import session_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.db import models
    from django.db.backends.base.base import BaseDatabaseWrapper

#: Bytes of an identifier in PostgreSQL (NAMEDATALEN - 1).
MAX_NAME: Final = 63

_QUERY: Final = """
WITH RECURSIVE types AS (
  SELECT a.attname, a.attcollation, a.atttypid AS type, a.atttypid AS base
    FROM pg_catalog.pg_attribute AS a
   WHERE a.attrelid = pg_catalog.to_regclass(%s)::pg_catalog.oid AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL
  SELECT c.attname, c.attcollation, c.type, t.typbasetype
    FROM types AS c JOIN pg_catalog.pg_type AS t ON t.oid = c.base AND t.typtype = 'd')
SELECT c.attname, pg_catalog.concat(pg_catalog.quote_ident(n.nspname), '.', pg_catalog.quote_ident(t.typname)),
       b.oid, CASE WHEN b.typtype = 'e' THEN 'enum'
                   WHEN b.typnamespace = 'pg_catalog'::pg_catalog.regnamespace::pg_catalog.oid
                   THEN b.typname::pg_catalog.text END,
       t.typarray = 0::pg_catalog.oid, coalesce(l.collisdeterministic, true)
  FROM types AS c
  JOIN pg_catalog.pg_type AS t ON t.oid = c.type
  JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
  JOIN pg_catalog.pg_type AS b ON b.oid = c.base AND b.typtype <> 'd'
  LEFT JOIN pg_catalog.pg_collation AS l ON l.oid = c.attcollation
"""

#: Settings that decide how PostgreSQL writes a value, with values under which it writes as the triggers do.
TEXT_SETTINGS: Final = {
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "quote_all_identifiers": "off",
    "search_path": "pg_catalog",
}

#: The settings that the text of a type obeys. Types that are not here may obey all of them.
_SETTINGS: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(("int2", "int4", "int8", "uuid", "text", "varchar", "numeric", "enum"), ()),
    **dict.fromkeys(("bool", "bpchar", "inet", "cidr", "name", "oid", "jsonb", "xid8"), ()),
    **dict.fromkeys(("date", "timestamp"), ("DateStyle",)),
    "timestamptz": ("DateStyle", "TimeZone"),
    "interval": ("IntervalStyle",),
    "float4": ("extra_float_digits",),
    "float8": ("extra_float_digits",),
    "bytea": ("bytea_output",),
}

#: Types whose values are equal if, and only if, their texts are. Types of a family compare without a cast.
_EXACT: Final = {
    **dict.fromkeys(("int2", "int4", "int8"), "integer"),
    **dict.fromkeys(("text", "varchar"), "text"),
    **{name: name for name in ("uuid", "bool", "date", "oid", "bytea")},
}

#: By family, the texts that PostgreSQL writes for values.
FORMS: Final = {
    "integer": re.compile(r"0|-?[1-9][0-9]{0,17}"),
    "uuid": re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "text": re.compile(r"[^\0]*", re.DOTALL),
}

#: Names that Django gives to types, as the catalog has them.
_DJANGO: Final = {
    "smallint": "int2",
    "integer": "int4",
    "bigint": "int8",
    "character varying": "varchar",
}


@dataclass(frozen=True, slots=True)
class Column:
    """
    The type of a column.

    Attributes:
        type: Its type as SQL, without length or precision.
        oid: The object id that results of a query have; 0 if it is not known.
        base: Name of the type below its domains if it is PostgreSQL's own; ``enum`` for any enumeration.
        nested: Whether no array can have such values as its elements.
        exact: A family of types in which equal values have equal texts; None if that is not so.
    """

    type: str
    oid: int = 0
    base: str | None = None
    nested: bool = False
    exact: str | None = None

    def writes(self, text: str) -> bool:
        """Return whether PostgreSQL is known to write a value just so."""
        form = FORMS.get(self.exact or "")
        return form is not None and form.fullmatch(text) is not None

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings that its text obeys."""
        found = _SETTINGS.get(self.base or "")
        if found is None and not (self.base or "").startswith("reg"):
            return tuple(TEXT_SETTINGS)[:-2]
        return tuple(TEXT_SETTINGS) if found is None else found


#: The type of texts.
TEXT: Final = Column("pg_catalog.text", base="text", exact="text")

# For each database alias and table, its columns by name; and the tables whose columns must be read again.
_known: dict[tuple[str, str], Mapping[str, Column]] = {}
_outdated: set[tuple[str, str]] = set()


def columns_of(table: str, connection: BaseDatabaseWrapper) -> Mapping[str, Column]:
    """
    Return the columns of a table by name; no columns if there is no such table.

    They are read once. A reader whose query fails, or returns another type, calls :func:`forget`.

    Args:
        table: A model's ``db_table``.
        connection: Runs a query at the first call for the table.
    """
    name = connection.alias, table
    found = _known.get(name)
    if found is None or name in _outdated:
        with session_of(connection), connection.cursor() as cursor:
            cursor.execute(_QUERY, [connection.ops.quote_name(table)])
            found = {
                column: Column(
                    kind, oid, base, nested, _EXACT.get(base or "") if deterministic else None
                )
                for column, kind, oid, base, nested, deterministic in cursor.fetchall()
            }
        if found:
            _known[name] = found
            _outdated.discard(name)
    return found


def forget(table: str, alias: str) -> bool:
    """Read a table's columns again at the next need; return whether they were known."""
    _outdated.add((alias, table))
    return (alias, table) in _known


def known_column(field: models.Field[object, object], alias: str) -> Column | None:
    """Return a field's column as it was last read, if its table has been; runs no query."""
    return _known.get((alias, field.model._meta.db_table), {}).get(server_name(str(field.column)))


def type_of(field: models.Field[object, object], connection: BaseDatabaseWrapper) -> Column:
    """Return a field's column; by the field if the table does not exist."""
    columns = columns_of(field.model._meta.db_table, connection)
    return columns.get(server_name(str(field.column))) or declared(field, connection)


def declared(field: models.Field[object, object], connection: BaseDatabaseWrapper) -> Column:
    """Return a field's column as Django would make it."""
    kind = re.sub(r"\(.*?\)", "", field.rel_db_type(connection) or "text")
    base = _DJANGO.get(kind, kind)
    return Column(kind, base=base, nested=kind.endswith("[]"), exact=_EXACT.get(base))


def text_of(name: str, column: Column) -> str:
    """
    Return the SQL for the text of a column, as PostgreSQL writes its values under :data:`TEXT_SETTINGS`.

    The session's own settings apply to the rest of the query: they are set for the one call, and restored.
    ``concat`` calls the type's output function. A cast may call another function, such as that of ``inet``.

    Args:
        name: The qualified name of the column.
        column: Its type.
    """
    if column.exact in ("integer", "text", "uuid"):
        return f"{name}::pg_catalog.text"
    written = f"pg_catalog.concat({name})"
    if not (names := column.settings):
        return written
    pinned = " AND ".join(
        f"pg_catalog.set_config('{each}', '{TEXT_SETTINGS[each]}', true) IS NOT NULL"
        for each in names
    )
    own = ", ".join(f"pg_catalog.current_setting('{each}') AS s{n}" for n, each in enumerate(names))
    restored = ", ".join(
        f"pg_catalog.\"left\"(pg_catalog.set_config('{each}', own.s{n}, true), 0)"
        for n, each in enumerate(names)
    )
    # The arguments of a function are evaluated in their order.
    return (
        f"(SELECT pg_catalog.concat(CASE WHEN {pinned} THEN {written} END, {restored}) "  # noqa: S608 (names)
        f"FROM (SELECT {own} OFFSET 0) AS own)"
    )


def server_name(name: str) -> str:
    """Return the server's form of a name of Django's: unquoted, and truncated."""
    if len(name) > 1 and name[0] == name[-1] == '"':
        name = name[1:-1].replace('""', '"')
    return name.encode()[:MAX_NAME].decode(errors="ignore")
