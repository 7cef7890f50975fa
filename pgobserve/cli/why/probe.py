"""
``pgobserve why --probe``: send a trigger's notification without a change.

Payloads are not authenticated, so a forged one may cost no more than a read: feeds that watch the
row read it again, and send a frame only if it differs from the last one.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql

from pgobserve.database.async_connection import DEFAULTS
from pgobserve.errors import TriggerError
from pgobserve.sql.keys import shown
from pgobserve.triggers import names
from pgobserve.wire import PAYLOAD_VERSION, Operation

if TYPE_CHECKING:
    from collections.abc import Hashable

    from pgobserve.cli.doctor.case import Examination
    from pgobserve.triggers.registry import Registration

#: Seconds to wait for the notification.
PROBE_TIMEOUT: Final = 2.0

_SEND: Final = """
SELECT pg_catalog.pg_notify(%s, s.payload), s.payload
  FROM (SELECT pg_catalog.concat(%s::text, pg_catalog.pg_current_xact_id(), %s::text)) s(payload)
"""


def is_heard(case: Examination, registration: Registration, key: Hashable) -> bool:
    """
    Send a notification that names a row; return whether it arrives where feeds listen.

    Raises:
        TriggerError: A connection with the feeds' parameters fails.
    """
    try:
        with psycopg.connect(**{**DEFAULTS, **case.parameters, "autocommit": True}) as listener:
            listener.execute(sql.SQL("LISTEN {}").format(sql.Identifier(case.channel)))
            return _arrives(listener, _send(case, registration, key))
    except psycopg.Error as error:
        raise TriggerError(
            f"A connection with the feeds' parameters fails: {' '.join(str(error).split())} Run "
            "manage.py pgobserve doctor."
        ) from error


def _send(case: Examination, registration: Registration, key: Hashable) -> str:
    """Send the notification, and return its payload."""
    head = f'{{"v":{PAYLOAD_VERSION},"t":"{registration.label}","o":"{Operation.UPDATE}","x":"'
    routes = _routes(case, registration, key)
    more = f',"r":{json.dumps(routes)}' if routes else ""
    tail = f'","k":{json.dumps([shown(key)])}{more}}}'
    ((_, payload),) = case.query(_SEND, [registration.channel, head, tail])
    if not case.connection.get_autocommit():
        case.connection.commit()
    return str(payload)


def _routes(case: Examination, registration: Registration, key: Hashable) -> dict[str, list[Any]]:
    """Return the values of routes. Without them, feeds would read more than the row again."""
    fields = {
        column: field
        for field in registration.model._meta.local_concrete_fields
        if field.column and (column := names.column(field.column)) in registration.routes
    }
    row = registration.model._base_manager.using(case.alias).filter(pk=key).first()
    values = {column: getattr(row, field.attname, None) for column, field in fields.items()}
    return {
        column: [] if value is None else [shown(value)] for column, value in sorted(values.items())
    }


def _arrives(listener: psycopg.Connection[Any], payload: str) -> bool:
    deadline = time.monotonic() + PROBE_TIMEOUT
    while (left := deadline - time.monotonic()) > 0:
        for notification in listener.notifies(timeout=left, stop_after=1):
            if notification.payload == payload:
                return True
    return False
