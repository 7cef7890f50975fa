"""
One load of rows: query each cohort once, render, check permissions.

Runs in a loader thread. Where a queryset, serializer or permission raises for a subscription, its
subscriber receives an error; the others are served.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from django.db import InterfaceError, OperationalError, connections

from pgobserve.cohorts.cohort_renderer import CohortRenderer
from pgobserve.cohorts.row_permissions import check, is_unjudged
from pgobserve.cohorts.subscription_context import context_of
from pgobserve.database.connection_watchdog import Unreachable, attempt, is_lost
from pgobserve.database.session import isolate
from pgobserve.hub.hub import RowState
from pgobserve.hub.list_state import ListRow
from pgobserve.hub.load_requests import NEVER, LoadResult
from pgobserve.hub.outcome import ABSENT, UNREAD, View
from pgobserve.logs import fields
from pgobserve.render.rendering import VersionRenderer
from pgobserve.render.row_names import name_of
from pgobserve.sql.keyed_query import fetch_many
from pgobserve.workers.occupation import contained, occupation

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from django.db.models import Model

    from pgobserve.cohorts.cohort import Cohort
    from pgobserve.cohorts.cohort_renderer import Rendered
    from pgobserve.hub.hub import TableDependencies
    from pgobserve.hub.list_subscription import Subscription
    from pgobserve.hub.load_requests import LoadRequest
    from pgobserve.hub.outcome import Outcome, Refusal
    from pgobserve.hub.snapshot import Snapshot

    #: Keys to read for each cohort.
    Wanted = dict[Cohort, list[Hashable]]

    #: Subscriptions of a row by cohort.
    Groups = dict[Cohort, list[Subscription]]

logger = logging.getLogger(__name__)

#: Cohorts that one statement reads for at most; the server plans a branch for each.
MAX_COHORTS_PER_QUERY: Final = 200


class Load:
    """
    The state of one load.

    Args:
        alias: The database alias.
        requests: The rows to read, and their subscriptions.
    """

    def __init__(self, alias: str, requests: Sequence[LoadRequest]) -> None:
        self._connection = connections[alias]
        self._occupation = occupation()
        self._requests = requests
        self._renderer = CohortRenderer(self._connection)
        # For each request, its subscriptions by cohort; without those whose cohort is not known.
        self._groups: list[Groups] = []
        self._failed: dict[Subscription, Refusal] = {}
        # Subscriptions that belong to another list by now, and its tables and identity.
        self._moved: dict[Subscription, tuple[TableDependencies, Hashable]] = {}
        self._rows: dict[tuple[Cohort, Hashable], Model] = {}
        self._snapshot: Snapshot | None = None
        # Cohorts that hooks chose when they ran again in their database session.
        self._instead: dict[Cohort, Cohort] = {}
        # Rendered in the database session in which it was read.
        self._prepared: dict[tuple[Cohort, int], Rendered] = {}

    def run(self) -> list[LoadResult]:
        """Read, render and check; return one result for each request."""
        wanted = self._plan()
        by_session: dict[Hashable, Wanted] = {None: {}}
        for cohort, keys in wanted.items():
            by_session.setdefault(cohort.session, {})[cohort] = list(keys)
        self._renderer.shares = len(wanted) > 1 or any(
            len(keys) < len(self._requests) for keys in wanted.values()
        )
        for session, some in by_session.items():
            if session is None:
                self._read(some)
            else:
                self._read_in_session(some)
        results = []
        for request, groups in zip(self._requests, self._groups, strict=True):
            rendered = {
                cohort: self._prepared.get((cohort, id(request)))
                or self._renderer.render(
                    *(cohort, request, self._rows.get((cohort, request.key)), subscriptions)
                )
                for cohort, subscriptions in groups.items()
            }
            results.append(self._result(request, rendered))
        if self._renderer.guarded:
            check(results)
        return results

    def _plan(self) -> dict[Cohort, dict[Hashable, None]]:
        """Group the subscriptions by what they may see now; return the keys of each cohort."""
        wanted: dict[Cohort, dict[Hashable, None]] = defaultdict(dict)
        by_audience: dict[int, Groups] = {}
        for request in self._requests:
            # Many rows of a list are read for the same audience.
            groups = by_audience.get(id(request.watches))
            if groups is None:
                groups = by_audience[id(request.watches)] = self._group(request)
            for cohort in groups:
                wanted[cohort][request.key] = None
            self._groups.append(groups)
        return wanted

    def _group(self, request: LoadRequest) -> Groups:
        """Return the subscriptions of a row by cohort."""
        groups: Groups = {}
        of_list = request.row.roster.identity if isinstance(request.row, ListRow) else None
        for each in request.watches:
            context = context_of(each)
            cohort = context.visibility.kept() or self._rebuilt(each)
            if cohort is None:
                continue
            if of_list is not None and cohort is not of_list:
                self._moved[each] = (context.subject(cohort), cohort)
                continue
            if not context.guard.allows_all:
                self._renderer.guarded = True
            if cohort in groups:
                groups[cohort].append(each)
            else:
                groups[cohort] = [each]
        return groups

    def _rebuilt(self, subscription: Subscription) -> Cohort | None:
        """Run a subscription's hooks and return its cohort; None if they fail."""
        context = context_of(subscription)
        owner = context.consumer_class
        self._occupation.enter(owner, "get_queryset", (subscription,))
        try:
            cohort = attempt(context.visibility.now, self._connection)
        except Unreachable:
            raise
        except BaseException as error:
            logger.exception(
                "The queryset of %s failed in database %r; its subscriber receives an error.",
                *(owner.__qualname__, self._connection.alias),
                exc_info=contained(error),
                extra=fields(consumer=owner, alias=self._connection.alias),
            )
            self._failed[subscription] = UNREAD
            return None
        finally:
            self._occupation.leave()
        return cohort

    def _read_in_session(self, wanted: Wanted) -> None:
        """Query cohorts that share a database session, and render their rows in it."""
        first = next(iter(wanted))
        try:
            with first.prepared(self._connection) as current:
                if current is not first:
                    self._instead[first] = current
                self._read(wanted)
                for request, groups in zip(self._requests, self._groups, strict=True):
                    for cohort, subscriptions in groups.items():
                        if cohort in wanted:
                            self._prepared[cohort, id(request)] = self._renderer.render(
                                *(cohort, request, self._rows.get((cohort, request.key))),
                                subscriptions,
                            )
        except (OperationalError, InterfaceError):
            raise
        except Exception:
            model, alias = first.statement.model, self._connection.alias
            logger.exception(
                "Preparing the session of database %r for rows of %s failed; their subscribers receive "
                "an error.",
                *(alias, model._meta.label),
                extra=fields(model=model, alias=alias),
            )
            self._renderer.broken.update(wanted)

    def _read(self, wanted: Wanted) -> None:
        """Query the rows of cohorts."""
        self._occupation.leave()
        parts = _parts(wanted)
        while parts:
            part = parts.pop()
            # Prefetches call managers, and some values depend on the active time zone.
            context = self._instead.get(part[0], part[0]).context
            queries = [(self._instead.get(each, each).statement, wanted[each]) for each in part]
            try:
                snapshot, answers = self._renderer.here(context).run(
                    fetch_many, queries, self._connection
                )
            except BaseException as error:
                failed = contained(error)
                lost = isinstance(failed, OperationalError | InterfaceError)
                if lost and is_lost(self._connection):
                    raise
                if len(part) > 1:
                    # One of them fails, or they can't share a statement.
                    parts += [[each] for each in part]
                else:
                    self._query_failed(part[0], failed)
            else:
                # The first snapshot is the oldest: what is visible in it is visible in each.
                self._snapshot = self._snapshot or snapshot
                for cohort, rows in zip(part, answers, strict=True):
                    self._rows.update({(cohort, key): row for key, row in rows.items()})
            # The statement may have changed the session, which the next one must not notice.
            isolate(self._connection)

    def _query_failed(self, cohort: Cohort, error: Exception) -> None:
        model, alias = cohort.statement.model, self._connection.alias
        logger.error(
            "The query for rows of %s failed in database %r; their subscribers receive an error.",
            *(model._meta.label, alias),
            exc_info=error,
            extra=fields(model=model, alias=alias),
        )
        self._renderer.broken.add(cohort)

    def _result(self, request: LoadRequest, rendered: dict[Cohort, Rendered]) -> LoadResult:
        """Combine what the cohorts of a row see."""
        outcomes: dict[Subscription, Outcome] = {}
        if self._failed:
            outcomes = {each: UNREAD for each in request.watches if each in self._failed}
        default: Outcome = ABSENT
        unjudged, name = False, None
        for number, (cohort, (subscriptions, unseen, shared, special)) in enumerate(
            rendered.items()
        ):
            if cohort.listing is not None and cohort.listing.named_by is not None:
                instance = self._rows.get((cohort, request.key))
                name = None if instance is None else name_of(instance, cohort.listing.named_by)
            if unseen:
                unjudged = unjudged or is_unjudged(unseen)
                outcomes.update(unseen)
            if isinstance(cohort.renderer, VersionRenderer) and isinstance(shared, View):
                shared = _in_version(shared, request)
            if number == 0:
                default = shared
            elif shared is not default:
                outcomes.update(dict.fromkeys(subscriptions, shared))
            outcomes.update(special)
        # Without any query, the errors need a snapshot as well.
        snapshot = self._snapshot or NEVER
        failed = unjudged or not self._renderer.broken.isdisjoint(rendered)
        return LoadResult(request, snapshot, default, outcomes, failed, self._moved, name)


def _parts(wanted: Wanted) -> list[list[Cohort]]:
    """Return the cohorts that one statement each can read."""
    by_shape: dict[Any, list[Cohort]] = defaultdict(list)
    for cohort in wanted:
        by_shape[cohort.statement.shape, cohort.context.key].append(cohort)
    return [
        cohorts[start : start + MAX_COHORTS_PER_QUERY]
        for cohorts in by_shape.values()
        for start in range(0, len(cohorts), MAX_COHORTS_PER_QUERY)
    ]


def _in_version(view: View, request: LoadRequest) -> View:
    """Return a view that differs after each change of other tables that concern the row."""
    row = request.row
    if (
        view.body is None
        or not isinstance(row, RowState)
        or not (row.touched and row.subject.paths)
    ):
        return view
    return View(view.body, view.digest + b" %d" % row.touched)
