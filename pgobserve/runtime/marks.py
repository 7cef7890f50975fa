"""Writes the marks of a fence."""

from __future__ import annotations

import json

from django.db import connections

from pgobserve.sql.keyed_query import SNAPSHOT
from pgobserve.wire import FENCE, PAYLOAD_VERSION


def write_mark(alias: str, channel: str | None, name: str) -> tuple[str, float]:
    """
    NOTIFY a mark, in a thread.

    Args:
        alias: The database alias.
        channel: The channel. None where no connection LISTENs: then nothing is sent.
        name: The mark's name, which a listener receives as its key.

    Returns:
        The text of the statement's snapshot, and the used share of the notification queue.
    """
    with connections[alias].cursor() as cursor:
        if channel is None:
            cursor.execute(f"SELECT {SNAPSHOT}, 0::float8")
            return cursor.fetchone()  # type: ignore[no-any-return]
        mark = {"v": PAYLOAD_VERSION, "t": FENCE, "o": "I", "x": "0", "k": [name]}
        cursor.execute(
            f"SELECT {SNAPSHOT}, pg_catalog.pg_notification_queue_usage(), "
            "pg_catalog.pg_notify(%s, %s)",
            [channel, json.dumps(mark)],
        )
        snapshot, usage, _ = cursor.fetchone()
        return snapshot, usage
