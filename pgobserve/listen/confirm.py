"""
Up to which snapshot everything has been heard of.

A load of some rows of a list sees transactions whose notifications are still on their way, and which
may concern other rows. So its snapshot is no token: a client that came back with it would miss those.
From time to time a snapshot is taken and then a mark sent by NOTIFY. Notifications come in the order
of the commits: once the mark is back, all that is visible in the snapshot has been heard of.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from typing import TYPE_CHECKING, Any, Final

from django.db import Error, connections

from pgobserve.database.connection_watchdog import Unreachable
from pgobserve.errors import FeedUnavailable
from pgobserve.hub.snapshot import Snapshot
from pgobserve.sql.keyed_query import SNAPSHOT
from pgobserve.wire import MARK, PAYLOAD_VERSION

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pgobserve.hub.hub import Hub
    from pgobserve.load.loader import Loader

logger = logging.getLogger(__name__)

#: Seconds between two confirmations, while lists change.
PERIOD: Final = 1.0

#: Seconds that a mark may take to come back.
MARK_TIMEOUT: Final = 5.0


class Confirmer:
    """
    Tells the hub from time to time what has been heard of, while it has lists that change.

    Args:
        hub: It is told.
        alias: The database alias.
        channel: Where the mark is sent; None where nobody listens.
        caught_up: Returns when a reader of the outbox, if there is one, has read all that is
            visible in a snapshot.
        period: Seconds between two confirmations.
    """

    def __init__(
        self,
        hub: Hub,
        alias: str,
        channel: str | None,
        caught_up: Callable[[Snapshot], Awaitable[object]],
        period: float = PERIOD,
    ) -> None:
        self._hub = hub
        self._alias = alias
        self._channel = channel
        self._caught_up = caught_up
        self._period = period
        self._marks: dict[str, asyncio.Event] = {}

    def heard(self, keys: tuple[Any, ...] | None) -> None:
        """Note that a mark has come; it may be another process's."""
        for name in keys or ():
            if isinstance(name, str) and name in self._marks:
                self._marks[name].set()

    async def run(self, loader: Loader) -> None:
        """Confirm for ever."""
        while True:
            await asyncio.sleep(self._period)
            if self._hub.unconfirmed:
                try:
                    await self.confirm(loader)
                except (Unreachable, FeedUnavailable, TimeoutError, Error) as error:
                    logger.debug("Nothing is confirmed for now: %s", error)

    async def confirm(self, loader: Loader) -> None:
        """
        Confirm once.

        Raises:
            Unreachable: The database can't be reached.
            TimeoutError: The mark did not come back in time.
        """
        self._hub.unconfirmed = False
        try:
            snapshot = await loader.call(self._snapshot)
            async with asyncio.timeout(MARK_TIMEOUT):
                if self._channel is not None:
                    await self._send_mark(loader, self._channel)
                await self._caught_up(snapshot)
        except BaseException:
            self._hub.unconfirmed = True
            raise
        self._hub.confirm(snapshot)

    async def _send_mark(self, loader: Loader, channel: str) -> None:
        name = uuid.uuid4().hex
        self._marks[name] = asyncio.Event()
        mark = {"v": PAYLOAD_VERSION, "t": MARK, "o": "I", "x": "0", "k": [name]}
        try:
            await loader.call(lambda: self._notify(channel, json.dumps(mark)))
            await self._marks[name].wait()
        finally:
            del self._marks[name]

    def _snapshot(self) -> Snapshot:
        with connections[self._alias].cursor() as cursor:
            cursor.execute(f"SELECT {SNAPSHOT}")
            return Snapshot.parse(cursor.fetchone()[0])

    def _notify(self, channel: str, text: str) -> None:
        with connections[self._alias].cursor() as cursor:
            cursor.execute("SELECT pg_catalog.pg_notify(%s, %s)", [channel, text])
