"""
One load: read what changed, once for everybody who sees the same, and render it.

Runs in a thread of the feed's loader. A user whose queryset, serializer or permission raises gets
an answer that says so; the others are served.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from django.db import InterfaceError, OperationalError, connections

from pgobserve import conf
from pgobserve.cohorts.row_permissions import check, hidden, is_unjudged
from pgobserve.cohorts.subscription_context import context_of
from pgobserve.database.connection_watchdog import (
    Unreachable,
    attempt,
    is_lost,
    renew,
)
from pgobserve.database.session import isolate
from pgobserve.hub.hub import RowState
from pgobserve.hub.list_state import ListRow
from pgobserve.hub.load_requests import NEVER, TOO_LARGE, LoadResult
from pgobserve.hub.outcome import ABSENT, UNREAD, View
from pgobserve.logs import fields
from pgobserve.render.copies import copied
from pgobserve.render.rendering import PresenceRenderer, RenderingFailed
from pgobserve.render.row_names import name_of
from pgobserve.sql.keyed_query import fetch_many
from pgobserve.workers.occupation import contained, occupation

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence
    from contextvars import Context

    from django.db.models import Model

    from pgobserve.cohorts.cohort import Cohort
    from pgobserve.cohorts.hook_context import HookContext
    from pgobserve.cohorts.visibility import Visibility
    from pgobserve.hub.hub import TableDependencies
    from pgobserve.hub.list_subscription import Subscription
    from pgobserve.hub.load_requests import LoadRequest
    from pgobserve.hub.outcome import Outcome, Refusal
    from pgobserve.hub.snapshot import Snapshot

logger = logging.getLogger(__name__)

#: Sources that one statement answers for at most; planning it costs time for each.
UNION: Final = 200

_NOT_SHOWN: Final = (
    "Serializing %s %s for %s failed in database %r; its subscribers receive an error."
)
_TOO_LARGE: Final = (
    "%s %s of %s in database %r takes %d bytes as JSON, too many for a frame; its subscribers receive an error. "
    "Serialize less of it, or raise PGOBSERVE['MAX_FRAME_BYTES'] as far as the server can send."
)

#: Row and source, where the source has it.
Rows = dict[tuple["Cohort", "Hashable"], "Model"]

#: Subscriptions that may see a row, what the others have of it, what all of the former share, and what
#: some of them see otherwise.
Shown = tuple[
    list["Subscription"],
    dict["Subscription", "Outcome"],
    "Outcome",
    dict["Subscription", "Outcome"],
]


class Load:
    """
    The state of one load.

    Args:
        alias: The database alias.
        jobs: The rows to read and who watches them.
    """

    def __init__(self, alias: str, jobs: Sequence[LoadRequest]) -> None:
        self._connection = connections[alias]
        self._at = occupation()
        self._longest = conf.longest_row()
        self._jobs = jobs
        # For each job, the subscriptions by what they may see; and those that can't be told.
        self._groups: list[dict[Cohort, list[Subscription]]] = []
        self._failed: dict[Subscription, Refusal] = {}
        # Those who see another list by now than the one that a row is read for.
        self._moved: dict[Subscription, tuple[TableDependencies, Hashable]] = {}
        self._guarded = False
        # Another source depends on an instance after it was rendered.
        self._spared = False
        self._rows: Rows = {}
        # What is made of an instance serves all sources that share both it and the renderer.
        self._rendered_once: dict[tuple[Any, int], Outcome] = {}
        self._snapshot: Snapshot | None = None
        # What hooks chose instead of a source, when they had to run again.
        self._instead: dict[Cohort, Cohort] = {}
        # What was rendered where it was read, because of the database session.
        self._prepared: dict[tuple[Cohort, int], Shown] = {}
        # Contexts that were entered in this thread, by what they are copies of.
        self._contexts: dict[HookContext, Context] = {}

    def run(self) -> list[LoadResult]:
        """Read, render and check; one result for each job."""
        wanted = self._plan()
        self._spared = len(wanted) > 1
        broken = self._read_all(wanted)
        found = [
            self._found(job, groups, broken)
            for job, groups in zip(self._jobs, self._groups, strict=True)
        ]
        if self._guarded:
            check(found)
        return found

    def _plan(self) -> dict[Cohort, list[Hashable]]:
        """Ask each subscription what it may see now."""
        wanted: dict[Cohort, dict[Hashable, None]] = defaultdict(dict)
        of_audience: dict[int, dict[Cohort, list[Subscription]]] = {}
        for job in self._jobs:
            # Many rows of a list are read for the same audience.
            groups = of_audience.get(id(job.watches))
            if groups is None:
                groups = of_audience[id(job.watches)] = self._group(job)
            for source in groups:
                wanted[source][job.key] = None
            self._groups.append(groups)
        return {source: list(keys) for source, keys in wanted.items()}

    def _group(self, job: LoadRequest) -> dict[Cohort, list[Subscription]]:
        """Return who watches a row, by what he may see now."""
        groups: dict[Cohort, list[Subscription]] = {}
        listed = job.row.roster.identity if isinstance(job.row, ListRow) else None
        for watch in job.watches:
            context = context_of(watch)
            source = self._source_of(watch)
            if source is None:
                continue
            if listed is not None and source is not listed:
                self._moved[watch] = (context.subject(source), source)
                continue
            if not context.guard.allows_all:
                self._guarded = True
            if source in groups:
                groups[source].append(watch)
            else:
                groups[source] = [watch]
        return groups

    def _source_of(self, watch: Subscription) -> Cohort | None:
        visibility = context_of(watch).visibility
        owner = type(visibility.consumer)
        self._at.enter(owner, "get_queryset", (watch,))
        try:
            source: Cohort = attempt(visibility.now, self._connection)
        except Unreachable:
            raise
        except BaseException as error:
            logger.exception(
                "The queryset of %s failed in database %r; its subscriber receives an error.",
                *(owner.__qualname__, self._connection.alias),
                exc_info=contained(error),
                extra=fields(consumer=owner, alias=self._connection.alias),
            )
            self._failed[watch] = UNREAD
            return None
        return source

    def _read_all(self, wanted: dict[Cohort, list[Hashable]]) -> set[Cohort]:
        """Run the queries, and render what must be in the same database session."""
        by_session: dict[Hashable, dict[Cohort, list[Hashable]]] = defaultdict(dict)
        for source, keys in wanted.items():
            by_session[source.session][source] = keys
        broken = self._read(by_session.pop(None, {}))
        for some in by_session.values():
            broken |= self._read_prepared(some)
        if self._snapshot is None:
            # Nobody could be read for, but the answers to them need a snapshot as well.
            self._snapshot = NEVER
        return broken

    def _read_prepared(self, wanted: dict[Cohort, list[Hashable]]) -> set[Cohort]:
        """Run the queries of sources with one database session in it, and render there."""
        first = next(iter(wanted))
        try:
            with first.prepared(self._connection) as current:
                if current is not first:
                    self._instead[first] = current
                broken = self._read(wanted)
                for job, groups in zip(self._jobs, self._groups, strict=True):
                    for source, watches in groups.items():
                        if source in wanted:
                            shown = self._shown(source, job, watches, broken)
                            self._prepared[source, id(job)] = shown
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
            return set(wanted)
        return broken

    def _read(self, wanted: dict[Cohort, list[Hashable]]) -> set[Cohort]:
        """Run the queries; return the sources whose query fails."""
        self._at.leave()
        broken: set[Cohort] = set()
        by_shape: dict[Any, list[Cohort]] = defaultdict(list)
        for source in wanted:
            by_shape[source.statement.shape, source.context.key].append(source)
        for sources in by_shape.values():
            for part in _chunks(sources, UNION):
                # Prefetches are made by managers, and values for the active time zone.
                context = self._instead.get(part[0], part[0]).context
                broken |= self._here(context).run(
                    self._read_part, [(source, wanted[source]) for source in part]
                )
                # What the statement itself set, the next one must not be read with.
                isolate(self._connection)
        return broken

    def _read_part(self, part: list[tuple[Cohort, list[Hashable]]]) -> set[Cohort]:
        try:
            snapshot, answers = fetch_many(
                [(self._instead.get(source, source).statement, keys) for source, keys in part],
                self._connection,
            )
        except BaseException as error:
            failed = contained(error)
            if isinstance(failed, OperationalError | InterfaceError) and is_lost(self._connection):
                raise
            if len(part) > 1:
                # Some of them can't be answered together, or one can't at all.
                return set().union(*(self._read_part([single]) for single in part))
            model, alias = part[0][0].statement.model, self._connection.alias
            logger.exception(
                "The query for rows of %s failed in database %r; their subscribers receive an error.",
                *(model._meta.label, alias),
                exc_info=failed,
                extra=fields(model=model, alias=alias),
            )
            return {part[0][0]}
        # The oldest of all: what is visible in it is visible in each.
        self._snapshot = self._snapshot or snapshot
        for (source, _), rows in zip(part, answers, strict=True):
            self._rows.update({(source, key): row for key, row in rows.items()})
        return set()

    def _found(
        self, job: LoadRequest, groups: dict[Cohort, list[Subscription]], broken: set[Cohort]
    ) -> LoadResult:
        """Render a row for all who watch it."""
        outcomes: dict[Subscription, Outcome] = {}
        if self._failed:
            outcomes = {watch: UNREAD for watch in job.watches if watch in self._failed}
        default: Outcome = ABSENT
        unjudged, name = False, None
        for number, (source, audience) in enumerate(groups.items()):
            if source.listing is not None and source.listing.named_by is not None:
                name = self._name(source, job.key, source.listing.named_by)
            prepared = self._prepared and self._prepared.get((source, id(job)))
            watches, unseen, shared, special = prepared or self._shown(
                source, job, audience, broken
            )
            if unseen:
                unjudged = unjudged or is_unjudged(unseen)
                outcomes.update(unseen)
            if isinstance(source.renderer, PresenceRenderer) and isinstance(shared, View):
                shared = _in_version(shared, job)
            if number == 0:
                default = shared
            elif shared is not default:
                outcomes.update(dict.fromkeys(watches, shared))
            outcomes.update(special)
        assert self._snapshot is not None  # noqa: S101 (_read sets it)
        failed = unjudged or not broken.isdisjoint(groups)
        return LoadResult(job, self._snapshot, default, outcomes, failed, self._moved, name)

    def _name(self, source: Cohort, key: Hashable, named_by: str) -> str | None:
        instance = self._rows.get((source, key))
        return None if instance is None else name_of(instance, named_by)

    def _shown(
        self, source: Cohort, job: LoadRequest, audience: list[Subscription], broken: set[Cohort]
    ) -> Shown:
        """Check who of a source's audience may see a row, and render it for them."""
        key, watches = job.key, audience
        unseen: dict[Subscription, Outcome] = {}
        instance = self._rows.get((source, key))
        if self._guarded:
            watches, unseen = self._judged(job, instance, audience)
        shared, special = self._rendered(source, key, instance, watches, broken)
        return watches, unseen, shared, special

    def _judged(
        self, job: LoadRequest, instance: Model | None, watches: list[Subscription]
    ) -> tuple[list[Subscription], dict[Subscription, Outcome]]:
        """
        Return the subscriptions whose permissions let them see a row, and what the others have of it.

        A serializer never runs for a row that nobody may see: it could fail, or be slow.
        """
        if not self._guarded or instance is None:
            return watches, {}
        hidden_from: dict[Subscription, Outcome] = {}
        judged: Model | None = None
        for watch in watches:
            if context_of(watch).guard.checks_objects:
                # A permission may change what it is given.
                judged = judged or copied(instance)
                here = self._here(context_of(watch).visibility.context)
                outcome = here.run(hidden, job, watch, judged, self._connection)
                isolate(self._connection)
                if outcome is not None:
                    hidden_from[watch] = outcome
        if not hidden_from:
            return watches, {}
        return [watch for watch in watches if watch not in hidden_from], hidden_from

    def _rendered(
        self,
        source: Cohort,
        key: Hashable,
        instance: Model | None,
        watches: list[Subscription],
        broken: set[Cohort],
    ) -> tuple[Outcome, dict[Subscription, Outcome]]:
        """Return the outcome that all of the watches share, and those that differ from it."""
        if source in broken:
            return UNREAD, {}
        if instance is None or not watches:
            return ABSENT, {}
        once = (source.renderer, id(instance))  # the instance lives as long as this load
        if once in self._rendered_once:
            return self._rendered_once[once], {}
        shared, special, serves_all = self._render(source, key, instance, watches)
        if serves_all:
            self._rendered_once[once] = shared
        return shared, special

    def _render(
        self, source: Cohort, key: Hashable, instance: Model, watches: Sequence[Subscription]
    ) -> tuple[Outcome, dict[Subscription, Outcome], bool]:
        """Return what all share, what some see otherwise, and whether it serves others, too."""
        special: dict[Subscription, Outcome] = {}
        of_audience: dict[Hashable, Outcome] = {}
        shared = self._spared or len(watches) > 1
        for watch in watches:
            visibility = context_of(watch).visibility
            # Mostly one rendering serves all, and nobody needs to know who it was made for.
            if not of_audience or visibility.audience not in of_audience:
                # A serializer may change what it is given, related rows and JSON included; others
                # are given it too, and permissions judge it.
                given = copied(instance) if shared else instance
                here = self._here(visibility.context)
                self._at.enter(type(visibility.consumer), "serializer", (watch,))
                outcome, serves_all = here.run(self._serialize, source, key, given, visibility)
                isolate(self._connection)
                if serves_all:
                    return outcome, special, True
                of_audience[visibility.audience] = outcome
            special[watch] = of_audience[visibility.audience]
        return ABSENT, special, False

    def _about(self, source: Cohort, key: object, consumer: object) -> dict[str, object]:
        model, alias = source.statement.model, self._connection.alias
        return fields(consumer=type(consumer), model=model, key=key, alias=alias)

    def _serialize(
        self, source: Cohort, key: Hashable, instance: Model, visibility: Visibility
    ) -> tuple[Outcome, bool]:
        """Render a row for one subscription; return whether it serves others, too."""
        connection, consumer = self._connection, visibility.consumer
        render = source.renderer.render
        try:
            try:
                view, serves_all = render(instance, consumer, visibility.kwargs)
            except (OperationalError, InterfaceError):
                renew(connection)
                view, serves_all = render(instance, consumer, visibility.kwargs)
        except Unreachable:
            raise
        except RenderingFailed as failure:
            about = self._about(source, key, consumer)
            logger.exception(_NOT_SHOWN, *_names(about), exc_info=failure.__cause__, extra=about)
            return source.renderer.failed, True
        except BaseException as error:
            failed = contained(error)
            if connection.in_atomic_block and is_lost(connection):
                raise  # the transaction has to be begun again
            about = self._about(source, key, consumer)
            logger.exception(_NOT_SHOWN, *_names(about), exc_info=failed, extra=about)
            return source.renderer.failed, False
        if view.body is not None and len(view.body) > self._longest:
            about = self._about(source, key, consumer)
            logger.warning(_TOO_LARGE, *_names(about), len(view.body), extra=about)
            return TOO_LARGE, serves_all
        return view, serves_all

    def _here(self, context: HookContext) -> Context:
        """Return a copy of a context to call a hook in: what it activates ends with the call."""
        found = self._contexts.get(context)
        if found is None:
            found = self._contexts[context] = context.here()
        return found.copy()


def _in_version(view: View, job: LoadRequest) -> View:
    """Return a view of a row that is another one after changes in other tables that concern it."""
    row = job.row
    if (
        view.body is None
        or not isinstance(row, RowState)
        or not (row.touched and row.subject.paths)
    ):
        return view
    return View(view.body, view.digest + b" %d" % row.touched)


def _chunks(items: Iterable[Cohort], size: int) -> Iterator[list[Cohort]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _names(about: dict[str, object]) -> tuple[object, ...]:
    return tuple(about[name] for name in ("model", "key", "consumer", "alias"))
