"""
Reads for a loader: rows, lists and reverse look-ups of one database alias.

A load of rows queries each cohort once, renders, and checks permissions. Where a queryset, serializer or
permission raises for a subscription, its subscriber receives an error; the others are served.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, cast

from django.db import InterfaceError, OperationalError, connections

from pgobserve.cohorts.row_permissions import check, is_unjudged
from pgobserve.cohorts.subscription_context import context_of
from pgobserve.database.connection_watchdog import is_locked, is_lost, is_of_a_row
from pgobserve.database.session import isolate
from pgobserve.hub.hub import RowState
from pgobserve.hub.load_requests import NEVER, LoadResult
from pgobserve.hub.outcome import ABSENT, UNREAD, View
from pgobserve.logs import fields
from pgobserve.read.base_load import MAX_UNREADABLE, Load, log_unreadable
from pgobserve.read.list_batch import load_lists
from pgobserve.render.rendering import VersionRenderer, name_of
from pgobserve.sql.key_sql import written_keys
from pgobserve.sql.keyed_query import fetch_many
from pgobserve.sql.reverse_lookup import resolve
from pgobserve.workers.occupation import contained

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from django.db.models import Model

    from pgobserve.cohorts.cohort import Cohort
    from pgobserve.cohorts.cohort_renderer import Rendered
    from pgobserve.database.server_identity import ServerCheck
    from pgobserve.hub.hub import ReverseLookup
    from pgobserve.hub.load_requests import ListLoadRequest, ListLoadResult, LoadRequest
    from pgobserve.hub.outcome import Outcome
    from pgobserve.hub.subscriptions import Subscription
    from pgobserve.read.base_load import Groups
    from pgobserve.sql.relation_path import RelationPath

    #: Keys to read for each cohort.
    Wanted = dict[Cohort, list[Hashable]]
    #: Cohorts that one statement reads, with their keys.
    Part = list[tuple[Cohort, list[Hashable]]]

logger = logging.getLogger(__name__)

#: Cohorts that one statement reads for at most; the server plans a branch for each.
MAX_COHORTS_PER_QUERY: Final = 200

#: Keys that a reverse look-up names at most. Beyond it, the loader reads all watched rows.
MAX_RESOLVED: Final = 10_000


class RowReader:
    """
    Reads through the ORM and renders with the consumers' serializers, in the loader's threads.

    Args:
        server: Refuses what comes from another server than the one that LISTEN has reached.
    """

    def __init__(self, alias: str, server: ServerCheck) -> None:
        self._alias = alias
        self._server = server

    def load(self, requests: Sequence[LoadRequest]) -> Sequence[LoadResult]:
        """Read and render a batch of rows."""
        self._server.compare()
        results = RowLoad(self._alias, requests).run()
        self._server.check([result.snapshot.run for result in results[:1]])
        return results

    def load_lists(self, requests: Sequence[ListLoadRequest]) -> Sequence[ListLoadResult | None]:
        """Read and render lists in one snapshot. None stands for a list that must be read alone."""
        self._server.compare()
        results = load_lists(self._alias, requests)
        self._server.check([whole.snapshot.run for whole in results if whole is not None])
        return results

    def resolve(self, lookup: ReverseLookup) -> Sequence[Hashable] | None:
        """Return the keys of the rows that changes concern. None stands for too many to name."""
        self._server.compare()
        return resolve(
            *(cast("RelationPath", lookup.path), lookup.values, connections[self._alias]),
            among=lookup.among,
            limit=MAX_RESOLVED,
        )

    def owner(self, subscription: Subscription) -> type:
        """Return the class whose hooks a subscription runs. Called in the event loop."""
        return context_of(subscription).consumer_class

    def label(self, subscription: Subscription) -> str:
        """Return the label of the model that a subscription shows, for the log."""
        return context_of(subscription).visibility.source.statement.model._meta.label


class RowLoad(Load):
    """The state of one load of rows."""

    def __init__(self, alias: str, requests: Sequence[LoadRequest]) -> None:
        super().__init__(alias)
        self._requests = requests
        # For each request, its subscriptions by cohort; without those whose cohort is not known.
        self._groups: list[Groups] = []
        self._rows: dict[tuple[Cohort, Hashable], Model] = {}
        # Keys that no row can have, and keys of rows that were found by another text.
        self._unclear: dict[type[Model], set[Hashable]] = defaultdict(set)
        # By model and key, how PostgreSQL writes the keys that clients wrote in another way.
        self._written: dict[tuple[type[Model], Hashable], Any] = {}
        # Cohorts that hooks chose when they ran again in their database session.
        self._instead: dict[Cohort, Cohort] = {}
        # Keys that could not be read: the error, and the consumers concerned.
        self._failures: dict[
            tuple[type[Model], Sequence[Hashable]], tuple[Exception, set[str]]
        ] = {}
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
        for (model, unreadable), (error, consumers) in self._failures.items():
            log_unreadable(model, unreadable, consumers, self._connection.alias, error)
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
            for cohort, keys in wanted.items():
                self._renderer.broken.update(dict.fromkeys(((cohort, key) for key in keys), True))

    def _read(self, wanted: Wanted) -> None:
        """Query the rows of cohorts."""
        self._occupation.leave()
        parts = _parts(wanted)
        while parts:
            part = parts.pop()
            # Prefetches call managers, and some values depend on the active time zone.
            first = part[0][0]
            context = self._instead.get(first, first).context
            queries = [(self._instead.get(each, each).statement, keys) for each, keys in part]
            try:
                read = self._renderer.here(context).run(fetch_many, queries, self._connection)
            except BaseException as error:
                failed = contained(error)
                lost = isinstance(failed, OperationalError | InterfaceError)
                if lost and is_lost(self._connection):
                    raise
                if is_locked(failed):
                    raise  # each part of it would wait as long
                parts += self._smaller(part, failed)
            else:
                # The first snapshot is the oldest: what is visible in it is visible in each.
                self._snapshot = self._snapshot or read.snapshot
                for (cohort, _), rows in zip(part, read.instances, strict=True):
                    self._rows.update({(cohort, key): row for key, row in rows.items()})
                    if unclear := read.unknown | (rows.keys() - wanted[cohort]):
                        self._unclear[cohort.statement.model] |= unclear
            # The statement may have changed the session, which the next one must not notice.
            isolate(self._connection)
        self._look_up_missing(wanted)

    def _look_up_missing(self, wanted: Wanted) -> None:
        """Find how PostgreSQL writes the keys of rows that were not found by the texts of clients."""
        missing: dict[type[Model], dict[Hashable, None]] = defaultdict(dict)
        for request, groups in zip(self._requests, self._groups, strict=True):
            cohorts = [cohort for cohort in groups if cohort in wanted]
            if cohorts and isinstance(request.row, RowState) and not self._found(request, cohorts):
                model = cohorts[0].statement.model
                if request.row.snapshot is None or self._unclear[model]:
                    missing[model][request.key] = None
        for model, keys in missing.items():
            written = written_keys(model, [*keys], self._connection)
            self._written.update({(model, key): text for key, text in written.items()})

    def _found(self, request: LoadRequest, cohorts: Iterable[Cohort]) -> bool:
        return any((cohort, request.key) in self._rows for cohort in cohorts)

    def _smaller(self, part: Part, error: Exception) -> list[Part]:
        """Return the parts in which to read a part again that failed; none for what can't be read."""
        if len(part) > 1:
            # One of them fails, or they can't share a statement.
            return [[each] for each in part]
        ((cohort, keys),) = part
        if len(keys) > 1 and is_of_a_row(error) and len(self._renderer.broken) < MAX_UNREADABLE:
            half = len(keys) // 2
            return [[(cohort, keys[half:])], [(cohort, keys[:half])]]
        self._query_failed(cohort, keys, error)
        return []

    def _query_failed(self, cohort: Cohort, keys: Sequence[Hashable], error: Exception) -> None:
        # Only a change of the row makes its value readable, and a notification follows it.
        again = len(keys) > 1 or not is_of_a_row(error)
        self._renderer.broken.update(dict.fromkeys(((cohort, key) for key in keys), again))
        failures = self._failures.setdefault((cohort.statement.model, tuple(keys)), (error, set()))
        failures[1].update(
            context_of(each).consumer_class.__qualname__
            for request, groups in zip(self._requests, self._groups, strict=True)
            if request.key in keys
            for each in groups.get(cohort, ())
        )

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
        broken = self._renderer.broken
        again = bool(broken) and any(broken.get((each, request.key)) for each in rendered)
        failed = unjudged or again
        result = LoadResult(request, snapshot, default, outcomes, failed, self._moved, name)
        if (self._unclear or self._written) and not self._found(request, rendered):
            models = {cohort.statement.model for cohort in rendered}
            result.unclear = any(self._unclear[model] for model in models)
            for model in models:
                written = self._written.get((model, request.key), request.key)
                result.written = None if written == request.key else written
        return result


def _parts(wanted: Wanted) -> list[Part]:
    """Return the cohorts that one statement each can read, with their keys."""
    by_shape: dict[Any, Part] = defaultdict(list)
    for cohort, keys in wanted.items():
        by_shape[cohort.statement.shape, cohort.context.key].append((cohort, keys))
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
