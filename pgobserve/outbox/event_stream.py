"""
Events for a worker, one after the other, from a place that outlives the worker.

One connection does it all: it waits for the wake-up, reads, keeps the cursor, and has it to itself.
If it is lost, another session may have the cursor, and what was handled since the cursor was kept
last is handled again, here or by another process.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg
from django.db import connections
from psycopg import sql

from pgobserve.database.async_connection import (
    Connection,
    abort,
    connect,
    execute,
)
from pgobserve.database.connection_watchdog import Unreachable
from pgobserve.errors import FeedUnavailable, TriggerError
from pgobserve.hub.hub import Hub
from pgobserve.hub.snapshot import Snapshot
from pgobserve.load.loader import Loader
from pgobserve.logs import fields
from pgobserve.outbox import outbox_page, outbox_trust
from pgobserve.outbox.cursor import Cursor, Durable, Position
from pgobserve.outbox.event import Event, Reset, events_of
from pgobserve.outbox.outbox_sql import qualified
from pgobserve.outbox.polling import PollingSchedule, Rotation
from pgobserve.sql.installed import is_observed
from pgobserve.wire import ALONE, OUTBOX_WAKE_UP
from pgobserve.workers.backoff import backoff

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

    from pgobserve.outbox.outbox_page import Page
    from pgobserve.wire import Namespace

logger = logging.getLogger(__name__)

#: Seconds that the server has for one page.
READ_TIMEOUT: Final = 30.0

#: Seconds between two attempts to get a cursor. Waiting inside the server would keep a snapshot, and
#: with it everything that vacuum could remove.
CLAIM_EVERY: Final = 1.0

#: Seconds after which the cursor is kept in the middle of a page, and while nothing comes.
KEEP_EVERY: Final = 1.0
KEEP_IDLE: Final = 30.0

#: A session has a cursor as long as it lasts, and its row names it. Not an advisory lock: any role that
#: may connect could hold that, and no event would be handled. Of a session of another role only the
#: role is visible.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """
    What a stream of events needs to know.

    Attributes:
        alias: The database alias.
        parameters: Returns the connection's parameters, as psycopg keywords.
        tables: Of which tables; their names by label.
        channel: The NOTIFY channel.
        name: Of the cursor; None for one that begins now and is not kept.
        poll: Nobody notifies: look again and again.
        retention: Seconds that rows are kept at least.
        namespace: Whose outbox.
    """

    alias: str
    parameters: Callable[[], Mapping[str, Any]]
    tables: Mapping[str, str]
    channel: str
    name: str | None = None
    poll: bool = False
    retention: float = 3600.0
    namespace: Namespace = ALONE


async def stream(options: StreamOptions) -> AsyncGenerator[Event | Reset, None]:
    """
    Yield events for ever; the next one is asked for when the one before is handled.

    Raises:
        TriggerError: At the beginning: a table does not write to the outbox.
    """
    loader = Loader(options.alias, Hub(), None, 1)
    try:
        await _check(options, loader)
        session = _Stream(options, loader)
        delays = backoff()
        while True:
            began = time.monotonic()
            try:
                async with aclosing(session.run()) as events:
                    async for event in events:
                        yield event
            except (psycopg.Error, OSError, FeedUnavailable, Unreachable) as error:
                session.lost(error)
            if time.monotonic() - began > 1:
                delays = backoff()
            await asyncio.sleep(next(delays))
    finally:
        loader.stop()


async def _check(options: StreamOptions, loader: Loader) -> None:
    alias, namespace = options.alias, options.namespace
    for label, table in options.tables.items():
        try:
            observed = await loader.call(
                lambda table=table: is_observed(  # type: ignore[misc]
                    table, connections[alias], namespace=namespace, outbox=True
                )
            )
        except Unreachable as error:
            # It may be there in a moment; the stream waits for it.
            logger.warning(
                "Whether %s has its triggers can't be determined in database %r: %s. The stream waits "
                "for it.",
                *(label, alias, error),
                extra=fields(model=label, alias=alias),
            )
            return
        if not observed:
            raise TriggerError(
                f"Changes of {label} are not written to the outbox of the namespace "
                f"{namespace.schema!r}. Set its transport in "
                f"PGOBSERVE['MODELS'], {{'{label}': {{'transport': 'outbox'}}}}, and run manage.py "
                f"pgobserve install {label}"
            )


class _Stream:
    """One worker's way through the outbox, over as many connections as it takes."""

    def __init__(self, options: StreamOptions, loader: Loader) -> None:
        self._options = options
        self._loader = loader
        self._rotation = Rotation(options.retention, options.namespace, alias=options.alias)
        self._failing_since: float | None = None
        self._cursor: Cursor | None = None
        self._durable = Durable()
        self._kept = 0.0

    async def run(self) -> AsyncGenerator[Event | Reset, None]:
        """Yield events until the connection is lost."""
        connection = await connect(self._options.parameters(), READ_TIMEOUT)
        try:
            await self._prepare(connection)
            pace = PollingSchedule(poll=self._options.poll)
            while True:
                page = await self._read(connection)
                self._found()
                pace.note(len(page.entries), full=page.facts.full)
                async with aclosing(self._handle(connection, page)) as events:
                    async for event in events:
                        yield event
                await self._rotation.turn(connection)
                if not page.more:
                    await self._rest(connection, pace.delay)
        finally:
            abort(connection)
            await connection.close()

    def lost(self, error: Exception) -> None:
        """Note that the connection is lost, or could not be made."""
        if self._failing_since is None:
            self._failing_since = time.monotonic()
            logger.warning(
                "Reading the outbox of database %r failed: %s. The stream reconnects until it "
                "succeeds.",
                *(self._options.alias, error),
                extra=fields(alias=self._options.alias),
            )

    def _found(self) -> None:
        if self._failing_since is not None:
            logger.warning(
                "The outbox of database %r is read again after %.1f s, from where the stream was.",
                *(self._options.alias, time.monotonic() - self._failing_since),
                extra=fields(alias=self._options.alias),
            )
            self._failing_since = None

    async def _prepare(self, connection: Connection) -> None:
        if self._options.poll:
            connection.prepare_threshold = None
        else:
            statement = sql.SQL("LISTEN {}").format(sql.Identifier(self._options.channel))
            await execute(connection, statement, within=READ_TIMEOUT)
        await outbox_trust.check(connection, self._options.namespace, READ_TIMEOUT)
        name = self._options.name
        if name is not None:
            await _claim(connection, name, self._options)
            self._cursor = await _load(connection, name, self._options.namespace)
        elif self._cursor is not None:
            self._cursor = self._durable.go_back()
        if self._cursor is None:
            row = await (
                await execute(
                    connection,
                    qualified(outbox_page.FACTS, self._options.namespace),
                    within=READ_TIMEOUT,
                )
            ).fetchone()
            assert row is not None  # noqa: S101 (sequences and the state have one row)
            await execute(connection, outbox_page.FLUSH, within=READ_TIMEOUT)
            begin = Cursor(outbox_page.facts(row).now)
            await self._keep(connection, begin)
            self._durable.begin(begin)
        # What is lost of the cursor in a crash is handled again. Its commits need not wait.
        await execute(connection, "SET synchronous_commit = off", within=READ_TIMEOUT)

    async def _read(self, connection: Connection) -> Page:
        cursor, labels = self._cursor, self._options.tables
        assert cursor is not None  # noqa: S101 (_prepare sets it)
        wanted = outbox_page.parameters(cursor, images=labels, labels=labels)
        answer = await execute(
            connection,
            qualified(outbox_page.QUERY, self._options.namespace),
            wanted,
            within=READ_TIMEOUT,
        )
        return outbox_page.page(await answer.fetchall(), cursor)

    async def _handle(
        self, connection: Connection, page: Page
    ) -> AsyncGenerator[Event | Reset, None]:
        handled: Cursor | None = None
        try:
            for event, place in await self._events(page):
                yield event
                handled = place or handled
                if place is not None and time.monotonic() - self._kept > KEEP_EVERY:
                    await self._keep(connection, place)
        except GeneratorExit:
            # The loop was left. Whether its last event was handled nobody knows.
            if handled is not None:
                await self._keep(connection, handled)
            raise
        if page.entries or page.why or time.monotonic() - self._kept > self._idle:
            await self._keep(connection, page.cursor)
        self._cursor = page.cursor
        self._durable.note(page.cursor, page.facts)

    async def _events(self, page: Page) -> Sequence[tuple[Event | Reset, Cursor | None]]:
        """Return events, each with the cursor of one who has handled it, after a transaction."""
        if page.why is not None:
            return [(Reset(None, page.why), None)]
        if not page.entries:
            return []
        labels, alias = self._options.tables, self._options.alias
        events = await self._loader.call(
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
        return min(KEEP_IDLE, self._options.retention / 8)

    async def _keep(self, connection: Connection, cursor: Cursor) -> None:
        self._cursor, self._kept = cursor, time.monotonic()
        if self._options.name is None:
            return
        place = cursor.place
        after = (str(place.until), place.at, place.xid) if place else (None, None, None)
        query = qualified(KEEP, self._options.namespace)
        wanted = [self._options.name, str(cursor.seen), *after]
        await execute(connection, query, wanted, within=READ_TIMEOUT)

    async def _rest(self, connection: Connection, delay: float) -> None:
        if self._options.poll:
            await asyncio.sleep(delay)
            return
        deadline = time.monotonic() + delay
        woken = False
        # Others' notifications come on the channel, too.
        while not woken and (left := deadline - time.monotonic()) > 0:
            async for notification in connection.notifies(timeout=left, stop_after=1):
                woken = woken or notification.payload == OUTBOX_WAKE_UP


async def _claim(connection: Connection, name: str, options: StreamOptions) -> None:
    query, alias = qualified(CLAIM, options.namespace), options.alias
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


async def _load(connection: Connection, name: str, namespace: Namespace) -> Cursor | None:
    query = qualified(LOAD, namespace)
    row = await (await execute(connection, query, [name], within=READ_TIMEOUT)).fetchone()
    if row is None:
        return None
    place = None if row[1] is None else Position(Snapshot.parse(row[1]), row[2], row[3])
    return Cursor(Snapshot.parse(row[0]), place)
