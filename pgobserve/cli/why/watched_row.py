"""
Whether consumers watch a row, and whether its notifications arrive, for ``why``.

A probe sends the notification of a trigger without a change. Payloads are not authenticated, so a forged
one may cost no more than a read: feeds that watch the row read it again, and send a frame only if it
differs from the last one.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg
from django.db import connections, router
from psycopg import sql

from pgobserve.cli.why.delivery_report import WatcherKind
from pgobserve.cohorts.cohort import alias_of
from pgobserve.database.async_connection import DEFAULTS
from pgobserve.errors import ConfigurationError, TriggerError
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.permissions import AllowAny
from pgobserve.sql.key_sql import unknown_keys, written_keys
from pgobserve.sql.keyed_query import KeyedQuery
from pgobserve.sql.keys import identity_for, key_fields, text_for
from pgobserve.sql.reverse_lookup import resolve
from pgobserve.triggers import names
from pgobserve.wire import PAYLOAD_VERSION, Operation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Model

    from pgobserve.cli.doctor.case import Examination
    from pgobserve.cli.why.delivery_report import Watcher
    from pgobserve.sql.relation_path import RelationPath
    from pgobserve.triggers.registry import Registration

#: Rows that are named because they depend on another row.
SHOWN: Final = 5

#: Seconds to wait for the notification.
PROBE_TIMEOUT: Final = 2.0

_SEND: Final = """
SELECT pg_catalog.pg_notify(%s, s.payload), s.payload
  FROM (SELECT pg_catalog.concat(%s::text, pg_catalog.pg_current_xact_id(), %s::text)) s(payload)
"""


@dataclass(frozen=True, slots=True)
class RowResult:
    """Whether a watcher watches a row, None if that depends on the client; and the same in words."""

    watched: bool | None
    text: str


def key_from(model: type[Model], text: str, connection: BaseDatabaseWrapper) -> str:
    """Return the identity for a key as typed; ``ConfigurationError`` if no row can have it."""
    names = [field.name for field in key_fields(model)]
    try:
        key = identity_for(model, json.loads(text) if len(names) > 1 else text, connection)
        if not unknown_keys(model, [key], connection):
            return written_keys(model, [key], connection).get(key, key)
    except ValueError:
        pass
    shape = f" Write a JSON array of {', '.join(names)}." if len(names) > 1 else ""
    raise ConfigurationError(f"No row of {model._meta.label} can have the key {text!r}.{shape}")


def exists(model: type[Model], key: str, connection: BaseDatabaseWrapper) -> bool:
    return _has(model._base_manager.using(connection.alias), key)


def _has(queryset: Any, key: str) -> bool:
    connection = connections[queryset.db]
    return bool(KeyedQuery(queryset, connection).fetch([key], connection)[1])


def alias_read_by(watcher: Watcher) -> str | None:
    """Return the alias of the database that a consumer listens to and reads; None for observers."""
    if watcher.root is None:
        return None
    queryset = _declared(watcher.consumer)
    return router.db_for_write(watcher.root) if queryset is None else alias_of(queryset)


def result_of(watcher: Watcher, key: str, connection: BaseDatabaseWrapper) -> RowResult:
    """Return whether a watcher watches a row, or rows that depend on it."""
    if watcher.path is not None:
        return _through(watcher.path, key, connection)
    if watcher.kind in (WatcherKind.OWN, WatcherKind.PART):
        return _in_queryset(watcher.consumer, key)
    return RowResult(None, "")


def _declared(consumer: Any) -> Any:
    """Return a class's queryset; None if it is a property of instances."""
    queryset = getattr(consumer, "queryset", None)
    return queryset if hasattr(queryset, "model") else None


def _in_queryset(consumer: Any, key: str) -> RowResult:
    queryset = _declared(consumer)
    if queryset is None:
        return RowResult(None, "the rows of get_queryset() depend on the user")
    try:
        there = _has(queryset.using(alias_of(queryset)), key)
    except ConfigurationError as error:  # for example a slice
        return RowResult(None, f"its queryset can't be searched for the row ({error})")
    text = "the row is in its queryset" if there else "the row is not in its queryset"
    hooks = [*_deciding(consumer)]
    if not hooks:
        return RowResult(there, text)
    depends = f"{text} as declared; for a client that depends on {' and '.join(hooks)}"
    # An overridden method may return rows that the declared queryset lacks.
    return RowResult(None if any("queryset" in each for each in hooks) else there, depends)


def _deciding(consumer: Any) -> Iterator[str]:
    """Yield the hooks that decide for each client whether a row is visible."""
    base = GenericAsyncAPIConsumer
    for name in ("get_queryset", "filter_queryset"):
        if getattr(consumer, name, None) is not getattr(base, name):
            yield f"{name}()"
    if getattr(consumer, "filter_backends", None):
        yield "filter_backends"
    if any(each is not AllowAny for each in getattr(consumer, "permission_classes", ())):
        yield "permission_classes"


def _through(path: RelationPath, key: str, connection: BaseDatabaseWrapper) -> RowResult:
    values = [key]
    if path.route is not None:
        rows = path.joins[-1].model._base_manager.using(connection.alias)
        found = KeyedQuery(rows, connection).fetch([key], connection)[1].values()
        given = [getattr(row, path.route.attname) for row in found]
        values = [text_for(path.route, each, connection) for each in given if each is not None]
    root = path.root._meta.label
    roots = resolve(path, values, connection, limit=SHOWN)
    if roots is None:
        return RowResult(True, f"more than {SHOWN} rows of {root} depend on it now")
    if not roots:
        return RowResult(False, f"no row of {root} depends on it now")
    return RowResult(True, f"now shown by {root} {', '.join(roots)}")


def is_heard(case: Examination, registration: Registration, key: str) -> bool:
    """Send a notification that names a row; return whether it arrives where feeds listen."""
    try:
        with psycopg.connect(**{**DEFAULTS, **case.parameters, "autocommit": True}) as listener:
            listener.execute(sql.SQL("LISTEN {}").format(sql.Identifier(case.channel)))
            return _arrives(listener, _send(case, registration, key))
    except psycopg.Error as error:
        raise TriggerError(
            f"A connection with the feeds' parameters fails: {' '.join(str(error).split())} Run "
            "manage.py pgobserve doctor."
        ) from error


def _send(case: Examination, registration: Registration, key: str) -> str:
    head = f'{{"v":{PAYLOAD_VERSION},"t":"{registration.label}","o":"{Operation.UPDATE}","x":"'
    routes = _routes(case, registration, key)
    more = f',"r":{json.dumps(routes)}' if routes else ""
    named = json.loads(key) if len(key_fields(registration.model)) > 1 else key
    tail = f'","k":{json.dumps([named])}{more}}}'
    ((_, payload),) = case.query(_SEND, [registration.channel, head, tail])
    if not case.connection.get_autocommit():
        case.connection.commit()
    return str(payload)


def _routes(case: Examination, registration: Registration, key: str) -> dict[str, list[Any]]:
    """Return the values of routes. Without them, feeds would read more than the row again."""
    fields = {
        column: field
        for field in registration.model._meta.local_concrete_fields
        if field.column and (column := names.column(field.column)) in registration.routes
    }
    queryset = registration.model._base_manager.using(case.alias)
    row = KeyedQuery(queryset, case.connection).fetch([key], case.connection)[1].get(key)
    values = {column: getattr(row, field.attname, None) for column, field in fields.items()}
    return {
        column: [] if value is None else [text_for(fields[column], value, case.connection)]
        for column, value in sorted(values.items())
    }


def _arrives(listener: psycopg.Connection[Any], payload: str) -> bool:
    deadline = time.monotonic() + PROBE_TIMEOUT
    while (left := deadline - time.monotonic()) > 0:
        for notification in listener.notifies(timeout=left, stop_after=1):
            if notification.payload == payload:
                return True
    return False
