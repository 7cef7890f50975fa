"""Whether a table has its triggers, seen from the read side: asked before a subscription begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgobserve.wire import TRIGGER_NAMES

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

_QUERY = """
SELECT pg_catalog.count(*)
  FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
 WHERE t.tgrelid = pg_catalog.to_regclass(%s)
   AND t.tgname = ANY(%s) AND t.tgenabled IN ('O', 'A')
   -- Only triggers that write to the outbox need rights that the writer has not.
   AND (p.prosecdef OR NOT %s)
"""


def is_observed(table: str, connection: BaseDatabaseWrapper, *, outbox: bool = False) -> bool:
    """
    Tell whether all triggers are on the table and enabled; a disabled one counts as missing.

    Args:
        table: A model's ``db_table``; names are quoted as Django quotes them.
        connection: Of the database alias.
        outbox: Whether they must write to the outbox, too.
    """
    names = list(TRIGGER_NAMES.values())
    with connection.cursor() as cursor:
        cursor.execute(_QUERY, [connection.ops.quote_name(table), names, outbox])
        row = cursor.fetchone()
    return row is not None and row[0] == len(names)
