"""Operators of another role's that fit PostgreSQL's mixed types better than PostgreSQL's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from tests.integration.conftest import parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

TYPES = [
    "oid",
    "regclass",
    "name",
    "text",
    '"char"',
    "int2",
    "int4",
    "int8",
    "numeric",
    "regproc",
    "regprocedure",
    "regnamespace",
    "regtype",
    "oidvector",
    "int2vector",
    "aclitem",
    "xid",
    "timestamptz",
    "interval",
    "text[]",
    "name[]",
]

BOOL = ("=", "<>", "<", ">", "<=", ">=", "~~", "!~~", "~")
TEXT = ("||",)
NUMBER = ("+", "-", "*", "/", "%", "&")

#: Pairs of types that PostgreSQL has the operator for are left out: its own comes first.
MAKE = """
DO $do$
DECLARE
  a text; b text; op text; result text;
BEGIN
  FOREACH a IN ARRAY %(types)s::text[] LOOP
    FOREACH b IN ARRAY %(types)s::text[] LOOP
      FOR result IN SELECT unnest('{bool,text,int8}'::text[]) LOOP
        EXECUTE format(
          'CREATE FUNCTION public.shadow_%%s(%%s, %%s) RETURNS %%s LANGUAGE plpgsql AS '
          '$f$ BEGIN INSERT INTO public.ran VALUES (current_user, %%L); RETURN %%L; END $f$',
          result, a, b, result, a || ' and ' || b || ' to ' || result,
          CASE result WHEN 'bool' THEN 'true' ELSE '1' END);
      END LOOP;
      FOR op, result IN
        SELECT o, 'bool' FROM unnest(%(bool)s::text[]) o
        UNION ALL SELECT o, 'text' FROM unnest(%(text)s::text[]) o
        UNION ALL SELECT o, 'int8' FROM unnest(%(number)s::text[]) o
      LOOP
        IF NOT EXISTS (SELECT FROM pg_operator p WHERE p.oprname = op
             AND p.oprleft = a::regtype::oid AND p.oprright = b::regtype::oid) THEN
          EXECUTE format('CREATE OPERATOR public.%%s (leftarg = %%s, rightarg = %%s, function = public.shadow_%%s)',
                         op, a, b, result);
        END IF;
      END LOOP;
    END LOOP;
  END LOOP;
END
$do$
"""

#: A few at a time: all of them are more locks than a transaction may have.
REMOVE = """
DO $do$
DECLARE
  number int := 0; f text;
BEGIN
  FOR f IN SELECT p.oid::regprocedure FROM pg_proc p WHERE p.proowner = 'shadow'::regrole::oid LOOP
    EXECUTE format('DROP FUNCTION %s CASCADE', f);
    number := number + 1;
    IF number % 100 = 0 THEN
      COMMIT;
    END IF;
  END LOOP;
END
$do$
"""

#: Functions that PostgreSQL has for types of any kind alone.
FUNCTIONS = """
CREATE FUNCTION public.unnest(text[]) RETURNS SETOF text LANGUAGE plpgsql AS $f$
BEGIN
  INSERT INTO public.ran VALUES (current_user, 'unnest');
  RETURN QUERY SELECT pg_catalog.unnest($1);
END $f$
"""


def shadowed() -> Iterator[None]:
    """Let a role that may create in ``public`` make such operators; remove them at the end."""
    wanted = {
        "types": TYPES,
        "bool": list(BOOL),
        "text": list(TEXT),
        "number": list(NUMBER),
    }
    with psycopg.connect(
        **parameters(), autocommit=True, cursor_factory=psycopg.ClientCursor
    ) as each:
        each.execute("CREATE TABLE public.ran (by_whom text, what text)")
        each.execute("GRANT INSERT ON public.ran TO PUBLIC")
        each.execute("CREATE ROLE shadow")
        each.execute("GRANT CREATE ON SCHEMA public TO shadow")
        each.execute("SET ROLE shadow")
        each.execute(MAKE, wanted)
        each.execute(FUNCTIONS)
        each.execute("RESET ROLE")
        try:
            yield
        finally:
            each.execute("SET search_path = pg_catalog")
            each.execute(REMOVE)
            each.execute("DROP OWNED BY shadow CASCADE")
            each.execute("DROP ROLE shadow")
            each.execute("DROP TABLE public.ran")


def ran() -> list[tuple[str, str]]:
    """Return what has run since the last look, and with whose rights."""
    with psycopg.connect(**parameters(), autocommit=True) as each:
        each.execute("SET search_path = pg_catalog")
        return each.execute(
            "WITH gone AS (DELETE FROM public.ran RETURNING by_whom, what) SELECT DISTINCT * FROM gone"
        ).fetchall()
