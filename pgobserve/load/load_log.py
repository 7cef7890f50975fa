"""The loader's log: what could not be read, and when the database answers again."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgobserve.logs import fields
from pgobserve.sql.model_tables import title_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgobserve.database.connection_watchdog import Unreachable
    from pgobserve.hub.hub import Hub, ReverseLookup
    from pgobserve.hub.load_requests import ListLoadRequest, LoadRequest
    from pgobserve.hub.subscriptions import Subscription
    from pgobserve.read.row_reader import RowReader

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class LoaderState:
    """
    Counters of the loader.

    Attributes:
        batches: Loads that succeeded.
        rows: Rows that they read.
        failures: Consecutive loads that did not reach the database; they are repeated.
    """

    batches: int = 0
    rows: int = 0
    failures: int = 0


@dataclass(slots=True, eq=False)
class LoadLog:
    """
    Logs and counts the loads of one database.

    Args:
        reader: Names the consumers and models of subscriptions.
    """

    _alias: str
    _hub: Hub
    _reader: RowReader
    state: LoaderState = field(default_factory=LoaderState)
    _failing_since: float = 0.0

    def loaded(self, count: int) -> None:
        """Count a load that read a number of rows."""
        state = self.state
        state.batches += 1
        state.rows += count
        if state.failures:
            logger.warning(
                "Database %r answers again after %.1f s and %d attempts; %d rows were read, and %d "
                "rows and lists are waiting.",
                *(self._alias, time.monotonic() - self._failing_since, state.failures),
                *(count, self._hub.dirty),
                extra=fields(alias=self._alias),
            )
            state.failures = 0

    def unreachable(self, error: Unreachable) -> None:
        """Count a load that did not reach the database."""
        self.state.failures += 1
        if self.state.failures == 1:
            self._failing_since = time.monotonic()
            logger.warning(
                "Reading from database %r failed: %s. Its %d subscriptions keep their last state. "
                "The loader retries.",
                *(self._alias, error, len(self._hub)),
                extra=fields(alias=self._alias),
            )

    def row_failed(self, request: LoadRequest, error: Exception) -> None:
        """Log that a row can't be read."""
        consumer, model = self._names(request.watches)
        logger.error(
            "Reading %s %s for %s failed in database %r; its %d subscribers receive an error.",
            *(model, request.key, consumer, self._alias, len(request.watches)),
            exc_info=error,
            extra=fields(consumer=consumer, model=model, key=request.key, alias=self._alias),
        )

    def locked(self, model: str, error: Exception) -> None:
        """Log that a table is locked."""
        logger.warning(
            "Reading %s waits for a lock in database %r: %s. It is tried again, apart from other tables.",
            *(model, self._alias, error),
            extra=fields(model=model, alias=self._alias),
        )

    def task_failed(self, error: BaseException) -> None:
        """Log the end of an additional task."""
        logger.error(
            "A load of database %r failed; its rows are read again.",
            self._alias,
            exc_info=error,
            extra=fields(alias=self._alias),
        )

    def list_failed(self, request: ListLoadRequest, error: Exception) -> None:
        """Log that a list can't be read."""
        consumer, model = self._names((*request.watches, *request.newcomers))
        logger.error(
            "Reading the list of %s (%s) failed in database %r; its %d subscribers and %d new "
            "ones receive an error. The loader retries while the list has subscribers.",
            *(consumer, model, self._alias, len(request.watches), len(request.newcomers)),
            exc_info=error,
            extra=fields(consumer=consumer, model=model, alias=self._alias),
        )

    def lists_failed(self, count: int, error: Exception) -> None:
        """Log that several lists can't be read together."""
        logger.debug(
            "Reading %d lists of database %r together failed; each is read alone.",
            *(count, self._alias),
            exc_info=error,
            extra=fields(alias=self._alias),
        )

    def lookup_failed(self, lookup: ReverseLookup, error: Exception) -> None:
        """Log that a reverse look-up failed."""
        model = title_of(lookup.subject.tables[0])
        logger.error(
            "Resolving changes of %s to rows of %s failed in database %r; all rows of it that "
            "have subscribers are read.",
            *(title_of(lookup.path.table), model, self._alias),
            exc_info=error,
            extra=fields(model=model, alias=self._alias),
        )

    def _names(self, subscriptions: Sequence[Subscription]) -> tuple[str, str]:
        """Return the consumers of subscriptions, and their model."""
        owners = dict.fromkeys(self._reader.owner(each).__qualname__ for each in subscriptions)
        return ", ".join(owners), self._reader.label(subscriptions[0]) if subscriptions else "?"
