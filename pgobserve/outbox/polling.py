"""
When to read the outbox again, and when to empty what is old of it.
"""

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

#: Seconds to the next look after one that found something: two writers at a time send the wake-up,
#: and those who did not commit a moment later.
SETTLE: Final = 0.02

#: Seconds after which there is always a look.
FALLBACK: Final = 1.0

#: The same where nobody sends a wake-up.
POLL: Final = 0.05

#: Answers of ``outbox_rotate`` after which there is something to do at once.
GO_ON: Final = ("emptied", "advanced", "quiet")


class PollingSchedule:
    """
    How long to wait for a wake-up.

    It is short after something came, and doubles with each look that finds nothing: a transaction
    that was open then may have left the wake-up to another one.

    Args:
        poll: Nobody sends a wake-up.

    Attributes:
        delay: Seconds.
    """

    def __init__(self, *, poll: bool = False) -> None:
        self._most = POLL if poll else FALLBACK
        self.delay = SETTLE

    def note(self, entries: int, *, full: bool) -> None:
        """Note what a look found; while nothing is written each is a reset, so they are rare."""
        if full:
            self.delay = FALLBACK
        elif entries:
            self.delay = SETTLE
        else:
            self.delay = min(self._most, self.delay * 2)


class Rotation:
    """
    Empties what is old, from time to time; of many processes one does it.

    Args:
        retention: Seconds that rows are kept at least.
        namespace: Whose outbox.
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
        """Do what is due."""
        if self._due is None or self._clock() < self._due:
            return
        try:
            answer = await execute(
                connection, self._query, [self._retention], within=self._every + 30
            )
            row = await answer.fetchone()
        except psycopg.errors.InsufficientPrivilege:
            # Another role has it run: by a command, or in a process of its own.
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
