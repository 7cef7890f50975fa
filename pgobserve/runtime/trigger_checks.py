"""Whether tables have their triggers, checked before a subscription starts and while it lasts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from django.db import connections

from pgobserve.sql.installed import is_observed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from pgobserve.runtime.stages import Options

Result = TypeVar("Result")

#: Seconds for which a feed trusts that a table has its triggers.
INSTALLED_TTL: Final = 60.0


class Call(Protocol):
    """Runs a function in a thread of the feed."""

    async def __call__(self, function: Callable[[], Result]) -> Result:
        """Return the function's result."""


class TriggerChecks:
    """
    Checks tables in the catalog, and remembers for a while which of them have triggers.

    Args:
        options: The feed's options.
        call: Runs a function in a thread of the feed.
    """

    def __init__(self, options: Options, call: Call) -> None:
        self._options = options
        self._call = call
        self._checked: dict[tuple[str, bool], float] = {}
        # Tables found in a database session of their own. The loader's session may not see them.
        self._elsewhere: set[str] = set()

    def forget(self) -> None:
        """Check every table again at its next subscription."""
        self._checked.clear()

    async def pass_for(
        self,
        tables: Sequence[str],
        *,
        outbox: bool = False,
        within: Callable[[], AbstractContextManager[object]] | None = None,
    ) -> bool:
        """
        Return whether all tables have their triggers.

        Args:
            tables: Names of the tables.
            outbox: Whether the triggers must also write to the outbox.
            within: Surrounds the check, with a ``search_path`` of its own.

        Raises:
            FeedUnavailable: The database can't be reached.
        """
        if within is not None:
            self._elsewhere.update(tables)
            return await self._call(lambda: self._check_within(tables, outbox, within))
        now = time.monotonic()
        for table in tables:
            if now - self._checked.get((table, outbox), -INSTALLED_TTL) < INSTALLED_TTL:
                continue
            if not await self._call(lambda table=table: self.check(table, outbox)):  # type: ignore[misc]
                return False
            self._checked[table, outbox] = now
        return True

    def check(self, table: str, outbox: bool = False) -> bool:
        """Query the catalog for the triggers of one table, in a thread."""
        options = self._options
        return is_observed(
            table,
            connections[options.alias],
            namespace=options.namespace,
            outbox=outbox,
            channel=options.channel,
        )

    def is_elsewhere(self, table: str) -> bool:
        """Return whether only a database session of its own may see a table."""
        return table in self._elsewhere

    def _check_within(
        self,
        tables: Sequence[str],
        outbox: bool,
        within: Callable[[], AbstractContextManager[Any]],
    ) -> bool:
        with within():
            return all(self.check(table, outbox) for table in tables)
