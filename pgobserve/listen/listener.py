"""
One dedicated connection that hears what the triggers say, and knows when it may have missed some.

Silence is never trusted, and any interruption is a gap: LISTEN is committed first, then whoever
uses the listener is told to read again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import psycopg

from pgobserve.database.async_connection import (
    Connection,
    abort,
    ask,
    connect,
    listen,
    open_connection,
)
from pgobserve.database.server_identity import Servers, identify
from pgobserve.errors import FeedUnavailable, PayloadInvalid
from pgobserve.listen.payload import parse
from pgobserve.logs import fields
from pgobserve.wire import QUEUE_FULL
from pgobserve.workers.backoff import backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from pgobserve.hub.change import Change

logger = logging.getLogger(__name__)

#: Seconds for which notifies are handled before others have their turn.
SLICE: Final = 0.005

#: Heartbeats in a row that may be left out because notifications have come.
SKIPPED: Final = 3

#: Seconds between two looks whether new connections reach the same server.
PROBE: Final = 60.0

#: Share of the server's notification queue in use from which on a warning is logged.
QUEUE_WARNING = 0.01

#: Share from which on it may have become full, and be read again, between two looks.
QUEUE_NEARLY_FULL = 0.5


@dataclass(slots=True)
class ListenerState:
    """
    What is known of a listener, for people and monitoring.

    Attributes:
        live: Notifications arrive now.
        since: When it became what it is, in seconds since the epoch.
        gaps: Interruptions after which everything watched was read again.
        notifications: Heard so far.
        ignored: Notifications that were none of ours, or garbled.
        queue_usage: Share of the server's notification queue in use, at the last heartbeat.
        error: Why it is not live.
    """

    live: bool = False
    since: float = field(default_factory=time.time)
    gaps: int = 0
    notifications: int = 0
    ignored: int = 0
    queue_usage: float = 0.0
    error: str | None = None


class Listener:
    """
    Keeps a connection LISTENing, for ever.

    Args:
        parameters: Returns psycopg keywords; called for each attempt, for names and passwords
            may change.
        channel: The NOTIFY channel.
        on_change: Called with each change, in commit order; must not block.
        on_live: Called each time LISTEN is committed, with True if changes may have been missed.
        heartbeat: Seconds of silence after which the server is asked whether it is there, and
            seconds that it has to answer.
        skim: Called with each payload first; if it returns True, the payload is not decoded.
        servers: Is told which server is listened to.
        alias: The database alias, for the log.
    """

    def __init__(
        self,
        parameters: Callable[[], Mapping[str, Any]],
        channel: str,
        on_change: Callable[[Change], None],
        on_live: Callable[[bool], object],
        heartbeat: float = 5.0,
        *,
        alias: str = "default",
        skim: Callable[[str], bool] = lambda _: False,
        servers: Servers | None = None,
    ) -> None:
        self.state = ListenerState()
        self.live = asyncio.Event()
        self._parameters = parameters
        self._channel = channel
        self._alias = alias
        self._on_change = on_change
        self._on_live = on_live
        self._heartbeat = heartbeat
        self._skim = skim
        self._servers = servers or Servers()
        self._lost_here: asyncio.Future[None] | None = None
        self._probed = 0.0
        self._more = False
        self._waiting: deque[str] = deque()
        self._connection: Connection | None = None

    async def run(self) -> None:
        """Connect, listen, and on any interruption begin anew; ends only by cancellation."""
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
        """Cut the connection, because the event loop was closed; may be called in any thread."""
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
            if self.state.live:  # cancelled: nobody called it lost
                self.state.live, self.state.since = False, time.time()
            # Not close() alone: with the server silent, it must not wait for anything.
            abort(connection)
            await connection.close()
        return began

    async def _drain(self, connection: Connection) -> None:
        """
        Hear what comes, until the connection is lost.

        Not by ``connection.notifies()``: between two changes it would prepare its next wait, while
        the thread that reads the first one wants to begin. And what it has taken from libpq is lost
        when its loop is left.
        """
        self._waiting.clear()
        connection.add_notify_handler(self._came)  # for what comes with an answer
        loop, descriptor = asyncio.get_running_loop(), connection.fileno()
        heard, skipped = self.state.notifications, 0
        while True:
            self._lost_here = lost = loop.create_future()
            loop.add_reader(descriptor, self._read, connection, lost)
            # What came right behind an answer is in libpq already: the socket will not tell of it.
            self._read(connection, lost)
            try:
                await asyncio.wait({lost}, timeout=self._heartbeat)
            finally:
                # psycopg waits for its answers by the same means.
                loop.remove_reader(descriptor)
            if lost.done():
                await lost
            lost.cancel()
            # While something comes the server is there. Its answer would come after all of that.
            alive = self.state.notifications > heard and skipped < SKIPPED
            heard, skipped = self.state.notifications, skipped + 1 if alive else 0
            if not alive:
                await self._beat(connection)
            await self._probe()

    def _read(self, connection: Connection, lost: asyncio.Future[None]) -> None:
        """Hear what has come, for a while; what is left after that is heard in another turn."""
        if not self._more:
            self._hear_some(connection, lost)

    def _hear_more(self, connection: Connection, lost: asyncio.Future[None]) -> None:
        self._more = False
        self._hear_some(connection, lost)

    def _hear_some(self, connection: Connection, lost: asyncio.Future[None]) -> None:
        if lost.done():
            return
        loop, until = asyncio.get_running_loop(), time.monotonic() + SLICE
        try:
            while (payload := self._next(connection)) is not None:
                self._hear(payload)
                # A flood would hold the event loop, and with it every socket of the process.
                if time.monotonic() > until:
                    self._more = True
                    loop.call_soon(self._hear_more, connection, lost)
                    return
        except Exception as error:  # noqa: BLE001 (it is raised where it is waited for)
            lost.set_exception(error)

    def _next(self, connection: Connection) -> str | None:
        """Return the next payload on the channel, or None if no other has come."""
        if self._waiting:
            return self._waiting.popleft()
        pgconn, encoding = connection.pgconn, connection.info.encoding
        # Not before all that was read is handled: what is not read waits in the server.
        for reads in (False, True):
            if reads:
                pgconn.consume_input()
            while (note := pgconn.notifies()) is not None:
                if note.relname.decode(encoding) == self._channel:
                    return note.extra.decode(encoding)
        return None

    def _came(self, notification: psycopg.Notify) -> None:
        """Keep what came with the answer to a statement: that may be very much at once."""
        if notification.channel == self._channel:
            self._waiting.append(notification.payload)

    def doubt(self) -> None:
        """Make the connection anew: new connections reach another server than this one has."""
        if self._lost_here is not None and not self._lost_here.done():
            reason = "rows are read from another server; was there a failover?"
            self._lost_here.set_exception(FeedUnavailable(reason))

    async def _probe(self) -> None:
        """
        See, now and then, whether a new connection would reach the same server.

        Raises:
            FeedUnavailable: It would not: this one is an old primary that lives on, perhaps.
        """
        if time.monotonic() - self._probed < PROBE:
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
            return  # a standby, or nothing that can be reached: no better than what there is
        if identity.run != self._servers.run:
            raise FeedUnavailable("new connections reach another server; was there a failover?")

    async def _beat(self, connection: Connection) -> None:
        query = "SELECT pg_catalog.pg_notification_queue_usage()"
        cursor = await ask(connection, query, patience=self._heartbeat)
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
            # Triggers have kept silent since the last look, or may have, so that writers could commit.
            self.state.gaps += 1
            self._on_live(True)

    def _hear(self, payload: str) -> None:
        self.state.notifications += 1
        if self._skim(payload):
            return
        try:
            change = parse(payload)
        except PayloadInvalid as error:
            self.ignore(str(error))
            return
        self._on_change(change)

    def ignore(self, why: str) -> None:
        """Count a notification that can't be used, and log the first one."""
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
        if failed:  # at the level of the loss, so that whatever shows one shows the other
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
        # libpq's messages have several lines, and mostly end with a full stop.
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
