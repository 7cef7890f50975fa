"""
The outbox reader of a process: changes for the hub, events for subscriptions.

A NOTIFY says only that there may be something new. The cursor determines what is read; it outlives any
connection, so after an interruption the reader continues where it was.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, suppress
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from django.db import connections

from pgobserve.database.async_connection import Connection, abort, connect, execute
from pgobserve.database.connection_watchdog import Unreachable
from pgobserve.database.server_identity import RUN
from pgobserve.errors import FeedUnavailable
from pgobserve.logs import fields
from pgobserve.outbox import outbox_page
from pgobserve.outbox.cursor import GapReason
from pgobserve.outbox.event import Reset, events_of
from pgobserve.outbox.outbox_pages import (
    LOST,
    READ_TIMEOUT,
    FollowOptions,
    ReaderState,
    Rotation,
    pages,
)
from pgobserve.wire import ALONE, MAX_KEYS, Change
from pgobserve.workers.retrying import Attempts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence

    from pgobserve.hub.snapshot import Snapshot
    from pgobserve.outbox.event import Event
    from pgobserve.outbox.event_subscriptions import EventSubscription, EventSubscriptions
    from pgobserve.outbox.outbox_page import OutboxRecord, Page
    from pgobserve.wire import Namespace

    Routes = Mapping[str, Collection[str]]
    Call = Callable[[Callable[[], list[Event | Reset]]], Awaitable[list[Event | Reset]]]

logger = logging.getLogger(__name__)

NO_ROUTES: Final[Routes] = MappingProxyType({})


@dataclass(kw_only=True, eq=False)
class OutboxReader:
    """
    Reads the outbox, for ever, from the position of the subscriptions to events.

    Attributes:
        parameters: Returns the connection's parameters, as psycopg keywords.
        on_change: Called with each change; must not block.
        on_gap: Called when changes may be missing.
        call: Runs a function in a thread with a database connection.
        poll: Writers send no wake-ups.
        retention: Seconds for which records are kept at least.
        routes: Returns, by label, the columns whose old and new values changes carry; called before
            each read.
        server_run: Returns the run of the server that the listener hears, which must be the one
            read; None if there is no listener.
        live: Set while it can read, and while there is no outbox to read.
    """

    subscriptions: EventSubscriptions
    parameters: Callable[[], Mapping[str, Any]]
    on_change: Callable[[Change], None]
    on_gap: Callable[[], object]
    call: Call
    poll: bool = False
    retention: float = 3600.0
    routes: Callable[[], Routes] = dict
    server_run: Callable[[], int | None] = lambda: None
    namespace: Namespace = ALONE
    alias: str = "default"

    def __post_init__(self) -> None:
        self.state = ReaderState()
        self.live = asyncio.Event()
        self._woken = asyncio.Event()
        self._turned = asyncio.Event()
        self._rotation: Rotation | None = None
        self._connection: Connection | None = None
        self._started: list[EventSubscription] = []
        self._routes: Routes = NO_ROUTES

    def wake(self) -> None:
        """Report that there may be something to read."""
        self._woken.set()

    async def reach(self, snapshot: Snapshot) -> None:
        """
        Return when everything visible in a snapshot has been read.

        Returns at once if nothing is read: there is no outbox, or no wake-up has ever come.
        """
        while (cursor := self.subscriptions.cursor) is not None and not (
            cursor.place is None and cursor.seen.covers(snapshot)
        ):
            self._turned.clear()
            self.wake()
            await self._turned.wait()

    async def run(self, *, at_once: bool = True) -> None:
        """
        Connect, read (``at_once``: before a wake-up), reconnect after any interruption, until cancelled.

        After an error it may be called again, and continues where the subscriptions are.
        """
        # The read that failed may have answered the only wake-up, so another run waits for none.
        if not at_once and self._rotation is None:
            self.live.set()
            await self._woken.wait()
            self.live.clear()
        # Made anew, because the old one may be what failed.
        self._rotation = Rotation(self.retention, self.namespace, alias=self.alias)
        async for _ in Attempts():
            try:
                await self._read_until_lost(self._rotation)
            except LOST as error:
                self.state.lost(error, self.alias)

    def abandon(self) -> None:
        """Cut the connection, because the event loop was closed; may be called in any thread."""
        if self._connection is not None:
            abort(self._connection)

    async def _read_until_lost(self, rotation: Rotation) -> None:
        connection = await connect(self.parameters(), READ_TIMEOUT)
        self._connection = connection
        if self.poll:
            # A proxy may give each transaction another session.
            connection.prepare_threshold = None
        self.subscriptions.progress.go_back()
        follow = FollowOptions(
            namespace=self.namespace,
            wanted=self._wanted,
            wait=self._rest,
            poll=self.poll,
            on_start=self.on_gap,  # subscribed rows may have changed before the present
            rotation=rotation,
        )
        try:
            run = None if self.poll else await self._run_of(connection)
            self._check_server(run)
            async with aclosing(pages(connection, self.subscriptions.progress, follow)) as found:
                async for page in found:
                    self._check_server(run)
                    if page is not None:
                        await self._handle(page)
                    self._turned.set()
                    self.state.read(self.alias)
                    self.live.set()
        finally:
            self.live.clear()
            abort(connection)
            await connection.close()

    async def _run_of(self, connection: Connection) -> int:
        row = await (await execute(connection, f"SELECT {RUN}", within=READ_TIMEOUT)).fetchone()
        assert row is not None  # noqa: S101 (a SELECT without FROM)
        return int(row[0])

    def _check_server(self, run: int | None) -> None:
        if run != (self.server_run() or run):
            raise FeedUnavailable("it is another server than the one listened to")

    def _wanted(self) -> dict[str, Any]:
        self._started, self._routes = self.subscriptions.start(), self.routes()
        return {"images": self._labels.union(self._routes)}

    @property
    def _labels(self) -> frozenset[str]:
        return frozenset().union(*(each.labels for each in self._started))

    async def _handle(self, page: Page) -> None:
        self.state.reads += 1
        self.state.entries += len(page.entries)
        self._publish(page)
        if self._started:
            events = await self._events(page, self._labels)
            await self.subscriptions.deliver(self._started, events)
        self.subscriptions.progress.note(page.cursor, page.status, page.transactions)

    def _publish(self, page: Page) -> None:
        if page.gap is not None:
            self.state.resets += 1
            logger.warning(
                "Changes may be missing in the outbox of database %r (%s); everything watched is "
                "read again.",
                *(self.alias, page.gap),
                extra=fields(alias=self.alias),
            )
            self.on_gap()
        for change in changes_of(page.entries, self._routes):
            self.on_change(change)

    async def _events(self, page: Page, labels: frozenset[str]) -> Sequence[Event | Reset]:
        if page.gap is not None:
            return [Reset(None, page.gap)]
        knows, alias = self.subscriptions.progress.knows, self.alias
        entries = [
            entry
            for entry in page.entries
            if entry.label in labels and not knows(entry.last, entry.xid)
        ]
        if not entries:
            return []
        try:
            return await self.call(lambda: events_of(entries, labels, connections[alias]))
        except (FeedUnavailable, Unreachable):
            raise
        except Exception:
            # The next attempt would fail, too. Subscribers must learn that events are missing.
            names = ", ".join(sorted(labels))
            logger.exception(
                "Making events of %s failed from transaction %d on, in the outbox of database %r; "
                "subscribers to these events receive a reset.",
                *(names, entries[0].xid, alias),
                extra=fields(model=names, alias=alias, transaction=entries[0].xid),
            )
            return [Reset(None, GapReason.UNREADABLE)]

    async def _rest(self, delay: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._woken.wait()
        # Before the read, not after it: a wake-up that comes during the read needs another one.
        self._woken.clear()


def changes_of(entries: Sequence[OutboxRecord], routes: Routes = NO_ROUTES) -> Iterator[Change]:
    """
    Yield the changes that records of whole transactions hold, for the hub.

    A change of more than ``MAX_KEYS`` rows of a table names no keys: any row may have changed. So does a
    change of a table with ``routes``, columns whose values it carries, if its records lack images.
    """
    for (xid, label), records in groupby(entries, lambda entry: (entry.xid, entry.label)):
        parts = list(records)
        keys_of = [None if each.keys is None else outbox_page.keys(each.keys) for each in parts]
        if sum(len(each or ()) for each in keys_of) > MAX_KEYS:
            yield Change(label, parts[-1].operation, xid, None)
            continue
        columns = routes.get(label)
        for each, named in zip(parts, keys_of, strict=True):
            if named is None or columns is None:
                yield Change(label, each.operation, xid, named)
            else:
                values = outbox_page.values(each, columns)
                yield Change(
                    label, each.operation, xid, named if values is not None else None, routes=values
                )
