"""When the outbox is read again, and when its old partitions are emptied."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

import psycopg

from pgobserve.database.async_connection import execute
from pgobserve.logs import fields
from pgobserve.outbox.outbox_page import qualified
from pgobserve.wire import ALONE

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgobserve.database.async_connection import Connection
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


class PollingSchedule:
    """
    The longest wait for a wake-up.

    It is short after a read with records, and doubles with each read without: a transaction that was
    open at the read may have left the wake-up to another one.

    Args:
        poll: Writers send no wake-ups.

    Attributes:
        delay: Seconds.
    """

    def __init__(self, *, poll: bool = False) -> None:
        self._most = POLL if poll else FALLBACK
        self.delay = SETTLE

    def note(self, entries: int, *, full: bool) -> None:
        """Note a read; while the outbox is full each is a gap, so reads are rare then."""
        if full:
            self.delay = FALLBACK
        elif entries:
            self.delay = SETTLE
        else:
            self.delay = min(self._most, self.delay * 2)


class Rotation:
    """
    Empties old partitions from time to time; among several processes, one does.

    Args:
        retention: Seconds for which records are kept at least.
        clock: Monotonic seconds.
        alias: The database alias, for the log.
    """

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
