"""Whether a table has its triggers, seen from the read side: asked before a subscription begins."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pgobserve.sql.model_tables import model_of
from pgobserve.wire import Operation

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.wire import Namespace

#: Operands have the same types: another role may have made an operator in ``public`` that fits mixed
#: types better than PostgreSQL's own. So it is in all queries of feeds.
_QUERY = """
SELECT t.tgname, p.prosecdef, pg_catalog.obj_description(t.oid, 'pg_trigger')
  FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
 WHERE t.tgrelid = pg_catalog.to_regclass(%s)::pg_catalog.oid
   AND t.tgname = ANY(%s) AND t.tgenabled IN ('O', 'A')
"""


def is_observed(
    table: str,
    connection: BaseDatabaseWrapper,
    *,
    namespace: Namespace,
    outbox: bool = False,
    channel: str | None = None,
) -> bool:
    """
    Tell whether all triggers are on the table, enabled, and heard by this process.

    Args:
        table: A model's ``db_table``; names are quoted as Django quotes them.
        connection: Of the database alias.
        namespace: Triggers of other namespaces don't count.
        outbox: Whether they must write to the outbox, too.
        channel: The channel that is listened to; None for any.
    """
    names = list(namespace.all_triggers)
    with connection.cursor() as cursor:
        cursor.execute(_QUERY, [connection.ops.quote_name(table), names])
        found = {name: (definer, comment) for name, definer, comment in cursor.fetchall()}
    # Only triggers that write to the outbox need rights that the writer has not.
    definer, _ = found.get(namespace.trigger(Operation.TRUNCATE), (False, None))
    wanted = {namespace.trigger(operation) for operation in Operation}
    if definer:
        wanted.update(namespace.writers)
    return (
        wanted <= found.keys()
        and (definer or not outbox)
        and all(_is_ours(comment, table, channel) for _, comment in found.values())
    )


def _is_ours(comment: str | None, table: str, channel: str | None) -> bool:
    """
    Tell whether a trigger speaks of this table on this channel, as far as its comment says.

    Another project on the same database may have put its own labels on the table.
    """
    _, brace, rest = (comment or "").partition("{")
    try:
        said = json.loads(brace + rest)
    except ValueError:
        return True  # restored without comments, say: `status` tells
    model = model_of(str(said["label"])) if "label" in said else None
    if "label" in said and (model is None or model._meta.db_table != table):
        return False
    return channel is None or said.get("channel", channel) == channel
