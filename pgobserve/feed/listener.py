"""
One dedicated connection that hears what the triggers say, and knows when it may have missed some.

Silence is never trusted, and any interruption is a gap: LISTEN is committed first, then whoever
uses the listener is told to read again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg

from pgobserve.errors import FeedUnavailable, PayloadInvalid
from pgobserve.feed.backoff import backoff
from pgobserve.feed.connection import Connection, abort, ask, connect, listen
from pgobserve.feed.payload import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from pgobserve.feed.change import Change

logger = logging.getLogger(__name__)

#: Share of the server's notification queue in use from which on a warning is logged.
QUEUE_WARNING = 0.01


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
    """

    def __init__(
        self,
        parameters: Callable[[], Mapping[str, Any]],
        channel: str,
        on_change: Callable[[Change], None],
        on_live: Callable[[bool], None],
        heartbeat: float = 5.0,
    ) -> None:
        self.state = ListenerState()
        self.live = asyncio.Event()
        self._parameters = parameters
        self._channel = channel
        self._on_change = on_change
        self._on_live = on_live
        self._heartbeat = heartbeat

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
            logger.info("The feed's connection is tried again in %.1f s.", delay)
            await asyncio.sleep(delay)

    async def _listen_until_lost(self) -> float:
        parameters = self._parameters()
        connection = await connect(parameters, self._heartbeat)
        try:
            await listen(connection, self._channel, parameters, self._heartbeat)
            began = time.monotonic()
            self._connected()
            try:
                await self._drain(connection)
            except (psycopg.Error, OSError, FeedUnavailable) as error:
                self._lost(error)
        finally:
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
        connection.add_notify_handler(self._heard)  # for what comes with an answer
        loop, descriptor = asyncio.get_running_loop(), connection.fileno()
        while True:
            lost: asyncio.Future[None] = loop.create_future()
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
            await self._beat(connection)

    def _read(self, connection: Connection, lost: asyncio.Future[None]) -> None:
        try:
            connection.pgconn.consume_input()
            while (note := connection.pgconn.notifies()) is not None:
                encoding = connection.info.encoding
                channel, payload = note.relname.decode(encoding), note.extra.decode(encoding)
                self._heard(psycopg.Notify(channel, payload, note.be_pid))
        except Exception as error:  # noqa: BLE001 (it is raised where it is waited for)
            if not lost.done():
                lost.set_exception(error)

    def _heard(self, notification: psycopg.Notify) -> None:
        if notification.channel == self._channel:
            self._hear(notification.payload)

    async def _beat(self, connection: Connection) -> None:
        query = "SELECT pg_catalog.pg_notification_queue_usage()"
        cursor = await ask(connection, query, patience=self._heartbeat)
        row = await cursor.fetchone()
        self._note_usage(float(row[0]) if row else 0.0)

    def _note_usage(self, usage: float) -> None:
        before, self.state.queue_usage = self.state.queue_usage, usage
        if usage >= QUEUE_WARNING > before:
            logger.warning(
                "PostgreSQL's notification queue is %.1f %% full: some session LISTENs and does not "
                "read. When it is full, every transaction that notifies fails. Feeds of this kind "
                "are 'pgobserve:…' in pg_stat_activity.application_name; wait_event ClientWrite, or "
                "an old xact_start, shows who is stuck.",
                usage * 100,
            )

    def _hear(self, payload: str) -> None:
        self.state.notifications += 1
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
                "A notification on channel %s was ignored: %s. Later ones are only counted.",
                self._channel,
                why,
            )

    def _connected(self) -> None:
        gap = self.state.gaps > 0 or self.state.error is not None
        self.state.live, self.state.since, self.state.error = True, time.time(), None
        logger.info("The feed is live on channel %s.", self._channel)
        self.live.set()
        self._on_live(gap)

    def _lost(self, error: BaseException) -> None:
        # libpq's messages have several lines, and mostly end with a full stop.
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        if self.state.live:
            self.state.gaps += 1
            self.state.since = time.time()
        if self.state.live or self.state.error is None:
            logger.warning(
                "The feed's connection is lost or can't be made: %s. It is tried again until it "
                "works; then everything watched is read again.",
                reason,
            )
        self.state.live, self.state.error = False, reason
        self.live.clear()
