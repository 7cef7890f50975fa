"""
Reads the outbox for a process: changes for the hub, events for those who follow them.

A NOTIFY only says that there may be something. What there is says the cursor, which outlives any
connection: after an interruption the reader goes on where it was.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import psycopg
from django.db import connections

from pgobserve.database.async_connection import (
    Connection,
    abort,
    connect,
    execute,
)
from pgobserve.database.connection_watchdog import Unreachable
from pgobserve.database.server_identity import RUN
from pgobserve.errors import FeedUnavailable
from pgobserve.hub.change import Change
from pgobserve.logs import fields
from pgobserve.outbox import outbox_page, outbox_trust
from pgobserve.outbox.cursor import Cursor, Durable, GapReason
from pgobserve.outbox.event import Reset, events_of
from pgobserve.outbox.outbox_sql import qualified
from pgobserve.outbox.polling import PollingSchedule, Rotation
from pgobserve.wire import ALONE, MAX_KEYS
from pgobserve.workers.backoff import backoff

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence

    from pgobserve.hub.snapshot import Snapshot
    from pgobserve.load.loader import Loader
    from pgobserve.outbox.event import Event
    from pgobserve.outbox.outbox_page import OutboxRecord, Page
    from pgobserve.wire import Namespace

    Callback = Callable[[Sequence[Event | Reset]], Awaitable[object] | None]
    Routes = Mapping[str, Collection[str]]
    Builder = Callable[
        [Sequence[OutboxRecord], Collection[str]], Awaitable[Sequence[Event | Reset]]
    ]

logger = logging.getLogger(__name__)

NO_ROUTES: Final[Routes] = MappingProxyType({})

#: Seconds that the server has for one page.
READ_TIMEOUT: Final = 30.0


class Follow:
    """
    One who follows the events of some tables.

    Attributes:
        labels: The tables' labels.
        since: The snapshot that it begins at: what is visible in it is never told.
        begun: Set when it has begun.
        closed: It has ended.
    """

    __slots__ = ("begun", "callback", "closed", "labels", "on_close", "since")

    def __init__(
        self, labels: Collection[str], callback: Callback, on_close: Callable[[Follow], None]
    ) -> None:
        self.labels = frozenset(labels)
        self.callback = callback
        self.on_close = on_close
        self.since: Snapshot | None = None
        self.begun = asyncio.Event()
        self.closed = False

    def close(self) -> None:
        """End it; nothing is told any more."""
        if not self.closed:
            self.closed = True
            self.on_close(self)


class Followers:
    """
    Who follows, and where the reader is; they outlive a reader that fails.

    Attributes:
        cursor: What has been handed to all of them; None before the first read.
        durable: Where to go on over another connection.
    """

    def __init__(self) -> None:
        self.cursor: Cursor | None = None
        self.durable = Durable()
        self._follows: dict[Follow, None] = {}

    def __len__(self) -> int:
        return len(self._follows)

    def add(self, follow: Follow) -> None:
        """Let one begin."""
        self._follows[follow] = None

    def discard(self, follow: Follow) -> None:
        """Let one end."""
        self._follows.pop(follow, None)

    def begin(self) -> None:
        """Let those begin who have not: with what the next read finds."""
        # In the middle of many pages others may have been told a part of what is visible then.
        if self.cursor is not None and self.cursor.place is None:
            for each in self._follows:
                if each.since is None:
                    each.since = self.cursor.seen
                    each.begun.set()

    @property
    def begun(self) -> list[Follow]:
        """Those who have begun."""
        return [each for each in self._follows if each.since is not None]

    async def tell(self, follows: Sequence[Follow], events: Sequence[Event | Reset]) -> None:
        """
        Hand events to those whom they concern; one who raises does not hold up the others.

        Waits for those who have too much to do already, so that what is read has a bound.
        """
        for each in follows:
            concerned = [e for e in events if e.label is None or e.label in each.labels]
            if concerned and not each.closed:
                try:
                    if (catching_up := each.callback(concerned)) is not None:
                        await catching_up
                except Exception:
                    labels, xid = ", ".join(sorted(each.labels)), concerned[0].xid
                    logger.exception(
                        "A subscriber to events of %s failed on transaction %s; it receives the "
                        "next ones.",
                        *(labels, xid),
                        extra=fields(model=labels, transaction=xid),
                    )


@dataclass(slots=True)
class ReaderState:
    """
    What is known of a reader of the outbox.

    Attributes:
        live: It can read.
        since: When it became what it is, in seconds since the epoch.
        reads: Queries so far.
        entries: Rows of the outbox so far; one for each statement, or more for large ones.
        resets: How often changes may have been missed, so that everything was read again.
        error: Why it is not live.
    """

    live: bool = False
    since: float = field(default_factory=time.time)
    reads: int = 0
    entries: int = 0
    resets: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderOptions:
    """
    What a reader needs to know.

    Attributes:
        parameters: Returns the connection's parameters, as psycopg keywords.
        on_change: Called with each change; must not block.
        on_gap: Called when changes may have been missed.
        build: Makes events of entries.
        poll: Nobody notifies: look again and again.
        retention: Seconds that rows are kept at least.
        run: Returns the run of the server that is listened to, which must be read as well; None if
            nothing is listened to.
        routes: Returns, by label, the columns of which changes carry the old and new values; asked
            before each read.
        alias: The database alias, for the log.
    """

    parameters: Callable[[], Mapping[str, Any]]
    on_change: Callable[[Change], None]
    on_gap: Callable[[], object]
    build: Builder
    poll: bool = False
    retention: float = 3600.0
    routes: Callable[[], Routes] = dict
    run: Callable[[], int | None] = lambda: None
    namespace: Namespace = ALONE
    alias: str = "default"


class Reader:
    """
    Reads the outbox, for ever.

    Args:
        options: What it needs to know.
        followers: Who wants events, and where it goes on.

    Attributes:
        live: Set while it can read, and while there is no outbox to read.
    """

    def __init__(self, options: ReaderOptions, followers: Followers) -> None:
        self.state = ReaderState()
        self.live = asyncio.Event()
        self._options = options
        self._followers = followers
        self._woken = asyncio.Event()
        self._turned = asyncio.Event()
        self._pace = PollingSchedule(poll=options.poll)
        self._rotation = Rotation(options.retention, options.namespace, alias=options.alias)
        self._has_begun = False
        # Reads that have begun, and the number of the last one that has ended.
        self._begun = self._ended = 0
        self._connection: Connection | None = None
        self._is_trusted = False

    def wake(self) -> None:
        """Say that there may be something to read."""
        self._woken.set()

    async def reach(self, snapshot: Snapshot) -> None:
        """
        Return when all has been read that is visible in a snapshot.

        At once while the reader waits for its first wake-up: nothing has been written then. Where
        there is no outbox, after a read that began later and found none.
        """
        before = self._begun
        while self._has_begun or self._woken.is_set():
            cursor = self._followers.cursor
            if self.live.is_set() and (
                self._ended > before
                if cursor is None
                else cursor.place is None and cursor.seen.covers(snapshot)
            ):
                return
            self._turned.clear()
            self.wake()
            await self._turned.wait()

    async def run(self, *, at_once: bool = True) -> None:
        """
        Connect, read, and on any interruption go on; ends only by cancellation.

        After an error it may be called again. It goes on where the followers are.

        Args:
            at_once: Whether to begin before the first wake-up.
        """
        if self._has_begun:
            # What these hold may be what failed.
            self._pace = PollingSchedule(poll=self._options.poll)
            options = self._options
            self._rotation = Rotation(options.retention, options.namespace, alias=options.alias)
        elif not at_once:
            self.live.set()
            await self._woken.wait()
            self.live.clear()
        # The read that failed may have answered the only wake-up: another run does not wait for one.
        self._has_begun = True
        delays = backoff()
        while True:
            began = time.monotonic()
            try:
                await self._read_until_lost()
            except (psycopg.Error, OSError, FeedUnavailable) as error:
                self._lost(error)
            if time.monotonic() - began > 1:
                delays = backoff()
            await asyncio.sleep(next(delays))

    def abandon(self) -> None:
        """Cut the connection, because the event loop was closed; may be called in any thread."""
        if self._connection is not None:
            abort(self._connection)

    async def _read_until_lost(self) -> None:
        connection = await connect(self._options.parameters(), READ_TIMEOUT)
        self._connection, self._is_trusted = connection, False
        if self._options.poll:
            # So it may be through a proxy that gives each transaction another session.
            connection.prepare_threshold = None
        if self._followers.cursor is not None:
            self._followers.cursor = self._followers.durable.go_back()
        try:
            run = None if self._options.poll else await self._run_of(connection)
            while True:
                if run != (self._options.run() or run):
                    raise FeedUnavailable("it is another server than the one listened to")
                self._woken.clear()
                self._begun += 1
                more = await self._step(connection)
                self._ended = self._begun
                self._is_live()
                self._turned.set()
                if self._is_trusted:
                    await self._rotation.turn(connection)
                if not more:
                    await self._rest()
        finally:
            self.live.clear()
            abort(connection)
            await connection.close()

    async def _run_of(self, connection: Connection) -> int:
        row = await (await execute(connection, f"SELECT {RUN}", within=READ_TIMEOUT)).fetchone()
        assert row is not None  # noqa: S101 (a SELECT without FROM)
        return int(row[0])

    async def _step(self, connection: Connection) -> bool:
        """Read once; return whether there is more."""
        try:
            if not self._is_trusted:
                await outbox_trust.check(connection, self._options.namespace, READ_TIMEOUT)
                self._is_trusted = True
            if self._followers.cursor is None:
                await self._begin(connection)
            self._followers.begin()
            return await self._read(connection)
        except psycopg.errors.UndefinedTable:
            # Nothing has the outbox as its transport yet, or any more. Any role may make it next.
            self._is_trusted = False
            self._pace.note(0, full=True)
            return False

    async def _begin(self, connection: Connection) -> None:
        answer = await execute(
            connection, qualified(outbox_page.FACTS, self._options.namespace), within=READ_TIMEOUT
        )
        row = await answer.fetchone()
        assert row is not None  # noqa: S101 (sequences and the state have one row)
        await execute(connection, outbox_page.FLUSH, within=READ_TIMEOUT)
        self._followers.cursor = Cursor(outbox_page.facts(row).now)
        self._followers.durable.begin(self._followers.cursor)
        # What was written before may have been missed by those who watch already.
        self._options.on_gap()

    async def _read(self, connection: Connection) -> bool:
        cursor, follows = self._followers.cursor, self._followers.begun
        assert cursor is not None  # noqa: S101 (_begin sets it)
        labels = frozenset().union(*(each.labels for each in follows))
        routes = self._options.routes()
        wanted = outbox_page.parameters(cursor, images=labels.union(routes))
        answer = await execute(
            connection,
            qualified(outbox_page.QUERY, self._options.namespace),
            wanted,
            within=READ_TIMEOUT,
        )
        page = outbox_page.page(await answer.fetchall(), cursor)
        self.state.reads += 1
        self.state.entries += len(page.entries)
        self._publish(page, routes)
        if follows:
            await self._followers.tell(follows, await self._events(page, labels))
        self._followers.cursor = page.cursor
        handled = {(entry.last, entry.xid) for entry in page.entries}
        self._followers.durable.note(page.cursor, page.facts, handled)
        self._pace.note(len(page.entries), full=page.facts.full)
        return page.more

    def _publish(self, page: Page, routes: Routes) -> None:
        if page.why is not None:
            self.state.resets += 1
            logger.warning(
                "Changes may be missing in the outbox of database %r (%s); everything watched is "
                "read again.",
                *(self._options.alias, page.why),
                extra=fields(alias=self._options.alias),
            )
            self._options.on_gap()
        for change in changes_of(page.entries, routes):
            self._options.on_change(change)

    async def _events(self, page: Page, labels: frozenset[str]) -> Sequence[Event | Reset]:
        if page.why is not None:
            return [Reset(None, page.why)]
        knows = self._followers.durable.knows
        entries = [
            entry
            for entry in page.entries
            if entry.label in labels and not knows(entry.last, entry.xid)
        ]
        if not entries:
            return []
        try:
            return await self._options.build(entries, labels)
        except FeedUnavailable:
            raise
        except Exception:
            # It would be so the next time, too; and nobody must believe to have had everything.
            names = ", ".join(sorted(labels))
            logger.exception(
                "Making events of %s failed from transaction %d on, in the outbox of database %r; "
                "subscribers to these events receive a reset.",
                *(names, entries[0].xid, self._options.alias),
                extra=fields(model=names, alias=self._options.alias, transaction=entries[0].xid),
            )
            return [Reset(None, GapReason.UNREADABLE)]

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(self._pace.delay):
                await self._woken.wait()
        except TimeoutError:
            pass

    def _is_live(self) -> None:
        if not self.state.live:
            if self.state.error is not None:
                logger.warning(
                    "The outbox of database %r is read again after %.1f s, from where the reader was.",
                    *(self._options.alias, time.time() - self.state.since),
                    extra=fields(alias=self._options.alias),
                )
            self.state.live, self.state.since, self.state.error = True, time.time(), None
        self.live.set()

    def _lost(self, error: BaseException) -> None:
        reason = str(error).strip() or type(error).__name__
        if self.state.live or self.state.error is None:
            logger.warning(
                "Reading the outbox of database %r failed: %s. The reader retries until it succeeds.",
                *(self._options.alias, reason),
                extra=fields(alias=self._options.alias),
            )
            self.state.since = time.time()
        self.state.live, self.state.error = False, reason


def changes_of(entries: Sequence[OutboxRecord], routes: Routes = NO_ROUTES) -> Iterator[Change]:
    """
    Yield what entries say to those who only want to know which rows to read.

    A transaction that changed very many rows of a table says: any of them.

    Args:
        entries: Of some whole transactions.
        routes: By label the columns of which changes carry the old and new values. Without images
            of its rows a change of such a table says: any of them.
    """
    for (xid, label), found in groupby(entries, lambda entry: (entry.xid, entry.label)):
        parts = list(found)
        keys = [None if each.keys is None else outbox_page.keys(each.keys) for each in parts]
        if sum(len(each or ()) for each in keys) > MAX_KEYS:
            yield Change(label, parts[-1].operation, xid, None)
            continue
        columns = routes.get(label)
        for each, named in zip(parts, keys, strict=True):
            if named is None or columns is None:
                yield Change(label, each.operation, xid, named)
            else:
                told = outbox_page.values(each, columns)
                yield Change(
                    label, each.operation, xid, named if told is not None else None, routes=told
                )


def builder(loader: Loader, alias: str) -> Builder:
    """Return what makes events in a loader's thread."""

    async def build(
        entries: Sequence[OutboxRecord], labels: Collection[str]
    ) -> Sequence[Event | Reset]:
        try:
            return await loader.call(lambda: events_of(entries, labels, connections[alias]))
        except Unreachable as error:
            raise FeedUnavailable(str(error)) from error

    return build
