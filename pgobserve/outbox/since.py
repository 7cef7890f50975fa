"""
What the outbox says about the time since a snapshot, all of it at once.

A reader follows the outbox page by page; who comes back after a while wants what is there, if it is
not too much, or nothing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from django.db import DatabaseError, transaction

from pgobserve.errors import FeedUnavailable
from pgobserve.hub.snapshot import Snapshot
from pgobserve.outbox import outbox_page, outbox_trust
from pgobserve.outbox.cursor import Cursor
from pgobserve.outbox.outbox_page import qualified

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

    from pgobserve.outbox.outbox_page import OutboxRecord
    from pgobserve.wire import Namespace

logger = logging.getLogger(__name__)

#: Rows of the outbox, and bytes of row images, beyond which it is less work to begin anew.
ENTRIES: Final = 10_000
BYTES: Final = 8_000_000

#: TRUNCATE takes rows away from older snapshots, too. After the rows were looked at no partition can
#: be emptied until the transaction ends; whether one was before, its file tells, of which functions
#: know the latest and rows of the catalog what the snapshot sees.
_EMPTIED: Final = """
SELECT count(*) FILTER (WHERE pg_catalog.pg_relation_filenode(c.oid) IS DISTINCT FROM c.relfilenode)
  FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = '{schema}.outbox'::pg_catalog.regclass::pg_catalog.oid
"""


def entries_since(
    seen: Snapshot,
    labels: Collection[str],
    connection: BaseDatabaseWrapper,
    namespace: Namespace,
) -> Sequence[OutboxRecord] | None:
    """
    Return what was done since a snapshot, with row images; within a transaction of one snapshot.

    Args:
        seen: What is visible in it is left out.
        labels: Of the models whose tables matter.
        connection: Of the database alias.
        namespace: Whose outbox.

    Returns:
        Entries in commit order for each row. None if some may be missing, or there are too many, or
        they can't be read.
    """
    cursor_at = Cursor(Snapshot(seen.xmin, seen.xmax, seen.in_progress))
    wanted = outbox_page.parameters(
        cursor_at, limit=ENTRIES, page_bytes=BYTES, images=labels, labels=labels
    )
    try:
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            cursor.execute(outbox_trust.QUERY, outbox_trust.parameters(namespace))
            outbox_trust.refuse(cursor.fetchall(), namespace)
            cursor.execute(qualified(outbox_page.QUERY, namespace), wanted)
            page = outbox_page.page(cursor.fetchall(), cursor_at, ENTRIES)
            cursor.execute(qualified(_EMPTIED, namespace))
            (emptied,) = cursor.fetchone()
    except DatabaseError as error:
        if connection.connection is None or connection.connection.closed:
            raise
        # There is none, or it may not be read by who reads the list.
        logger.debug("The outbox tells nothing to who comes back: %s", error)
        return None
    except FeedUnavailable as error:
        logger.warning("The outbox is not read: %s", error)
        return None
    if page.why is not None or page.more or emptied:
        return None
    return page.entries
