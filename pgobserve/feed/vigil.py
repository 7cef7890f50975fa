"""
Whether watched tables keep their triggers.

A subscription begins only on a table that has them. Dropped or disabled later, they fall silent, and
silence looks like a quiet table. So the tables are looked at from time to time: it is said when
triggers are missing, and when they are back everything is read again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from django.db import Error

from pgobserve.feed.upkeep import Unreachable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

logger = logging.getLogger(__name__)

#: Seconds between two looks.
PERIOD: Final = 60.0


class Vigil:
    """
    Looks at the tables that somebody watches.

    Args:
        tables: Returns them.
        is_observed: Tells whether a table has its triggers.
        on_return: Called when a table has them again.
        period: Seconds between two looks.

    Attributes:
        missing: Watched tables without their triggers, at the last look.
    """

    def __init__(
        self,
        tables: Callable[[], Collection[str]],
        is_observed: Callable[[str], Awaitable[bool]],
        on_return: Callable[[], object],
        period: float = PERIOD,
    ) -> None:
        self.missing: set[str] = set()
        self._tables = tables
        self._is_observed = is_observed
        self._on_return = on_return
        self._period = period

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(self._period)
            try:
                await self.look()
            except (Unreachable, Error) as error:
                logger.debug("The triggers can't be looked at for now: %s", error)

    async def look(self) -> None:
        """
        Look once.

        Raises:
            Unreachable: The database can't be reached.
        """
        watched = set(self._tables())
        self.missing &= watched
        for table in sorted(watched):
            if await self._is_observed(table):
                self._found(table)
            elif table not in self.missing:
                self.missing.add(table)
                logger.warning(
                    "Table %s is watched and has lost its triggers, or they are disabled: its "
                    "changes are not seen. Run manage.py pgobserve install.",
                    table,
                )

    def _found(self, table: str) -> None:
        if table in self.missing:
            self.missing.discard(table)
            logger.info("Table %s has its triggers again; what is watched is read again.", table)
            self._on_return()
