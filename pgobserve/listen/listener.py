"""
One dedicated LISTEN connection that knows when it may have missed notifications.

Every interruption is a gap. The listener commits LISTEN first, and then reports the gap, so that
everything watched is read again. A silent server must answer heartbeats.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

import psycopg

from pgobserve.database.async_connection import (
    Connection,
    abort,
    connect,
    execute,
    listen,
    open_connection,
)
from pgobserve.database.server_identity import Servers, identify
from pgobserve.errors import FeedUnavailable
from pgobserve.listen.intake import ListenerState, NotificationReader
from pgobserve.logs import fields
from pgobserve.wire import QUEUE_FULL
from pgobserve.workers.retrying import backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

logger = logging.getLogger(__name__)

#: Consecutive heartbeats that arriving notifications can replace.
MAX_SKIPPED: Final = 3

#: Seconds between two checks that new connections reach the same server.
PROBE_INTERVAL: Final = 60.0

#: Used share of the server's notification queue that causes a warning.
QUEUE_WARNING = 0.01

#: Used share from which the queue can fill up, and drain, between two heartbeats.
QUEUE_NEARLY_FULL = 0.5


class Listener:
    """
    Keeps a connection LISTENing until cancelled.

    Args:
        parameters: Returns psycopg keywords. Called for each attempt: names and passwords may change.
        on_payload: Called with each notification's payload, in commit order. Must not block.
        on_live: Called each time LISTEN is committed, with True if changes may have been missed.
        heartbeat: Seconds of silence after which the listener sends a heartbeat query, and seconds
            that the server has to answer it.
        servers: Records which server the listener has reached.
    """

    def __init__(
        self,
        parameters: Callable[[], Mapping[str, Any]],
        channel: str,
        on_payload: Callable[[str], object],
        on_live: Callable[[bool], object],
        heartbeat: float = 5.0,
        *,
        alias: str = "default",
        servers: Servers | None = None,
    ) -> None:
        self.state = ListenerState()
        self.live = asyncio.Event()
        self._parameters = parameters
        self._channel = channel
        self._alias = alias
        self._on_payload = on_payload
        self._on_live = on_live
        self._heartbeat = heartbeat
        self._servers = servers or Servers()
        self._lost_here: asyncio.Future[None] | None = None
        self._probed = 0.0
        self._connection: Connection | None = None

    async def run(self) -> None:
        """Connect and listen; reconnect after any interruption. Ends only by cancellation."""
        delays = backoff()
        while True:
            began = None
            try:
                began = await self._listen_until_lost()
            except (psycopg.Error, OSError, FeedUnavailable) as error:
                self._lost(error)
            if began is not None and time.monotonic() - began > 1:
                delays = backoff()
            delay = next(delays)
            logger.info(
                "The feed of database %r reconnects in %.1f s.",
                *(self._alias, delay),
                extra=fields(alias=self._alias),
            )
            await asyncio.sleep(delay)

    def abandon(self) -> None:
        """Cut the connection, because the event loop was closed. Any thread may call this."""
        if self._connection is not None:
            abort(self._connection)

    async def _listen_until_lost(self) -> float:
        parameters = self._parameters()
        connection = self._connection = await connect(parameters, self._heartbeat)
        try:
            await listen(connection, self._channel, parameters, self._heartbeat)
            self._servers.reached(await identify(connection, self._heartbeat))
            began = self._probed = time.monotonic()
            self._connected()
            try:
                await self._drain(connection)
            except (psycopg.Error, OSError, FeedUnavailable) as error:
                self._lost(error)
        finally:
            self._servers.run = self._lost_here = None
            self.live.clear()
            if self.state.live:  # cancelled, so that _lost did not run
                self.state.live, self.state.since = False, time.time()
            # With a silent server close() alone could wait.
            abort(connection)
            await connection.close()
        return began

    async def _drain(self, connection: Connection) -> None:
        """Receive notifications until the connection is lost."""
        reader = NotificationReader(connection, self._channel, self.state, self._on_payload)
        loop, descriptor = asyncio.get_running_loop(), connection.fileno()
        received, skipped = self.state.notifications, 0
        while True:
            self._lost_here = lost = loop.create_future()
            loop.add_reader(descriptor, reader.read, lost)
            # A notification right behind an answer is in libpq already: the socket stays silent. A slice
            # that the heartbeat has interrupted is resumed: its own turn comes with a future that is done.
            reader.read(lost, resumed=True)
            try:
                await asyncio.wait({lost}, timeout=self._heartbeat)
            finally:
                # psycopg waits for its answers with a reader on the same descriptor.
                loop.remove_reader(descriptor)
            if lost.done():
                await lost
            lost.cancel()
            # Arriving notifications prove that the server is there. Its answer would queue behind them.
            alive = self.state.notifications > received and skipped < MAX_SKIPPED
            received, skipped = self.state.notifications, skipped + 1 if alive else 0
            if not alive:
                await self._beat(connection)
            await self._probe()

    def reconnect(self) -> None:
        """Drop the connection: new connections reach another server."""
        if self._lost_here is not None and not self._lost_here.done():
            reason = "rows are read from another server; was there a failover?"
            self._lost_here.set_exception(FeedUnavailable(reason))

    async def _probe(self) -> None:
        """
        Check periodically that a new connection reaches the same server.

        Raises:
            FeedUnavailable: It reaches another one. The present server may be an old primary.
        """
        if time.monotonic() - self._probed < PROBE_INTERVAL:
            return
        self._probed = time.monotonic()
        try:
            other = await open_connection(self._parameters())
            try:
                identity = await identify(other, self._heartbeat)
            finally:
                abort(other)
                await other.close()
        except (psycopg.Error, OSError, FeedUnavailable):
            return  # a standby, or unreachable: the present connection is no worse
        if identity.run != self._servers.run:
            raise FeedUnavailable("new connections reach another server; was there a failover?")

    async def _beat(self, connection: Connection) -> None:
        query = "SELECT pg_catalog.pg_notification_queue_usage()"
        cursor = await execute(connection, query, within=self._heartbeat)
        row = await cursor.fetchone()
        self._note_usage(float(row[0]) if row else 0.0)

    def _note_usage(self, usage: float) -> None:
        before, self.state.queue_usage = self.state.queue_usage, usage
        if usage >= QUEUE_WARNING > before:
            logger.warning(
                "The notification queue of database %r is %.1f %% full: a session LISTENs and does "
                "not read. When the queue is full, triggers stop notifying, feeds read everything "
                "watched again and again, and other transactions that notify fail. The feeds are "
                "'pgobserve:…' in pg_stat_activity.application_name; wait_event ClientWrite, or an "
                "old xact_start, shows the session that is stuck.",
                *(self._alias, usage * 100),
                extra=fields(alias=self._alias),
            )
        elif before >= QUEUE_WARNING > usage:
            logger.warning(
                "The notification queue of database %r has drained to %.1f %%.",
                *(self._alias, usage * 100),
                extra=fields(alias=self._alias),
            )
        if usage >= QUEUE_FULL or before >= QUEUE_NEARLY_FULL > usage:
            # While the queue was full, triggers did not notify, so that writers could commit.
            self.state.gaps += 1
            self._on_live(True)

    def ignore(self, why: str) -> None:
        """Count a notification that the feed cannot use, and log the first one."""
        self.state.ignored += 1
        if self.state.ignored == 1:
            logger.warning(
                "The feed of database %r ignored a notification on channel %s: %s. Later ones are "
                "only counted.",
                *(self._alias, self._channel, why),
                extra=fields(alias=self._alias),
            )

    def _connected(self) -> None:
        failed, before = self.state.error is not None, self.state.since
        gap = self.state.gaps > 0 or failed
        self.state.live, self.state.since, self.state.error = True, time.time(), None
        self.live.set()
        again = self._on_live(gap)
        if failed:  # at the level of the loss, so that a log that shows the loss shows the recovery
            logger.warning(
                "The feed of database %r is live%s on channel %s after %.1f s; %s.",
                *(self._alias, " again" if self.state.gaps else "", self._channel),
                time.time() - before,
                again or "everything watched is read again",
                extra=fields(alias=self._alias),
            )
        else:
            logger.info(
                "The feed of database %r is live on channel %s.",
                *(self._alias, self._channel),
                extra=fields(alias=self._alias),
            )

    def _lost(self, error: BaseException) -> None:
        # libpq's messages have several lines, and most end with a full stop.
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        if self.state.live:
            self.state.gaps += 1
            self.state.since = time.time()
        if self.state.live or self.state.error is None:
            logger.warning(
                "The feed of database %r %s: %s. It reconnects until it succeeds, and then reads "
                "everything watched again.",
                self._alias,
                "lost its LISTEN connection" if self.state.live else "has no LISTEN connection",
                reason,
                extra=fields(alias=self._alias),
            )
        self.state.live, self.state.error = False, reason
        self.live.clear()
