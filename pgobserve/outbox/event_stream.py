"""
Events for a worker, one after the other, from a cursor that outlives the worker.

A single connection waits for wake-ups, reads, keeps the cursor and holds it. If the connection is lost,
another session may take the cursor. That session, in whatever process, handles the events again that
came after the cursor was kept last.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from django.db import connections
from psycopg import sql

from pgobserve.database.async_connection import Connection, abort, connect, execute, notified
from pgobserve.database.connection_watchdog import ConnectionWatchdog, Unreachable
from pgobserve.errors import FeedUnavailable, TriggerError
from pgobserve.hub.snapshot import Snapshot
from pgobserve.logs import fields
from pgobserve.outbox import outbox_trust
from pgobserve.outbox.cursor import Cursor, Position, Progress
from pgobserve.outbox.event import Event, Reset, events_of
from pgobserve.outbox.outbox_page import qualified
from pgobserve.outbox.outbox_pages import (
    LOST,
    READ_TIMEOUT,
    FollowOptions,
    ReaderState,
    Rotation,
    pages,
)
from pgobserve.sql.installed import triggers_of
from pgobserve.wire import ALONE, OUTBOX_WAKE_UP
from pgobserve.workers.retrying import Attempts
from pgobserve.workers.thread_pool import ThreadPool

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

    from pgobserve.outbox.outbox_page import Page
    from pgobserve.wire import Namespace

    Call = Callable[[Callable[[], Any]], Awaitable[Any]]

logger = logging.getLogger(__name__)

#: Seconds between two attempts to claim a cursor. Waiting inside the server would hold a snapshot, and
#: with it all that vacuum could remove.
CLAIM_EVERY: Final = 1.0

#: Seconds after which the cursor is kept in the middle of a page, and while nothing comes.
KEEP_EVERY: Final = 1.0
KEEP_IDLE: Final = 30.0

#: A session holds a cursor as long as it lasts, and the cursor's row names it. An advisory lock would not
#: do: any role that may connect could hold it, and no event would be handled. Of another role's session
#: only the role is visible.
CLAIM: Final = """
INSERT INTO {schema}.outbox_cursor AS c (name, seen, moved_at, pid, role, connected_at)
SELECT %s, pg_catalog.pg_current_snapshot(), pg_catalog.clock_timestamp(), a.pid, a.usesysid, a.backend_start
  FROM pg_catalog.pg_stat_activity a WHERE a.pid = pg_catalog.pg_backend_pid()
ON CONFLICT (name) DO UPDATE
   SET pid = excluded.pid, role = excluded.role, connected_at = excluded.connected_at
 WHERE NOT EXISTS (
   SELECT FROM pg_catalog.pg_stat_activity h
    WHERE h.pid = c.pid AND h.usesysid = c.role
      AND (h.backend_start = c.connected_at OR h.backend_start IS NULL))
RETURNING true
"""
LOAD: Final = """
SELECT seen::text, until::text, after_at, after_xid FROM {schema}.outbox_cursor WHERE name = %s
"""
KEEP: Final = """
INSERT INTO {schema}.outbox_cursor AS c (name, seen, until, after_at, after_xid, moved_at)
VALUES (%s, %s::pg_snapshot, %s::pg_snapshot, %s, %s, pg_catalog.clock_timestamp())
ON CONFLICT (name) DO UPDATE
   SET seen = excluded.seen, until = excluded.until, after_at = excluded.after_at,
       after_xid = excluded.after_xid, moved_at = excluded.moved_at
"""


@dataclass(kw_only=True, eq=False)
class EventStream:
    """
    The way of a worker through the outbox, over as many connections as it takes.

    Attributes:
        parameters: Returns the connection's parameters, as psycopg keywords.
        tables: The tables' names, by label.
        channel: The NOTIFY channel.
        name: The cursor's name; None for a cursor that starts now and is not kept.
        poll: Writers send no wake-ups.
        retention: Seconds for which records are kept at least.
    """

    alias: str
    parameters: Callable[[], Mapping[str, Any]]
    tables: Mapping[str, str]
    channel: str
    name: str | None = None
    poll: bool = False
    retention: float = 3600.0
    namespace: Namespace = ALONE

    def __post_init__(self) -> None:
        self._rotation = Rotation(self.retention, self.namespace, alias=self.alias)
        self._progress = Progress()
        self._kept = 0.0

    async def events(self) -> AsyncGenerator[Event | Reset, None]:
        """
        Yield events for ever; an event counts as handled when the next one is requested.

        Raises ``TriggerError`` at the start if a table does not write to the outbox.
        """
        # A thread with a database connection, for what needs the ORM.
        watchdog = ConnectionWatchdog(self.alias)
        pool = ThreadPool(
            *(1, connections.close_all, watchdog.tidy),
            waits=watchdog.waits,
            cut=watchdog.cut,
            alias=self.alias,
        )
        self._call: Call = lambda function: pool.run(partial(watchdog.run, function))
        try:
            await self._check()
            state = ReaderState()
            async for _ in Attempts():
                try:
                    async with aclosing(self.run(state)) as events:
                        async for event in events:
                            yield event
                except LOST as error:
                    state.lost(error, self.alias)
        finally:
            pool.stop()

    async def _check(self) -> None:
        alias, namespace = self.alias, self.namespace
        for label, table in self.tables.items():
            try:
                observed = await self._call(
                    lambda table=table: triggers_of(  # type: ignore[misc]
                        table, connections[alias], namespace=namespace, outbox=True
                    )
                )
            except Unreachable as error:
                logger.warning(
                    "Whether %s has its triggers can't be determined in database %r: %s. The stream "
                    "waits for the database.",
                    *(label, alias, error),
                    extra=fields(model=label, alias=alias),
                )
                return
            if not observed:
                raise TriggerError(
                    f"Changes of {label} are not written to the outbox of the namespace "
                    f"{namespace.schema!r}. Set its transport in PGOBSERVE['MODELS'], {{'{label}': "
                    f"{{'transport': 'outbox'}}}}, and run manage.py pgobserve install {label}"
                )

    async def run(self, state: ReaderState) -> AsyncGenerator[Event | Reset, None]:
        """Yield events until the connection is lost."""
        connection = await connect(self.parameters(), READ_TIMEOUT)
        follow = FollowOptions(
            namespace=self.namespace,
            wanted=lambda: {"images": self.tables, "labels": self.tables},
            wait=partial(self._rest, connection),
            poll=self.poll,
            rotation=self._rotation,
        )
        try:
            await self._prepare(connection)
            async with aclosing(pages(connection, self._progress, follow)) as found:
                async for page in found:
                    if page is None:
                        raise FeedUnavailable("there is no outbox")
                    state.read(self.alias)
                    async with aclosing(self._handle(connection, page)) as events:
                        async for event in events:
                            yield event
        finally:
            abort(connection)
            await connection.close()

    async def _prepare(self, connection: Connection) -> None:
        if self.poll:
            connection.prepare_threshold = None
        else:
            statement = sql.SQL("LISTEN {}").format(sql.Identifier(self.channel))
            await execute(connection, statement, within=READ_TIMEOUT)
        # Before anything is written there. The iterator checks again before it reads.
        await outbox_trust.check(connection, self.namespace, READ_TIMEOUT)
        if self.name is None:
            self._progress.go_back()
        else:
            await self._claim(connection, self.name)
            self._progress.start(await self._load(connection, self.name))
        # A crash may lose the last kept cursors, whose events are handled again then. So keeping one
        # need not wait for the disk.
        await execute(connection, "SET synchronous_commit = off", within=READ_TIMEOUT)

    async def _handle(
        self, connection: Connection, page: Page
    ) -> AsyncGenerator[Event | Reset, None]:
        handled: Cursor | None = None
        try:
            for event, cursor in await self._events(page):
                yield event
                handled = cursor or handled
                if cursor is not None and time.monotonic() - self._kept > KEEP_EVERY:
                    await self._keep(connection, cursor)
        except GeneratorExit:
            # The caller left its loop. Its last event may not be handled, so it comes again.
            if handled is not None:
                await self._keep(connection, handled)
            raise
        if page.entries or page.gap or time.monotonic() - self._kept > self._idle:
            await self._keep(connection, page.cursor)
        self._progress.note(page.cursor, page.status)

    async def _events(self, page: Page) -> Sequence[tuple[Event | Reset, Cursor | None]]:
        """Return events; the last one of each transaction comes with the cursor behind it."""
        if page.gap is not None:
            return [(Reset(None, page.gap), None)]
        if not page.entries:
            return []
        labels, alias = self.tables, self.alias
        events = await self._call(
            lambda: events_of(page.entries, labels.keys(), connections[alias])
        )
        ends = {entry.xid: entry.last for entry in page.entries}
        follows = [*(event.xid for event in events[1:]), None]
        until = page.cursor.place.until if page.cursor.place else page.cursor.seen
        seen = page.before.seen
        return [
            (
                event,
                None
                if event.xid == following or event.xid is None
                else Cursor(seen, Position(until, ends[event.xid], event.xid)),
            )
            for event, following in zip(events, follows, strict=True)
        ]

    @property
    def _idle(self) -> float:
        return min(KEEP_IDLE, self.retention / 8)

    async def _keep(self, connection: Connection, cursor: Cursor) -> None:
        self._kept = time.monotonic()
        if self.name is None:
            return
        place = cursor.place
        after = (str(place.until), place.at, place.xid) if place else (None, None, None)
        query = qualified(KEEP, self.namespace)
        wanted = [self.name, str(cursor.seen), *after]
        await execute(connection, query, wanted, within=READ_TIMEOUT)

    async def _rest(self, connection: Connection, delay: float) -> None:
        if self.poll:
            await asyncio.sleep(delay)
        else:
            # Notifications of changes come on the same channel.
            await notified(connection, delay, lambda each: each.payload == OUTBOX_WAKE_UP)

    async def _claim(self, connection: Connection, name: str) -> None:
        query, alias = qualified(CLAIM, self.namespace), self.alias
        since: float | None = None
        while True:
            answer = await execute(connection, query, [name], within=READ_TIMEOUT)
            if await answer.fetchone() is not None:
                break
            if since is None:
                logger.info(
                    "Another process holds the cursor %r of database %r; this one waits for it.",
                    *(name, alias),
                    extra=fields(key=name, alias=alias),
                )
                since = time.monotonic()
            await asyncio.sleep(CLAIM_EVERY)
        if since is not None:
            logger.info(
                "This process holds the cursor %r of database %r after %.1f s.",
                *(name, alias, time.monotonic() - since),
                extra=fields(key=name, alias=alias),
            )

    async def _load(self, connection: Connection, name: str) -> Cursor | None:
        query = qualified(LOAD, self.namespace)
        row = await (await execute(connection, query, [name], within=READ_TIMEOUT)).fetchone()
        if row is None:
            return None
        place = None if row[1] is None else Position(Snapshot.parse(row[1]), row[2], row[3])
        return Cursor(Snapshot.parse(row[0]), place)
