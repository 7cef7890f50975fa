"""
One load of a list: read all rows in one snapshot, render, check permissions.

Runs in a loader thread.
"""

from __future__ import annotations

import logging
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from psycopg.pq import TransactionStatus

from pgobserve import conf
from pgobserve.cohorts.row_permissions import check, is_unjudged
from pgobserve.cohorts.subscription_context import context_of
from pgobserve.database.connection_watchdog import is_lost, is_of_a_row, reconnect
from pgobserve.database.session import savepoint
from pgobserve.hub.identity import digest_from
from pgobserve.hub.list_state import ListRow
from pgobserve.hub.load_requests import ListLoadResult, LoadRequest, LoadResult
from pgobserve.hub.outcome import ABSENT, UNREAD, Refusal, View
from pgobserve.logs import fields
from pgobserve.read.base_load import MAX_UNREADABLE, Load, log_unreadable
from pgobserve.render.rendering import encode, name_of
from pgobserve.sql.full_query import one_snapshot
from pgobserve.workers.occupation import contained

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from django.db.models import Model

    from pgobserve.cohorts.cohort import Cohort, ListDefinition
    from pgobserve.hub.load_requests import ListLoadRequest
    from pgobserve.hub.outcome import Outcome
    from pgobserve.hub.snapshot import Snapshot
    from pgobserve.hub.subscriptions import ListSubscription, Shown, Subscription

logger = logging.getLogger(__name__)

#: Of a row that all subscriptions see alike.
NO_SPECIAL: Final[Mapping[Subscription, Outcome]] = MappingProxyType({})


class Aborted(Exception):
    """A serializer's query failed, and with it the transaction of the load."""


class ListLoad(Load):
    """
    The state of one load of a list.

    Attributes:
        listing: How its rows are read.
    """

    def __init__(self, alias: str, request: ListLoadRequest) -> None:
        super().__init__(alias)
        self._request = request
        cohort: Cohort = request.roster.identity  # type: ignore[assignment]
        assert cohort.listing is not None  # noqa: S101 (a list's cohort has one)
        self.cohort = self._current = cohort
        self.listing: ListDefinition = cohort.listing
        self._subscriptions: list[Subscription] = []
        self._results: list[LoadResult] = []
        self._refusal: Refusal | None = None
        self._unjudged = False
        self._unreadable: list[Hashable] = []

    def run_whole(self) -> ListLoadResult:
        """Read, render and check all rows."""
        self.prepare()
        with self.cohort.prepared(self._connection) as current:
            assert current.listing is not None  # noqa: S101 (a list's cohort has one)
            self.listing, self._current = current.listing, current
            try:
                self._read_rendered()
            except Aborted:
                about = self._about_list()
                logger.warning(
                    "A query of a serializer failed while the list of %s (%s) was read from database "
                    "%r. The list is read again, without one snapshot for all of its queries.",
                    *(about["consumer"], about["model"], about["alias"]),
                    extra=about,
                )
                self._read_rendered(inside=False)
            except BaseException as error:
                failed = contained(error)
                if is_lost(self._connection):
                    # A serializer has closed the connection, unless the database is away.
                    reconnect(self._connection)
                    self._read_rendered(inside=False)
                elif is_of_a_row(failed):
                    self._read_rendered(apart=True)
                else:
                    raise
        return self.checked()

    def _about_list(self) -> dict[str, object]:
        model, alias = self.cohort.statement.model, self._connection.alias
        return fields(consumer=", ".join(self._consumers()), model=model, alias=alias)

    def _consumers(self) -> dict[str, None]:
        return dict.fromkeys(
            context_of(each).consumer_class.__qualname__ for each in self._subscriptions
        )

    def prepare(self) -> None:
        """Find the subscriptions that belong to the list now."""
        groups = self._group(self._request_for(None, self._request.watches)).values()
        # The hooks of newcomers have just run. A queryset that reads the clock would differ each time.
        self._subscriptions = [*(each for group in groups for each in group)]
        self._subscriptions += self._request.newcomers
        if any(not context_of(each).guard.allows_all for each in self._subscriptions):
            self._renderer.guarded = True

    def checked(self) -> ListLoadResult:
        """Check the permissions of what was rendered, and return it."""
        if self._renderer.guarded:
            check(self._results)
        assert self._snapshot is not None  # noqa: S101 (it is rendered)
        return ListLoadResult(
            self._request,
            self._snapshot,
            self._results,
            self._refusal,
            has=self._held(),
            moved=self._moved,
            failed=self._unjudged or bool(self._failed),
            skipped=self._failed,
        )

    def _held(self) -> dict[ListSubscription, Shown]:
        """Return the claims of newcomers that hold some rows already."""
        if self._refusal is not None:
            return {}
        holdings = Holdings()
        newcomers = self._request.newcomers
        return {each: holdings.of(each.have) for each in newcomers if each.have is not None}

    def _read_rendered(self, *, inside: bool = True, apart: bool = False) -> None:
        """Read and render; ``inside`` the transaction, or after it; ``apart`` from unreadable rows."""
        whole, limit = self.listing.whole, self._limit()
        with one_snapshot(self._connection) as snapshot:
            if self._counts_by_query():
                self._snapshot = snapshot
                number = self._current.context.run(whole.count, self._connection)
                self._results = [self._count(lambda _: number)]
                return
            most = None if limit is None else limit + 1
            if apart:
                rows = self._current.context.run(self._read_apart)
            else:
                rows = self._current.context.run(whole.read, self._connection, most)
            if inside:
                self.render(snapshot, rows)
                self.raise_if_aborted()
        if not inside:
            self.render(snapshot, rows)

    def _read_apart(self) -> dict[Hashable, Model]:
        """Read the rows by halves until those are found that can't be read."""
        keys = self.listing.whole.keys(self._connection)
        parts = [keys] if keys else []
        found: dict[Hashable, Model] = {}
        while parts:
            part = parts.pop()
            try:
                with savepoint(self._connection):
                    found |= self._current.statement.fetch(part, self._connection)[1]
            except BaseException as error:
                failed = contained(error)
                if not is_of_a_row(failed) or len(self._unreadable) >= MAX_UNREADABLE:
                    raise
                half = len(part) // 2
                if half:
                    parts += [part[half:], part[:half]]
                    continue
                self._unreadable += part
                model, alias = self.cohort.statement.model, self._connection.alias
                log_unreadable(model, part, self._consumers(), alias, failed)
        return {key: found[key] for key in keys if key in found}

    def render(self, snapshot: Snapshot, rows: Mapping[Hashable, Model]) -> None:
        """Render all rows, unless there are too many."""
        self._snapshot, most = snapshot, conf.get().MAX_LIST_ROWS
        if len(rows) > most:
            self._refusal = too_many(most)
            if self._limit() is not None:
                return
        if self.listing.only != "count":
            self._results = self._render_each(rows)
        elif self._current.renderer.leaves_out:
            results = self._render_each(rows)
            self._results = [
                self._count(lambda each: sum(_is_shown(result, each) for result in results))
            ]
        else:
            self._results = [self._count(lambda each: self._count_permitted(rows, each))]

    def _limit(self) -> int | None:
        """Return how many rows are of use; subscribers of the list keep it, however long it is."""
        if self._request.watches or any(
            each.on_started is None for each in self._request.newcomers
        ):
            return None
        return conf.get().MAX_LIST_ROWS

    def _counts_by_query(self) -> bool:
        return (
            self.listing.only == "count"
            and self.listing.whole.counts_in_sql
            and not self._current.renderer.leaves_out
            and not any(context_of(each).guard.checks_objects for each in self._subscriptions)
        )

    def _count(self, number_for: Callable[[Subscription], int]) -> LoadResult:
        """Return the number of rows, which may differ between subscriptions."""
        assert self._snapshot is not None  # noqa: S101
        views = {each: View.of(encode({"count": number_for(each)})) for each in self._subscriptions}
        outcome = next(iter(views.values()), ABSENT)
        special = {each: view for each, view in views.items() if view != outcome}
        request = self._request_for(None, tuple(self._subscriptions))
        return LoadResult(request, self._snapshot, outcome, special, moved=self._moved)

    def _count_permitted(self, rows: Mapping[Hashable, Model], subscription: Subscription) -> int:
        if not context_of(subscription).guard.checks_objects:
            return len(rows)
        number = 0
        for key, row in rows.items():
            request = self._request_for(key, (subscription,))
            seeing, unseen = self._renderer.permitted(request, row, [subscription])
            number += len(seeing)
            self._unjudged = self._unjudged or is_unjudged(unseen)
        return number

    def _render_each(self, rows: Mapping[Hashable, Model]) -> list[LoadResult]:
        assert self._snapshot is not None  # noqa: S101 (render sets it)
        audience, results = tuple(self._subscriptions), []
        named_by = self.listing.named_by
        for key, instance in rows.items():
            request = self._request_for(key, audience)
            _, unseen, shared, special = self._renderer.render(
                self._current, request, instance, self._subscriptions
            )
            if unseen:
                special.update(unseen)
                self._unjudged = self._unjudged or is_unjudged(unseen)
            results.append(
                LoadResult(
                    request,
                    self._snapshot,
                    shared,
                    special if special or self._renderer.guarded else NO_SPECIAL,
                    moved=self._moved,
                    name=None if named_by is None else name_of(instance, named_by),
                )
            )
        # Their permissions could not be checked.
        outcome = UNREAD if self._renderer.guarded else self._current.renderer.failed
        for key in self._unreadable:
            request = self._request_for(key, audience)
            results.append(LoadResult(request, self._snapshot, outcome, moved=self._moved))
        return results

    def _request_for(self, key: Hashable, subscriptions: tuple[Subscription, ...]) -> LoadRequest:
        return LoadRequest(ListRow(self._request.roster, key), subscriptions)

    def raise_if_aborted(self) -> None:
        """Raise if the transaction was aborted or closed: later reads are not of its snapshot."""
        raw: Any = self._connection.connection
        if raw is None or raw.closed or raw.info.transaction_status == TransactionStatus.INERROR:
            raise Aborted


def _is_shown(result: LoadResult, subscription: Subscription) -> bool:
    """Return whether a subscription sees a row; a row that can't be shown is not counted."""
    outcome = result.special.get(subscription, result.outcome)
    return isinstance(outcome, View) and outcome.body is not None


def too_many(limit: int) -> Refusal:
    """Return the refusal of a list that has too many rows."""
    sentence = (
        f"The list has more than {limit} rows, which is the most that PGOBSERVE['MAX_LIST_ROWS'] "
        'allows. Filter it by "query", or subscribe with "only": "count".'
    )
    return Refusal(413, (sentence,))


class Holdings:
    """
    Reads the claims of several clients of one list.

    It does not matter whether a row is on the list: the answer must not show a client whether a row that it
    claims is hidden or does not exist.
    """

    def __init__(self) -> None:
        # Clients that return together mostly hold the same rows.
        self._last: tuple[Mapping[str, str], Shown] | None = None

    def of(self, have: Mapping[str, str]) -> Shown:
        """
        Return digests by key, in the client's order; the same object for equal claims in a row.

        Args:
            have: Etags by the text of keys.
        """
        if self._last is None or self._last[0] != have:
            self._last = have, {key: digest_from(etag) for key, etag in have.items()}
        return self._last[1]
