"""Mute the triggers for a transaction, and mark whole tables as changed instead."""

from __future__ import annotations

import contextlib
import json
import logging
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from django.db import DEFAULT_DB_ALIAS, Error, connections, transaction
from psycopg import sql

from pgobserve.logs import fields
from pgobserve.triggers import registry
from pgobserve.triggers.server import catalog, pinned_search_path
from pgobserve.wire import ALONE, PAYLOAD_VERSION, Operation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Model

    from pgobserve.wire import Namespace

logger = logging.getLogger(__name__)

_NOTIFY: Final = """
SELECT pg_catalog.pg_notify(%s, pg_catalog.concat(
    %s::pg_catalog.text, pg_catalog.pg_current_xact_id(), %s::pg_catalog.text))
"""

#: Statements that this role may run on some tables, first those that run no rule and no other trigger.
_STATEMENTS: Final = """
SELECT n.nspname, c.relname, e.event,
       (SELECT a.attname FROM pg_attribute AS a
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
           AND (e.event = 'UPDATE' OR a.attgenerated = '' AND a.attidentity <> 'a')
           AND has_column_privilege(c.oid, a.attnum, replace(e.event, 'DELETE', 'SELECT'))
         LIMIT 1)
  FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 CROSS JOIN (VALUES ('UPDATE', '2', 16), ('INSERT', '3', 4), ('DELETE', '4', 8)) AS e(event, rule, bit)
 WHERE c.oid = ANY(%s) AND CASE WHEN e.event = 'DELETE' THEN has_table_privilege(c.oid, e.event)
                                ELSE has_any_column_privilege(c.oid, e.event) END
 ORDER BY (SELECT count(*) FROM pg_rewrite AS r WHERE r.ev_class = c.oid AND r.ev_type = e.rule::"char")
          + (SELECT count(*) FROM pg_trigger AS t
              WHERE t.tgrelid = c.oid AND t.tgtype & 1 = 0 AND t.tgtype & e.bit <> 0
                AND t.tgenabled <> 'D' AND NOT t.tgname = ANY(%s)),
          c.relkind
"""

#: By event, a statement that changes no row.
_CHANGE_NOTHING: Final = {
    "UPDATE": "UPDATE {table} SET {column} = DEFAULT WHERE false",
    "INSERT": "INSERT INTO {table} ({column}) SELECT NULL WHERE false",
    "DELETE": "DELETE FROM {table} WHERE false",
}


@dataclass(frozen=True, slots=True)
class _Target:
    """A model to mark: its channel, and the object ids of its tables that use the outbox."""

    label: str
    channel: str
    tables: tuple[int, ...] = ()

    @property
    def entry(self) -> str:
        """The label as the setting of marks holds it."""
        return f" {self.label} "


@contextlib.contextmanager
def muted(
    *models: type[Model], using: str = DEFAULT_DB_ALIAS, namespace: Namespace = ALONE
) -> Iterator[None]:
    """Run a block whose triggers are muted, as :func:`pgobserve.mute.muted` describes."""
    with transaction.atomic(using=using):
        targets = _targets(connections[using], models, namespace)
        with _marking(connections[using], targets, namespace):
            yield


def announce(
    *models: type[Model], using: str = DEFAULT_DB_ALIAS, namespace: Namespace = ALONE
) -> None:
    """Mark tables as changed, as :func:`pgobserve.mute.announce` describes."""
    with muted(*models, using=using, namespace=namespace):
        pass


@contextlib.contextmanager
def _marking(
    connection: BaseDatabaseWrapper, targets: Iterable[_Target], namespace: Namespace
) -> Iterator[None]:
    """
    Mute a block, and mark the targets.

    The triggers of the block's own statements write the marks, because they may write to the outbox
    and this role may not. The others are marked at the end.
    """
    marks = "".join(each.entry for each in targets if each.tables)
    mute = _set(connection, namespace.mute_setting, "on")
    others = _set(connection, namespace.marks_setting, marks)
    yield
    # No "finally": an exception aborts the transaction, which restores the settings.
    for each in targets:
        if not each.tables:
            _notify(connection, each)
        elif not _is_marked(connection, each, namespace) and not _mark(connection, each, namespace):
            _notify(connection, each)
            logger.warning(
                "This role may not mark %s as changed in the outbox of database %r. Rows and lists "
                "are read again; event observers receive no reset.",
                *(each.label, connection.alias),
                extra=fields(model=each.label, alias=connection.alias),
            )
    _set(connection, namespace.marks_setting, others)
    _set(connection, namespace.mute_setting, mute)


def _notify(connection: BaseDatabaseWrapper, target: _Target) -> None:
    label = json.dumps(target.label)
    head = f'{{"v":{PAYLOAD_VERSION},"t":{label},"o":"{Operation.UPDATE}","x":"'
    with connection.cursor() as cursor:
        cursor.execute(_NOTIFY, [target.channel, head, '","k":null}'])


def _mark(connection: BaseDatabaseWrapper, target: _Target, namespace: Namespace) -> bool:
    """Make a trigger write the mark, by a statement that changes no row; return whether it did."""
    parameters = [list(target.tables), list(namespace.all_triggers)]
    for schema, table, event, column in pinned_search_path.fetch(
        connection, _STATEMENTS, parameters
    ):
        statement = sql.SQL(_CHANGE_NOTHING[event]).format(
            table=sql.Identifier(schema, table), column=sql.Identifier(column or "")
        )
        # The table's own triggers and rules run too, and may refuse.
        with contextlib.suppress(Error), transaction.atomic(using=connection.alias):
            with connection.cursor() as cursor:
                cursor.execute(statement)
            if _is_marked(connection, target, namespace):
                return True
    return False


def _targets(
    connection: BaseDatabaseWrapper, models: tuple[type[Model], ...], namespace: Namespace
) -> list[_Target]:
    channels: dict[str, str] = {}
    outboxes: dict[str, list[int]] = defaultdict(list)
    for oid, on_table in catalog.triggers(connection, namespace).items():
        # The function of TRUNCATE names both, and has its owner's rights if it writes to the outbox.
        each = on_table.get(namespace.trigger(Operation.TRUNCATE))
        if each is not None and each.target is not None:
            label, channels[label] = each.target
            if each.trigger.security_definer:
                outboxes[label].append(oid)
    wanted = [each for model in models for each in registry.expand(model)]
    labels = [each._meta.label_lower for each in wanted] or sorted(channels)
    return [
        _Target(each, channels.get(each, namespace.channel), tuple(outboxes[each]))
        for each in dict.fromkeys(labels)
    ]


def _is_marked(connection: BaseDatabaseWrapper, target: _Target, namespace: Namespace) -> bool:
    """Return whether a trigger has taken the label out of the setting."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_catalog.current_setting(%s)", [namespace.marks_setting])
        (marks,) = cursor.fetchone()
    return target.entry not in marks


def _set(connection: BaseDatabaseWrapper, setting: str, value: str) -> str:
    """Set a setting until the end of the transaction; return its value before."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(pg_catalog.current_setting(%s, true), '')", [setting])
        (before,) = cursor.fetchone()
        cursor.execute("SELECT pg_catalog.set_config(%s, %s, true)", [setting, value])
    return str(before)
