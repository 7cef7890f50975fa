"""When the outbox is read again, and when its old partitions are emptied."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import psycopg

from pgobserve.database.async_connection import execute
from pgobserve.database.connection_watchdog import Unreachable
from pgobserve.errors import FeedUnavailable
from pgobserve.logs import fields
from pgobserve.outbox import outbox_page, outbox_trust
from pgobserve.outbox.cursor import Cursor
from pgobserve.outbox.outbox_page import qualified
from pgobserve.wire import ALONE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from pgobserve.database.async_connection import Connection
    from pgobserve.outbox.cursor import Progress
    from pgobserve.outbox.outbox_page import Page
    from pgobserve.wire import Namespace

logger = logging.getLogger(__name__)

#: Seconds to the next read after one with records: only two writers at a time send the wake-up, and
#: others may commit a moment later.
SETTLE: Final = 0.02

#: The most seconds between two reads.
FALLBACK: Final = 1.0

#: The same if writers send no wake-ups.
POLL: Final = 0.05

#: Results of ``outbox_rotate`` after which it is called again at once.
GO_ON: Final = ("emptied", "advanced", "quiet")

#: Seconds that the server has for one page.
READ_TIMEOUT: Final = 30.0

#: Errors after which a follower connects again.
LOST: Final = (psycopg.Error, OSError, FeedUnavailable, Unreachable)


def next_delay(delay: float, entries: int, *, full: bool, poll: bool = False) -> float:
    """
    Return the longest wait for a wake-up after a read, in seconds, given the last one.

    It is short after a read with records, and doubles with each read without: a transaction that was
    open at the read may have left the wake-up to another one. With ``poll`` writers send none. While
    the outbox is full each read is a gap, so reads are rare then.
    """
    if full:
        return FALLBACK
    return SETTLE if entries else min(POLL if poll else FALLBACK, delay * 2)


class Rotation:
    """Empties old partitions from time to time; among several processes, one does."""

    def __init__(
        self,
        retention: float,
        namespace: Namespace = ALONE,
        clock: Callable[[], float] = time.monotonic,
        *,
        alias: str = "default",
    ) -> None:
        self._alias = alias
        self._query = qualified("SELECT {schema}.outbox_rotate(%s)", namespace)
        self._retention = retention
        self._every = max(1.0, retention / 8)
        self._clock = clock
        self._due: float | None = clock()

    async def turn(self, connection: Connection) -> None:
        """Rotate if it is due."""
        if self._due is None or self._clock() < self._due:
            return
        try:
            answer = await execute(
                connection, self._query, [self._retention], within=self._every + 30
            )
            row = await answer.fetchone()
        except psycopg.errors.InsufficientPrivilege:
            # Another role runs it: from a command, or in another process.
            logger.info(
                "The outbox of database %r is not rotated by this process: its role may not run "
                "outbox_rotate.",
                self._alias,
                extra=fields(alias=self._alias),
            )
            self._due = None
            return
        except (psycopg.errors.UndefinedFunction, psycopg.errors.InvalidSchemaName):
            row = None
        done = row[0] if row else None
        self._due = self._clock() + (0 if done in GO_ON else self._every)


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowOptions:
    """
    How the outbox is followed.

    Attributes:
        wanted: Returns keywords for :func:`outbox_page.parameters`; called before each read.
        wait: Waits for a wake-up, for at most so many seconds.
        poll: Writers send no wake-ups.
        on_start: Called when reading starts at the present.
        gaps: Whether missing records are reported.
        timeout: Seconds that the server has for one page.
    """

    namespace: Namespace
    wanted: Callable[[], Mapping[str, Any]]
    wait: Callable[[float], Awaitable[object]]
    poll: bool = False
    on_start: Callable[[], object] = lambda: None
    rotation: Rotation | None = None
    gaps: bool = True
    timeout: float = READ_TIMEOUT


async def pages(
    connection: Connection, progress: Progress, options: FollowOptions
) -> AsyncGenerator[Page | None, None]:
    """
    Yield the pages after a cursor over one connection; None at each look while there is no outbox.

    Only this iterator may read over the connection. Reading starts at the present if ``progress`` has no
    cursor. Each read goes on from it, so it must be moved when a page has been handled.

    Raises:
        FeedUnavailable: The outbox must not be read; or the server is silent.
        psycopg.Error: The connection is lost.
    """
    delay, trusted = SETTLE, False
    while True:
        page = None
        try:
            if not trusted:
                await outbox_trust.check(connection, options.namespace, options.timeout)
                trusted = True
            if progress.cursor is None:
                progress.start(await _present(connection, options))
                options.on_start()
            page = await _read(connection, progress, options)
        except psycopg.errors.UndefinedTable:
            # Nothing has the outbox as its transport. Any role may create the schema next.
            trusted = False
        full, entries = page is None or page.status.full, len(page.entries) if page else 0
        delay = next_delay(delay, entries, full=full, poll=options.poll)
        yield page
        if options.rotation is not None and trusted:
            await options.rotation.turn(connection)
        if page is None or not page.more:
            await options.wait(delay)


async def _present(connection: Connection, options: FollowOptions) -> Cursor:
    query = qualified(outbox_page.STATUS, options.namespace)
    row = await (await execute(connection, query, within=options.timeout)).fetchone()
    assert row is not None  # noqa: S101 (sequences and the state have one row)
    await execute(connection, outbox_page.FLUSH, within=options.timeout)
    return Cursor(outbox_page.status_of(row).now)


async def _read(connection: Connection, progress: Progress, options: FollowOptions) -> Page:
    cursor = progress.cursor
    assert cursor is not None  # noqa: S101 (the iterator has set it)
    query = qualified(outbox_page.QUERY, options.namespace)
    wanted = outbox_page.parameters(cursor, **options.wanted())
    answer = await execute(connection, query, wanted, within=options.timeout)
    return outbox_page.page(await answer.fetchall(), cursor, whole=options.gaps)


@dataclass(slots=True)
class ReaderState:
    """
    The state of a reader of the outbox.

    Attributes:
        live: Whether it can read.
        since: When ``live`` changed, in seconds since the epoch.
        reads: Queries so far.
        entries: Records read so far: one per statement, more for large statements.
        resets: How often changes may have been missed, so that everything was read again.
        error: Why it is not live.
    """

    live: bool = False
    since: float = field(default_factory=time.time)
    reads: int = 0
    entries: int = 0
    resets: int = 0
    error: str | None = None

    def read(self, alias: str) -> None:
        """Note that the outbox can be read."""
        if not self.live:
            if self.error is not None:
                logger.warning(
                    "The outbox of database %r is read again after %.1f s, from where the reader was.",
                    *(alias, time.time() - self.since),
                    extra=fields(alias=alias),
                )
            self.live, self.since, self.error = True, time.time(), None

    def lost(self, error: BaseException, alias: str) -> None:
        """Note that the connection is lost, or could not be made."""
        reason = str(error).strip() or type(error).__name__
        if self.live or self.error is None:
            logger.warning(
                "Reading the outbox of database %r failed: %s. The reader retries until it succeeds.",
                *(alias, reason),
                extra=fields(alias=alias),
            )
            self.since = time.time()
        self.live, self.error = False, reason
