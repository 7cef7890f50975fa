"""Keep the triggers silent for a while, and tell the readers once when it is over."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from django.db import DEFAULT_DB_ALIAS, connections, transaction

from pgobserve.triggers import catalog, registry
from pgobserve.wire import CHANNEL, MUTE_SETTING, PAYLOAD_VERSION, Operation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Model

_MARK = """
SELECT pg_catalog.pg_notify(%s, pg_catalog.concat(
    %s::pg_catalog.text, pg_catalog.pg_current_xact_id(), %s::pg_catalog.text))
"""


@contextlib.contextmanager
def muted(*models: type[Model], using: str = DEFAULT_DB_ALIAS) -> Iterator[None]:
    """
    Run a block in a transaction without telling its changes one by one.

    At the end, and in the same transaction, one marker per table tells the readers to read again
    what they watch there: for loads so large that naming the keys helps nobody. An exception rolls
    the block back and tells nothing.

    Args:
        *models: Whose tables to mark at the end; none means every table of this database that has
            our triggers. Changes of other tables in the block are not told at all.
        using: Alias of the database.
    """
    connection = connections[using]
    with transaction.atomic(using=using):
        before = _set(connection, "on")
        yield
        _set(connection, before)
        announce(*models, using=using)


def announce(*models: type[Model], using: str = DEFAULT_DB_ALIAS) -> None:
    """
    Tell the readers to read again what they watch in some tables.

    After something that could not tell its changes itself: a muted prepared transaction, a
    restore, a partition attached or detached.

    Args:
        *models: Whose tables; none means every table of this database that has our triggers.
        using: Alias of the database.
    """
    connection = connections[using]
    for channel, label in _targets(connection, models):
        head = f'{{"v":{PAYLOAD_VERSION},"t":{json.dumps(label)},"o":"{Operation.UPDATE}","x":"'
        with connection.cursor() as cursor:
            cursor.execute(_MARK, [channel, head, '","k":null}'])


def _targets(
    connection: BaseDatabaseWrapper, models: tuple[type[Model], ...]
) -> list[tuple[str, str]]:
    """Return channel and label of the tables to mark, as they were installed."""
    installed = {
        each.comment.label: each.comment.channel
        for on_table in catalog.triggers(connection).values()
        for each in on_table.values()
        if each.comment is not None
    }
    if not models:
        return sorted((channel, label) for label, channel in installed.items())
    labels = [
        each._meta.label_lower
        for each in dict.fromkeys(e for model in models for e in registry.expand(model))
    ]
    return [(installed.get(label, CHANNEL), label) for label in labels]


def _set(connection: BaseDatabaseWrapper, value: str) -> str:
    """Set the mute setting until the end of the transaction; return what it was."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(pg_catalog.current_setting(%s, true), '')", [MUTE_SETTING])
        (before,) = cursor.fetchone()
        cursor.execute("SELECT pg_catalog.set_config(%s, %s, true)", [MUTE_SETTING, value])
    return str(before)
