"""
Several lists read at once: a thousand users who come back must not cost a thousand reads.

Runs in a thread of the feed's loader. Lists that differ in their values only, each user's own say,
are read by one statement; all of them in one transaction.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from django.db import DatabaseError, InterfaceError, connections

from pgobserve.database.connection_watchdog import is_lost, reconnect
from pgobserve.load.list_load import Aborted, ListLoad
from pgobserve.sql.full_query import one_snapshot, read_many

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from pgobserve.hub.load_requests import ListLoadRequest, ListLoadResult
    from pgobserve.hub.snapshot import Snapshot

#: Lists of at most so many rows are read together, and so many lists by one query.
SMALL_LIST: Final = 100
MAX_LISTS_PER_QUERY: Final = 200


def load_lists(alias: str, jobs: Sequence[ListLoadRequest]) -> list[ListLoadResult | None]:
    """
    Read and render lists; the feed's loader calls this in a thread.

    Returns:
        What was found of each; None for one that must be read alone: it has many rows, or nobody
        can tell which of them it is that can't be read.
    """
    loads = [ListLoad(alias, job) for job in jobs]
    if len(loads) == 1:
        return [loads[0].run_whole()]
    connection = connections[alias]
    # In a database session of its own each is read alone.
    together = [load for load in loads if load.cohort.session is None]
    try:
        with one_snapshot(connection) as snapshot:
            read = _read(together, snapshot, connection)
    except Aborted:
        return [None] * len(loads)
    except (DatabaseError, InterfaceError):
        if is_lost(connection):
            reconnect(connection)
        return [None] * len(loads)
    return [load.checked() if load in read else None for load in loads]


def _read(loads: Sequence[ListLoad], snapshot: Snapshot, connection: Any) -> set[ListLoad]:
    """Read and render; return those that could be."""
    for load in loads:
        load.prepare()
    read: dict[ListLoad, Any] = {}
    alike: dict[Hashable, list[ListLoad]] = defaultdict(list)
    for load in loads:
        alike[load.cohort.context.key].append(load)
    for some in alike.values():
        wholes = [load.listing.whole for load in some]
        found = some[0].cohort.context.run(read_many, wholes, connection, SMALL_LIST)
        read |= {load: rows for load, rows in zip(some, found, strict=True) if rows is not None}
    for load, rows in read.items():
        load.render(snapshot, rows)
        load.raise_if_aborted()
    return set(read)
