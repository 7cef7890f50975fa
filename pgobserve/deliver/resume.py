"""What changed since a token: the part of resuming that only the database can tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import connections

from pgobserve.cohorts.changed import Changed
from pgobserve.hub.send_queue import UNKNOWN, View
from pgobserve.sql.full_query import one_snapshot
from pgobserve.sql.model_tables import tables_of
from pgobserve.sql.relation_path import paths_of
from pgobserve.sql.versions import widened

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from pgobserve.cohorts.cohort import Cohort
    from pgobserve.deliver.tokens import Back
    from pgobserve.hub.send_queue import Outcome
    from pgobserve.hub.snapshot import Snapshot


def changed_since(source: Cohort, key: Hashable, token: Snapshot) -> bool:
    """
    Tell whether a row may have changed since a snapshot; when in doubt, it has.

    Args:
        source: Where the subscription's rows come from.
        key: The row's key.
        token: The client's snapshot; it may come from another server, or from nowhere.
    """
    statement, subject = source.statement, source.subject
    connection = connections[source.alias]
    if not subject.paths and not subject.full_refresh and len(subject.tables) == 1:
        if statement.joins:
            return True  # rows of other tables come with it; what is shown of them is not known
        found = statement.version(key, connection)
        if found is None:
            return True
        version, now = found
        return not _is_from_here(token, now) or widened(version, now) >= token.xmin
    with one_snapshot(connection) as now:
        if not _is_from_here(token, now):
            return True
        _, own = tables_of(statement.model)
        full_refresh = [table for table in subject.full_refresh if table not in own]
        looked = Changed(statement.model, paths_of(subject), full_refresh, [key], now, connection)
        changed = looked.since(token)
        return changed is None or key in changed


def _is_from_here(token: Snapshot, now: Snapshot) -> bool:
    """Tell whether transaction ids mean the same in both; across runs of the server they do not."""
    return token.run == now.run and now.covers(token)


def changes(source: Cohort, keys: Sequence[Hashable], now: Snapshot) -> Changed:
    """Return what of a list's rows is new, to be looked up in the transaction that read them."""
    assert source.listing is not None  # noqa: S101 (a list's source has one)
    shown = source.listing.shown
    full_refresh = [model._meta.db_table for model in shown.full_refresh]
    connection = connections[source.alias]
    return Changed(source.statement.model, shown.paths, full_refresh, keys, now, connection)


class Accounts:
    """
    What clients have who come back to a list, as far as it can be told; looked up for one load.

    Args:
        source: Where the rows come from; a list's.
        changed: What of the rows that the load found is new.
        now: In which they were read; the transaction is still the same.
    """

    def __init__(self, source: Cohort, changed: Changed, now: Snapshot) -> None:
        assert source.listing is not None  # noqa: S101 (a list's source has one)
        self._listing = source.listing
        self._connection = connections[source.alias]
        self._model = source.statement.model
        self._now = now
        self._changed = changed
        # Those who see the same rows mostly have the same as well.
        self._outcomes: object = None
        self._known: dict[tuple[Snapshot, frozenset[Hashable]], Any] = {}

    def of(
        self, back: Back, outcomes: Mapping[Hashable, Outcome], *, judged: bool
    ) -> dict[Hashable, bytes | None] | None:
        """
        Return what a client has, as digests.

        Args:
            back: What he says.
            outcomes: The rows as he may see them now.
            judged: Whether permissions decide of each row if he may see it.

        Returns:
            By key what he has: the digest of today's view, or "not known"; may be shared. None if
            it can't be told.
        """
        listing = self._listing
        if (
            listing.only == "count"
            or back.fingerprint != listing.fingerprint
            or not _is_from_here(back.seen, self._now)
        ):
            return None
        if back.keys is not None:
            return self._remembered(back, frozenset(back.keys), outcomes)
        return None if judged else self._reconstructed(back, outcomes)

    def _remembered(
        self, back: Back, keys: frozenset[Hashable], outcomes: Mapping[Hashable, Outcome]
    ) -> dict[Hashable, bytes | None] | None:
        if outcomes is not self._outcomes:
            self._outcomes, self._known = outcomes, {}
        known = (back.seen, keys)
        if known not in self._known:
            self._known[known] = self._digests(back, keys, outcomes)
        found: dict[Hashable, bytes | None] | None = self._known[known]
        return found

    def _reconstructed(
        self, back: Back, outcomes: Mapping[Hashable, Outcome]
    ) -> dict[Hashable, bytes | None] | None:
        """Return what a client has who does not say which rows."""
        rows, table = self._listing.old_rows, self._model._meta.db_table
        if not rows.decides_alone:
            return None
        entries = self._changed.record.since(back.seen, table)
        past = None if entries is None else rows.past(entries, self._connection)
        if past is None:
            return None
        # What has gone again he may have been told after his token; of what is there he has
        # nothing for sure.
        gone = (past.had | past.passing).difference(outcomes)
        there = past.had.union(set(outcomes) - past.touched).intersection(outcomes)
        return self._digests(back, gone | there, outcomes, touched=past.touched)

    def _digests(
        self,
        back: Back,
        keys: frozenset[Hashable],
        outcomes: Mapping[Hashable, Outcome],
        touched: frozenset[Hashable] = frozenset(),
    ) -> dict[Hashable, bytes | None] | None:
        changed: set[Hashable] = set()
        if self._listing.only != "keys":
            since = self._changed.since(back.seen)
            if since is None:
                return None
            changed = since | touched
        return {key: UNKNOWN if key in changed else _digest(outcomes.get(key)) for key in keys}


def _digest(outcome: Outcome | None) -> bytes | None:
    return outcome.digest or UNKNOWN if isinstance(outcome, View) else UNKNOWN
