"""
A list read as a whole: in one snapshot, once for everybody who sees the same.

Runs in a thread of the feed's loader.
"""

from __future__ import annotations

import logging
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from psycopg.pq import TransactionStatus

from pgobserve import conf
from pgobserve.cohorts.row_permissions import check, is_unjudged
from pgobserve.cohorts.subscription_context import context_of
from pgobserve.database.connection_watchdog import is_lost, reconnect
from pgobserve.hub.list_state import ListRow
from pgobserve.hub.load_requests import ListLoadResult, LoadRequest, LoadResult
from pgobserve.hub.outcome import ABSENT, Refusal, View
from pgobserve.load.holdings import Holdings
from pgobserve.load.row_load import Load
from pgobserve.logs import fields
from pgobserve.render.rendering import encode
from pgobserve.render.row_names import name_of
from pgobserve.sql.full_query import one_snapshot
from pgobserve.workers.occupation import contained

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from django.db.models import Model

    from pgobserve.cohorts.cohort import Cohort, ListDefinition
    from pgobserve.hub.list_subscription import ListSubscription, Subscription
    from pgobserve.hub.load_requests import ListLoadRequest
    from pgobserve.hub.outcome import Outcome
    from pgobserve.hub.snapshot import Snapshot

logger = logging.getLogger(__name__)

#: Nobody sees the row otherwise than others.
NOBODY: Final[Mapping[Subscription, Outcome]] = MappingProxyType({})


class Aborted(Exception):
    """A query of a serializer failed, and with it the transaction that it was in."""


class ListLoad(Load):
    """
    One load of a list.

    Args:
        alias: The database alias.
        whole: The list, and for whom.

    Attributes:
        source: Where its rows come from.
        listing: How it is read as a whole.
    """

    def __init__(self, alias: str, whole: ListLoadRequest) -> None:
        super().__init__(alias, ())
        self._whole = whole
        source: Cohort = whole.roster.identity  # type: ignore[assignment]
        assert source.listing is not None  # noqa: S101 (a list's source has one)
        self.source = self._current = source
        self.listing: ListDefinition = source.listing
        self._listeners: list[Subscription] = []
        self._listed: list[LoadResult] = []
        self._refusal: Refusal | None = None
        self._unjudged = False

    def run_whole(self) -> ListLoadResult:
        """Read, render and check all rows."""
        self.prepare()
        with self.source.prepared(self._connection) as current:
            assert current.listing is not None  # noqa: S101 (a list's source has one)
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
                contained(error)
                if not is_lost(self._connection):
                    raise
                # By a serializer, or by itself. If the database is there, it is the serializer's.
                reconnect(self._connection)
                self._read_rendered(inside=False)
        return self.checked()

    def _about_list(self) -> dict[str, object]:
        owners = dict.fromkeys(
            context_of(watch).consumer_class.__qualname__ for watch in self._listeners
        )
        model, alias = self.source.statement.model, self._connection.alias
        return fields(consumer=", ".join(owners), model=model, alias=alias)

    def prepare(self) -> None:
        """Find out for whom it is."""
        job = LoadRequest(ListRow(self._whole.roster, None), self._whole.watches)
        watches: list[Subscription] = [
            watch for group in self._group(job).values() for watch in group
        ]
        watches += self._whole.newcomers
        # Who waits for it has just had his queryset compiled; looked at once more, one that looks
        # at the clock would never be the same.
        self._guarded = self._guarded or any(not context_of(w).guard.allows_all for w in watches)
        self._listeners = watches

    def checked(self) -> ListLoadResult:
        """Return what was rendered, after the permissions were asked."""
        found = self._listed
        if self._guarded:
            check(found)
        holdings = Holdings(None if self.listing.named_by else self.source.statement.model)
        assert self._snapshot is not None  # noqa: S101 (it is rendered)
        return ListLoadResult(
            self._whole,
            self._snapshot,
            found,
            self._refusal,
            has={watch: holdings.of(have) for watch, have in self._returning()},
            moved=self._moved,
            failed=self._unjudged or bool(self._failed),
            skipped=self._failed,
        )

    def _read_rendered(self, *, inside: bool = True) -> None:
        watches, whole, limit = self._listeners, self.listing.whole, self._limit()
        rows: Mapping[Hashable, Model] = {}
        with one_snapshot(self._connection) as snapshot:
            if self._counts_by_query(watches):
                self._snapshot = snapshot
                number = self._current.context.run(whole.count, self._connection)
                self._listed = [self._counted(watches, lambda _: number)]
                return
            most = None if limit is None else limit + 1
            rows = self._current.context.run(whole.read, self._connection, most)
            if inside:
                self.render(snapshot, rows)
                self.raise_if_aborted()
        if not inside:
            self.render(snapshot, rows)

    def render(self, snapshot: Snapshot, rows: Mapping[Hashable, Model]) -> None:
        """Render all rows, unless there are too many."""
        self._snapshot, most = snapshot, conf.get().MAX_LIST_ROWS
        if len(rows) > most:
            self._refusal = too_many(most)
        if len(rows) <= most or self._limit() is None:
            self._listed = self._render_all(rows, self._listeners)

    def _limit(self) -> int | None:
        """Return how many rows are of use; who has the list already keeps it, however long it is."""
        whole = self._whole
        if whole.watches or any(watch.on_started is None for watch in whole.newcomers):
            return None
        return conf.get().MAX_LIST_ROWS

    def _counts_by_query(self, watches: list[Subscription]) -> bool:
        return (
            self.listing.only == "count"
            and self.listing.whole.counts_in_sql
            and not self._current.renderer.leaves_out
            and not any(context_of(watch).guard.checks_objects for watch in watches)
        )

    def _counted(
        self, watches: list[Subscription], count: Callable[[Subscription], int]
    ) -> LoadResult:
        job = LoadRequest(ListRow(self._whole.roster, None), tuple(watches))
        assert self._snapshot is not None  # noqa: S101
        special = {watch: View.of(encode({"count": count(watch)})) for watch in watches[1:]}
        outcome = View.of(encode({"count": count(watches[0])})) if watches else ABSENT
        special = {watch: view for watch, view in special.items() if view != outcome}
        return LoadResult(job, self._snapshot, outcome, special, moved=self._moved)

    def _render_all(
        self, rows: Mapping[Hashable, Model], watches: list[Subscription]
    ) -> list[LoadResult]:
        if self.listing.only != "count":
            return self._render_each(rows, watches)
        if not self._current.renderer.leaves_out:
            return [self._counted(watches, lambda watch: self._permitted(rows, watch))]
        found = self._render_each(rows, watches)
        return [self._counted(watches, lambda watch: sum(_is_shown(it, watch) for it in found))]

    def _render_each(
        self, rows: Mapping[Hashable, Model], watches: list[Subscription]
    ) -> list[LoadResult]:
        assert self._snapshot is not None  # noqa: S101 (render sets it)
        audience, roster, found = tuple(watches), self._whole.roster, []
        named_by = self.listing.named_by
        for key, instance in rows.items():
            job = LoadRequest(ListRow(roster, key), audience)
            seeing, unseen = self._judged(job, instance, watches)
            shared: Outcome = ABSENT
            special: dict[Subscription, Outcome] = {}
            if seeing:
                shared, special, _ = self._render(self._current, key, instance, seeing)
            special.update(unseen)
            self._unjudged = self._unjudged or is_unjudged(unseen)
            found.append(
                LoadResult(
                    job,
                    self._snapshot,
                    shared,
                    special if special or self._guarded else NOBODY,
                    moved=self._moved,
                    name=None if named_by is None else name_of(instance, named_by),
                )
            )
        return found

    def _permitted(self, rows: Mapping[Hashable, Model], watch: Subscription) -> int:
        if not context_of(watch).guard.checks_objects:
            return len(rows)
        roster, audience = self._whole.roster, (watch,)
        seen = 0
        for key, row in rows.items():
            seeing, unseen = self._judged(LoadRequest(ListRow(roster, key), audience), row, [watch])
            seen += len(seeing)
            self._unjudged = self._unjudged or is_unjudged(unseen)
        return seen

    def _returning(self) -> list[tuple[ListSubscription, Mapping[str, str]]]:
        """Return the subscriptions whose clients come back, and what they say that they hold."""
        if self._refusal is not None:
            return []
        return [(each, each.have) for each in self._whole.newcomers if each.have is not None]

    def raise_if_aborted(self) -> None:
        """Raise if the transaction can't go on; what was read after that is not what it seems."""
        raw: Any = self._connection.connection
        # A serializer may have closed it, too.
        if raw is None or raw.closed or raw.info.transaction_status == TransactionStatus.INERROR:
            raise Aborted


def _is_shown(item: LoadResult, watch: Subscription) -> bool:
    """Tell whether a subscription sees a row; one that can't be shown is not counted."""
    outcome = item.special.get(watch, item.outcome)
    return isinstance(outcome, View) and outcome.body is not None


def too_many(limit: int) -> Refusal:
    """Return the answer to who wants a list of too many rows."""
    sentence = (
        f"The list has more than {limit} rows, which is the most that PGOBSERVE['MAX_LIST_ROWS'] "
        'allows. Filter it by "query", or ask for "only": "count".'
    )
    return Refusal(413, (sentence,))
