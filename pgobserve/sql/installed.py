"""Checks, before a subscription starts, that a table has its triggers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pgobserve.sql.model_tables import model_of
from pgobserve.wire import Operation

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.wire import Namespace

#: Operands have equal types, as in all queries of feeds: another role's operator in ``public`` might fit
#: mixed types better than PostgreSQL's own.
_QUERY = """
SELECT t.tgname, p.prosecdef, pg_catalog.obj_description(t.oid, 'pg_trigger'),
       pg_catalog.concat_ws(' ', t.tgrelid, t.oid, t.xmin)
  FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
 WHERE t.tgrelid = pg_catalog.to_regclass(%s)::pg_catalog.oid
   AND t.tgname = ANY(%s) AND t.tgenabled IN ('O', 'A')
"""


def triggers_of(
    table: str,
    connection: BaseDatabaseWrapper,
    *,
    namespace: Namespace,
    outbox: bool = False,
    channel: str | None = None,
) -> frozenset[str]:
    """
    Return a table's triggers, if it has all, enabled and on the channel that this process hears.

    They are named by the object ids of table and trigger, and the transaction that made or changed the
    trigger. So other values mean that there was a time without triggers.

    Args:
        table: A model's ``db_table``; quoted as Django quotes names.
        connection: A connection of the alias.
        namespace: Triggers of other namespaces do not count.
        outbox: Whether the triggers must write to the outbox as well.
        channel: The channel that the feed listens to; None for any.
    """
    names = list(namespace.all_triggers)
    with connection.cursor() as cursor:
        cursor.execute(_QUERY, [connection.ops.quote_name(table), names])
        rows = cursor.fetchall()
    triggers = {name: (definer, comment) for name, definer, comment, _ in rows}
    # SECURITY DEFINER marks an outbox trigger: only those need rights that the writer lacks.
    definer, _ = triggers.get(namespace.trigger(Operation.TRUNCATE), (False, None))
    wanted = {namespace.trigger(operation) for operation in Operation}
    if definer:
        wanted.update(namespace.writers)
    complete = (
        wanted <= triggers.keys()
        and (definer or not outbox)
        and all(_is_ours(comment, table, channel) for _, comment in triggers.values())
    )
    return frozenset(version for *_, version in rows if complete)


def _is_ours(comment: str | None, table: str, channel: str | None) -> bool:
    """
    Return whether a trigger's comment names this table and channel, as far as it names any.

    Another project on the same database may have installed its labels on the table.
    """
    _, brace, rest = (comment or "").partition("{")
    try:
        content = json.loads(brace + rest)
    except ValueError:
        return True  # for example restored without comments, which `status` reports
    model = model_of(str(content["label"])) if "label" in content else None
    if "label" in content and (model is None or model._meta.db_table != table):
        return False
    return channel is None or content.get("channel", channel) == channel
