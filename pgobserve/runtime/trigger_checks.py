"""Whether tables have their triggers, checked before a subscription starts and while it lasts."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from django.db import connections

from pgobserve.logs import fields
from pgobserve.sql.installed import triggers_of
from pgobserve.sql.model_tables import title_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from contextlib import AbstractContextManager

    from pgobserve.runtime.stages import Options

logger = logging.getLogger(__name__)
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
        call: Runs a function in a thread of the feed.
        on_replaced: Called if a table's triggers are others than at the last check. Returns a text for
            the log.
    """

    def __init__(self, options: Options, call: Call, on_replaced: Callable[[], str]) -> None:
        self._options = options
        self._call = call
        self._on_replaced = on_replaced
        self._triggers: dict[str, frozenset[str]] = {}
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
            if not await self.check(table, outbox):
                return False
            self._checked[table, outbox] = now
        return True

    async def check(self, table: str, outbox: bool = False) -> bool:
        """
        Query the catalog for the triggers of one table.

        Other triggers than before mean that the table had none for a while: it was replaced by another
        table, or its triggers were disabled. What changed meanwhile was not published.
        """
        found = await self._call(lambda: self._read(table, outbox))
        before = self._triggers.get(table, found)
        if found:
            self._triggers[table] = found
        if found and found != before:
            model = title_of(table)
            logger.warning(
                "Table %s (%s) in database %r was replaced, or lacked its triggers for a while; %s.",
                *(table, model, self._options.alias, self._on_replaced()),
                extra=fields(model=model, alias=self._options.alias),
            )
        return bool(found)

    def _read(self, table: str, outbox: bool) -> frozenset[str]:
        options = self._options
        return triggers_of(
            table,
            connections[options.alias],
            namespace=options.namespace,
            outbox=outbox,
            channel=options.channel,
        )

    def exempt(self, tables: Collection[str]) -> None:
        """Trust tables without triggers of their own: views, in whose place others are watched."""
        self._elsewhere.update(tables)

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
            return all(self._read(table, outbox) for table in tables)
