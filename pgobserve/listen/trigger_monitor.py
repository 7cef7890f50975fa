"""
Checks that watched tables keep their triggers.

A subscription starts only on a table that has triggers. If they are dropped or disabled later, the feed
cannot distinguish that from a quiet table. The monitor therefore checks the catalog periodically. It logs a
table that has lost its triggers, and has everything read again once they are back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from django.db import Error

from pgobserve.database.connection_watchdog import Unreachable
from pgobserve.errors import FeedUnavailable
from pgobserve.logs import fields
from pgobserve.sql.model_tables import title_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

logger = logging.getLogger(__name__)

#: Seconds between two checks.
PERIOD: Final = 60.0


class TriggerMonitor:
    """
    Checks the triggers of watched tables.

    Args:
        tables: Returns the watched tables.
        is_observed: Returns whether a table has its triggers.
        on_return: Called when a table has its triggers again. Returns a text for the log.
    """

    def __init__(
        self,
        tables: Callable[[], Collection[str]],
        is_observed: Callable[[str], Awaitable[bool]],
        on_return: Callable[[], object],
        period: float = PERIOD,
        *,
        alias: str = "default",
    ) -> None:
        self._since: dict[str, float] = {}
        self._alias = alias
        self._tables = tables
        self._is_observed = is_observed
        self._on_return = on_return
        self._period = period

    @property
    def missing(self) -> set[str]:
        """Watched tables that had no triggers at the last check."""
        return set(self._since)

    async def run(self) -> None:
        """Check periodically; ends only by cancellation."""
        while True:
            await asyncio.sleep(self._period)
            try:
                await self.check()
            except (FeedUnavailable, Unreachable, Error) as error:
                logger.debug(
                    "Whether tables of database %r have their triggers can't be determined now: %s",
                    *(self._alias, error),
                    extra=fields(alias=self._alias),
                )

    async def check(self) -> None:
        """
        Check all watched tables once.

        Raises:
            Unreachable: The database can't be reached.
        """
        watched = set(self._tables())
        for table in self.missing - watched:
            del self._since[table]
        for table in sorted(watched):
            if await self._is_observed(table):
                self._found(table)
            elif table not in self._since:
                self._since[table] = time.monotonic()
                model = title_of(table)
                logger.warning(
                    "Table %s (%s) in database %r has subscribers and has lost its triggers, or they "
                    "are disabled: its changes are not seen. Run manage.py pgobserve install.",
                    *(table, model, self._alias),
                    extra=fields(model=model, alias=self._alias),
                )

    def _found(self, table: str) -> None:
        if (since := self._since.pop(table, None)) is not None:
            model, again = title_of(table), self._on_return()
            logger.warning(
                "Table %s (%s) in database %r has its triggers again after %.0f s; %s.",
                *(table, model, self._alias, time.monotonic() - since),
                again or "everything watched is read again",
                extra=fields(model=model, alias=self._alias),
            )
