"""Mute the triggers for a transaction, and mark whole tables as changed instead."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from psycopg import sql

from pgobserve.triggers import names, registry
from pgobserve.triggers.server import catalog
from pgobserve.triggers.trigger_values import Comment
from pgobserve.wire import ALONE, MUTE_MARK, PAYLOAD_VERSION, Operation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Model

    from pgobserve.triggers.trigger_values import TableInfo
    from pgobserve.wire import Namespace

_MARK = """
SELECT pg_catalog.pg_notify(%s, pg_catalog.concat(
    %s::pg_catalog.text, pg_catalog.pg_current_xact_id(), %s::pg_catalog.text))
"""


@contextlib.contextmanager
def muted(
    *models: type[Model], using: str = DEFAULT_DB_ALIAS, namespace: Namespace = ALONE
) -> Iterator[None]:
    """Run a block whose triggers are muted, as :func:`pgobserve.mute.muted` describes."""
    connection = connections[using]
    with transaction.atomic(using=using):
        before = _set(connection, namespace, "on")
        yield
        # No "finally": an exception aborts the transaction, which restores the setting.
        _set(connection, namespace, before)
        announce(*models, using=using, namespace=namespace)


def announce(
    *models: type[Model], using: str = DEFAULT_DB_ALIAS, namespace: Namespace = ALONE
) -> None:
    """Mark tables as changed, as :func:`pgobserve.mute.announce` describes."""
    connection = connections[using]
    with transaction.atomic(using=using):
        for table, comment in _targets(connection, models, namespace):
            if comment.transport == "outbox" and table is not None:
                _mark(connection, table, namespace)
            else:
                _notify(connection, comment)


def _notify(connection: BaseDatabaseWrapper, comment: Comment) -> None:
    label = json.dumps(comment.label)
    head = f'{{"v":{PAYLOAD_VERSION},"t":{label},"o":"{Operation.UPDATE}","x":"'
    with connection.cursor() as cursor:
        cursor.execute(_MARK, [comment.channel, head, '","k":null}'])


def _mark(connection: BaseDatabaseWrapper, table: TableInfo, namespace: Namespace) -> None:
    """
    Make the table's own trigger write a mark to the outbox, where this role may not write.

    The statement names any column and changes no row.
    """
    column = min(table.columns)
    statement = sql.SQL("UPDATE {} SET {} = DEFAULT WHERE false")
    before = _set(connection, namespace, MUTE_MARK)
    with connection.cursor() as cursor:
        cursor.execute(statement.format(table.identifier, sql.Identifier(column)))
    _set(connection, namespace, before)


def _targets(
    connection: BaseDatabaseWrapper, models: tuple[type[Model], ...], namespace: Namespace
) -> list[tuple[TableInfo | None, Comment]]:
    """Return the tables to mark, and the comments on their triggers."""
    installed = {
        each.comment.label: each.comment
        for on_table in catalog.triggers(connection, namespace).values()
        for each in on_table.values()
        if each.comment is not None
    }
    wanted = [each for model in models for each in registry.expand(model)]
    labels = [each._meta.label_lower for each in wanted] or sorted(installed)
    comments = [
        installed.get(label, Comment(label=label, channel=namespace.channel))
        for label in dict.fromkeys(labels)
    ]
    tables = {each.label: _table(connection, each) for each in comments}
    return [(tables[each.label], each) for each in comments]


def _table(connection: BaseDatabaseWrapper, comment: Comment) -> TableInfo | None:
    """Return a table whose changes go to the outbox; None if they do not, or its model is gone."""
    if comment.transport != "outbox":
        return None
    try:
        name = names.quote(apps.get_model(comment.label)._meta.db_table)
    except LookupError:
        return None
    return catalog.relations(connection, [name]).get(name)


def _set(connection: BaseDatabaseWrapper, namespace: Namespace, value: str) -> str:
    """Set the mute setting until the end of the transaction; return its value before."""
    setting = namespace.mute_setting
    with connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(pg_catalog.current_setting(%s, true), '')", [setting])
        (before,) = cursor.fetchone()
        cursor.execute("SELECT pg_catalog.set_config(%s, %s, true)", [setting, value])
    return str(before)
