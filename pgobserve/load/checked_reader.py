"""Reads of a feed are refused where a loader's connection has reached another server than LISTEN has."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from django.db import connections

from pgobserve.database.connection_watchdog import Unreachable
from pgobserve.database.server_identity import SELECT_RUN, Servers
from pgobserve.database.session import discard, session_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from pgobserve.hub.hub import ReverseLookup
    from pgobserve.hub.load_requests import ListLoadRequest, ListLoadResult, LoadRequest, LoadResult
    from pgobserve.load.loader import RowReader


class CheckedReader:
    """
    Sources of which nothing is believed that comes from another server than the one listened to.

    Args:
        sources: Read and render.
        alias: The database alias.
        servers: Says which server is listened to.
        doubt: Called, in the loader's thread, if a new connection reaches another server.
    """

    def __init__(
        self, sources: RowReader, alias: str, servers: Servers, doubt: Callable[[], object]
    ) -> None:
        self._sources = sources
        self._alias = alias
        self._servers = servers
        self._doubt = doubt
        self._here = threading.local()

    def load(self, jobs: Sequence[LoadRequest]) -> Sequence[LoadResult]:
        """Read and render a batch of rows."""
        self._compare()
        found = self._sources.load(jobs)
        self._look([item.snapshot.run for item in found[:1]])
        return found

    def load_lists(self, jobs: Sequence[ListLoadRequest]) -> Sequence[ListLoadResult | None]:
        """Read and render lists."""
        self._compare()
        found = self._sources.load_lists(jobs)
        self._look([whole.snapshot.run for whole in found if whole is not None])
        return found

    def resolve(self, lookup: ReverseLookup) -> Sequence[Hashable] | None:
        """Return the keys of the rows that changes concern."""
        self._compare()
        return self._sources.resolve(lookup)

    def owner(self, watch: Any) -> type:
        """Return the class whose hooks a subscription runs."""
        return self._sources.owner(watch)

    def label(self, watch: Any) -> str:
        """Return the label of the model whose rows a subscription shows."""
        return self._sources.label(watch)

    def _compare(self) -> None:
        """Ask which server a kept connection has reached, once for each that is listened to."""
        connection, run = connections[self._alias], self._servers.run
        raw: Any = connection.connection
        known = getattr(self._here, "compared", None)
        if run is None or raw is None or (known and known[0] is raw and known[1] == run):
            return
        with session_of(connection), connection.cursor() as cursor:
            cursor.execute(SELECT_RUN)
            ((reached,),) = cursor.fetchall()
        self._look([reached])
        self._here.compared = raw, run

    def _look(self, runs: Sequence[int]) -> None:
        """
        Compare.

        Through a pool of transactions a connection may reach another server at any time.

        Raises:
            Unreachable: It is another server; the connection is closed.
        """
        wanted = self._servers.run
        # A load that read nothing has no run.
        if wanted is None or all(run in (wanted, 0) for run in runs):
            self._here.strange = False
            return
        self._here.compared = None
        discard(connections[self._alias])
        if getattr(self._here, "strange", False):
            # Not an old connection only: one that was just made, too.
            self._doubt()
        self._here.strange = True
        raise Unreachable("it is another server than the one listened to: was there a failover?")
