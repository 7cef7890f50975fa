"""
What the loader reads with: rows, lists and reverse look-ups of one database alias.

After a failover the old primary can live on, with its connections. :class:`CheckedReader` therefore
refuses rows from another server than the one that LISTEN has reached.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from django.db import connections

from pgobserve.cohorts.subscription_context import context_of
from pgobserve.database.connection_watchdog import Unreachable
from pgobserve.database.server_identity import SELECT_RUN, Servers
from pgobserve.database.session import discard, session_of
from pgobserve.read.list_batch import load_lists
from pgobserve.read.row_load import Load
from pgobserve.sql.reverse_lookup import resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from pgobserve.hub.hub import ReverseLookup
    from pgobserve.hub.list_subscription import Subscription
    from pgobserve.hub.load_requests import ListLoadRequest, ListLoadResult, LoadRequest, LoadResult
    from pgobserve.sql.relation_path import RelationPath

#: Keys that a reverse look-up names at most. Beyond it, the loader reads all watched rows.
MAX_RESOLVED: Final = 10_000


class Reader(Protocol):
    """Reads and renders for a loader, in the loader's threads."""

    def load(self, requests: Sequence[LoadRequest]) -> Sequence[LoadResult]:
        """Read and render a batch of rows."""

    def load_lists(self, requests: Sequence[ListLoadRequest]) -> Sequence[ListLoadResult | None]:
        """Read and render lists in one snapshot. None stands for a list that must be read alone."""

    def resolve(self, lookup: ReverseLookup) -> Sequence[Hashable] | None:
        """Return the keys of the rows that changes concern. None stands for too many to name."""

    def owner(self, subscription: Subscription) -> type:
        """Return the class whose hooks a subscription runs. Called in the event loop."""

    def label(self, subscription: Subscription) -> str:
        """Return the label of the model that a subscription shows, for the log."""


class RowReader:
    """
    Reads through the ORM and renders with the consumers' serializers.

    Args:
        alias: The database alias.
    """

    def __init__(self, alias: str) -> None:
        self._alias = alias

    def load(self, requests: Sequence[LoadRequest]) -> Sequence[LoadResult]:
        return Load(self._alias, requests).run()

    def load_lists(self, requests: Sequence[ListLoadRequest]) -> Sequence[ListLoadResult | None]:
        return load_lists(self._alias, requests)

    def resolve(self, lookup: ReverseLookup) -> Sequence[Hashable] | None:
        return resolve(
            *(cast("RelationPath", lookup.path), lookup.values, connections[self._alias]),
            among=lookup.among,
            limit=MAX_RESOLVED,
        )

    def owner(self, subscription: Subscription) -> type:
        return context_of(subscription).consumer_class

    def label(self, subscription: Subscription) -> str:
        return context_of(subscription).visibility.source.statement.model._meta.label


class CheckedReader:
    """
    A row reader that checks the server of each load.

    Args:
        reader: The reader that reads and renders.
        alias: The database alias.
        servers: Knows which server the listener has reached.
        doubt: Called in a loader thread if even a new connection reaches another server.
    """

    def __init__(
        self, reader: Reader, alias: str, servers: Servers, doubt: Callable[[], object]
    ) -> None:
        self._reader = reader
        self._alias = alias
        self._servers = servers
        self._doubt = doubt
        self._here = threading.local()

    def load(self, requests: Sequence[LoadRequest]) -> Sequence[LoadResult]:
        self._compare()
        results = self._reader.load(requests)
        self._check([result.snapshot.run for result in results[:1]])
        return results

    def load_lists(self, requests: Sequence[ListLoadRequest]) -> Sequence[ListLoadResult | None]:
        self._compare()
        results = self._reader.load_lists(requests)
        self._check([whole.snapshot.run for whole in results if whole is not None])
        return results

    def resolve(self, lookup: ReverseLookup) -> Sequence[Hashable] | None:
        self._compare()
        return self._reader.resolve(lookup)

    def owner(self, subscription: Subscription) -> type:
        return self._reader.owner(subscription)

    def label(self, subscription: Subscription) -> str:
        return self._reader.label(subscription)

    def _compare(self) -> None:
        """Query which server a kept connection has reached, once for each server of the listener."""
        connection, run = connections[self._alias], self._servers.run
        raw: Any = connection.connection
        known = getattr(self._here, "compared", None)
        if run is None or raw is None or (known and known[0] is raw and known[1] == run):
            return
        with session_of(connection), connection.cursor() as cursor:
            cursor.execute(SELECT_RUN)
            ((reached,),) = cursor.fetchall()
        self._check([reached])
        self._here.compared = raw, run

    def _check(self, runs: Sequence[int]) -> None:
        """
        Compare the servers of a load with the listener's.

        Through a pool of transactions a connection may reach another server at any time.

        Raises:
            Unreachable: It is another server. The connection is closed.
        """
        expected = self._servers.run
        # A load that read nothing has no run.
        if expected is None or all(run in (expected, 0) for run in runs):
            self._here.differs = False
            return
        self._here.compared = None
        discard(connections[self._alias])
        if getattr(self._here, "differs", False):
            # The connection before was new, too: not only old connections differ.
            self._doubt()
        self._here.differs = True
        raise Unreachable("it is another server than the one listened to: was there a failover?")
