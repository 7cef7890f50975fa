"""
``pgobserve why --probe``: a notification as a trigger sends it, though nothing has changed.

Payloads are not authentic, and a forged one costs a read at most: who watches the row reads it
again, and tells nothing unless it differs from what he has told.
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

#: Seconds that it may take.
PROBE_TIMEOUT: Final = 2.0

_SEND: Final = """
SELECT pg_catalog.pg_notify(%s, s.payload), s.payload
  FROM (SELECT pg_catalog.concat(%s::text, pg_catalog.pg_current_xact_id(), %s::text)) s(payload)
"""


def is_heard(case: Examination, registration: Registration, key: Hashable) -> bool:
    """
    Send a notification that names a row, and tell whether it is heard where feeds listen.

    Args:
        case: The database.
        registration: Of the row's table.
        key: Of the row.

    Raises:
        TriggerError: The connection that feeds use can't be made.
    """
    try:
        with psycopg.connect(**{**DEFAULTS, **case.parameters, "autocommit": True}) as ear:
            ear.execute(sql.SQL("LISTEN {}").format(sql.Identifier(case.channel)))
            return _arrives(ear, _send(case, registration, key))
    except psycopg.Error as error:
        raise TriggerError(
            f"The connection that feeds use can't be made: {' '.join(str(error).split())} Run "
            "manage.py pgobserve doctor."
        ) from error


def _send(case: Examination, registration: Registration, key: Hashable) -> str:
    """Send it, and return its text."""
    head = f'{{"v":{PAYLOAD_VERSION},"t":"{registration.label}","o":"{Operation.UPDATE}","x":"'
    told = _routes(case, registration, key)
    tail = f'","k":{json.dumps([shown(key)])}' + (f',"r":{json.dumps(told)}' if told else "") + "}"
    ((_, payload),) = case.query(_SEND, [registration.channel, head, tail])
    if not case.connection.get_autocommit():
        case.connection.commit()
    return str(payload)


def _routes(case: Examination, registration: Registration, key: Hashable) -> dict[str, list[Any]]:
    """Return what the triggers tell beside the key, for otherwise more than the row would be read."""
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


def _arrives(ear: psycopg.Connection[Any], payload: str) -> bool:
    deadline = time.monotonic() + PROBE_TIMEOUT
    while (left := deadline - time.monotonic()) > 0:
        for notification in ear.notifies(timeout=left, stop_after=1):
            if notification.payload == payload:
                return True
    return False
