"""
Loads several lists at once, so that a thousand returning users do not cost a thousand reads.

Lists that differ only in their values, such as each user's own, are read by one statement. All lists are
read in one transaction, in a loader thread.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from django.db import DatabaseError, InterfaceError, connections

from pgobserve.database.connection_watchdog import is_locked, is_lost, reconnect
from pgobserve.read.list_load import Aborted, ListLoad
from pgobserve.sql.full_query import one_snapshot, read_many

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from pgobserve.hub.load_requests import ListLoadRequest, ListLoadResult
    from pgobserve.hub.snapshot import Snapshot

#: The most rows of a list that is read together with others, and the most lists of one query.
SMALL_LIST: Final = 100
MAX_LISTS_PER_QUERY: Final = 200


def load_lists(alias: str, requests: Sequence[ListLoadRequest]) -> list[ListLoadResult | None]:
    """
    Read and render lists, in a loader thread.

    Returns:
        The result of each list. None for a list that must be read alone: it has many rows, or any of
        the lists failed.
    """
    loads = [ListLoad(alias, request) for request in requests]
    if len(loads) == 1:
        return [loads[0].run_whole()]
    connection = connections[alias]
    # A list that needs its own database session is read alone.
    together = [load for load in loads if load.cohort.session is None]
    try:
        with one_snapshot(connection) as snapshot:
            read = _read(together, snapshot, connection)
    except Aborted:
        return [None] * len(loads)
    except (DatabaseError, InterfaceError) as error:
        if is_locked(error):
            raise
        if is_lost(connection):
            reconnect(connection)
        return [None] * len(loads)
    return [load.checked() if load in read else None for load in loads]


def _read(loads: Sequence[ListLoad], snapshot: Snapshot, connection: Any) -> set[ListLoad]:
    """Read and render; return the loads of small lists."""
    for load in loads:
        load.prepare()
    read: dict[ListLoad, Any] = {}
    by_context: dict[Hashable, list[ListLoad]] = defaultdict(list)
    for load in loads:
        by_context[load.cohort.context.key].append(load)
    for some in by_context.values():
        queries = [load.listing.whole for load in some]
        answers = some[0].cohort.context.run(read_many, queries, connection, SMALL_LIST)
        read |= {load: rows for load, rows in zip(some, answers, strict=True) if rows is not None}
    for load, rows in read.items():
        load.render(snapshot, rows)
        load.raise_if_aborted()
    return set(read)
