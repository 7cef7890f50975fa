"""Renders a row for the subscriptions of a cohort, after their object permissions."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from django.db import InterfaceError, OperationalError

from pgobserve import conf
from pgobserve.cohorts.row_permissions import hidden
from pgobserve.cohorts.subscription_context import context_of
from pgobserve.database.connection_watchdog import Unreachable, is_locked, is_lost, renew
from pgobserve.database.session import isolate
from pgobserve.hub.load_requests import TOO_LARGE
from pgobserve.hub.outcome import ABSENT, UNREAD
from pgobserve.logs import fields
from pgobserve.render.copies import copied
from pgobserve.render.rendering import RenderingFailed
from pgobserve.workers.occupation import contained, occupation

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from contextvars import Context

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Model

    from pgobserve.cohorts.cohort import Cohort
    from pgobserve.cohorts.hook_context import HookContext
    from pgobserve.cohorts.visibility import Visibility
    from pgobserve.hub.load_requests import LoadRequest
    from pgobserve.hub.outcome import Outcome
    from pgobserve.hub.subscriptions import Subscription

    #: The subscriptions that may see a row, the outcomes of the others, the outcome that the former
    #: share, and the outcomes of those of them that differ from it.
    Rendered = tuple[
        list[Subscription], dict[Subscription, Outcome], Outcome, dict[Subscription, Outcome]
    ]

logger = logging.getLogger(__name__)

_FAILED: Final = "Serializing %s %s for %s failed in database %r; its subscribers receive an error."
_TOO_LARGE: Final = (
    "%s %s of %s in database %r takes %d bytes as JSON, too many for a frame; its subscribers receive an error. "
    "Serialize less of it, or raise PGOBSERVE['MAX_FRAME_BYTES'] as far as the server can send."
)


class CohortRenderer:
    """
    Renders the rows of one load.

    Attributes:
        guarded: Some subscription of the load has permissions to check.
        shares: Several cohorts may hold the same instance.
        broken: Rows that a cohort's query could not read, and whether they are read again.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.guarded = False
        self.shares = False
        self.broken: dict[tuple[Cohort, Hashable], bool] = {}
        self._connection = connection
        self._occupation = occupation()
        self._max_bytes = conf.longest_row()
        # Outcomes by renderer and instance, for the other cohorts that share both.
        self._outcomes: dict[tuple[Any, int], Outcome] = {}
        # Contexts that were entered in this thread, by their originals.
        self._contexts: dict[HookContext, Context] = {}

    def here(self, context: HookContext) -> Context:
        """Return a copy of a context for one hook call: what the hook activates ends with the call."""
        entered = self._contexts.get(context)
        if entered is None:
            entered = self._contexts[context] = context.here()
        return entered.copy()

    def render(
        self,
        cohort: Cohort,
        request: LoadRequest,
        instance: Model | None,
        subscriptions: list[Subscription],
    ) -> Rendered:
        """Render a row for some subscriptions of a cohort; without an instance it is absent."""
        unseen: dict[Subscription, Outcome] = {}
        if self.guarded and instance is not None:
            subscriptions, unseen = self.permitted(request, instance, subscriptions)
        if self.broken and (cohort, request.key) in self.broken:
            return subscriptions, unseen, UNREAD, {}
        if instance is None or not subscriptions:
            return subscriptions, unseen, ABSENT, {}
        once = (cohort.renderer, id(instance))  # the instance lives as long as this load
        if self.shares and once in self._outcomes:
            return subscriptions, unseen, self._outcomes[once], {}
        special: dict[Subscription, Outcome] = {}
        by_audience: dict[Hashable, Outcome] = {}
        shared = self.shares or len(subscriptions) > 1
        for each in subscriptions:
            visibility = context_of(each).visibility
            # Mostly the first rendering serves all subscriptions; their audiences are then not needed.
            if not by_audience or visibility.audience not in by_audience:
                # A serializer may change its instance, related rows and JSON included. Other
                # renderings and permissions get the same one.
                given = copied(instance) if shared else instance
                self._occupation.enter(type(visibility.consumer), "serializer", (each,))
                run = self.here(visibility.context).run
                outcome, serves_all = run(self._serialize, cohort, request.key, given, visibility)
                isolate(self._connection)
                if serves_all:
                    if self.shares:
                        self._outcomes[once] = outcome
                    return subscriptions, unseen, outcome, special
                by_audience[visibility.audience] = outcome
            special[each] = by_audience[visibility.audience]
        return subscriptions, unseen, ABSENT, special

    def permitted(
        self, request: LoadRequest, instance: Model, subscriptions: list[Subscription]
    ) -> tuple[list[Subscription], dict[Subscription, Outcome]]:
        """
        Check the object permissions of a row, before its serializer runs.

        A serializer must not run for a row that no subscription may see: it could fail, or be slow.

        Returns:
            The subscriptions that may see the row, and the outcomes of the others.
        """
        unseen: dict[Subscription, Outcome] = {}
        given: Model | None = None
        for each in subscriptions:
            if context_of(each).guard.checks_objects:
                # A permission may change its instance.
                given = given or copied(instance)
                run = self.here(context_of(each).visibility.context).run
                outcome = run(hidden, request, each, given, self._connection)
                isolate(self._connection)
                if outcome is not None:
                    unseen[each] = outcome
        if not unseen:
            return subscriptions, unseen
        return [each for each in subscriptions if each not in unseen], unseen

    def _serialize(
        self, cohort: Cohort, key: Hashable, instance: Model, visibility: Visibility
    ) -> tuple[Outcome, bool]:
        """Render for one subscription; return whether the outcome serves all others, too."""
        connection, consumer = self._connection, visibility.consumer
        render = cohort.renderer.render
        try:
            try:
                view, serves_all = render(instance, consumer, visibility.kwargs)
            except (OperationalError, InterfaceError):
                renew(connection)
                view, serves_all = render(instance, consumer, visibility.kwargs)
        except Unreachable:
            raise
        except RenderingFailed as failure:
            self._log_failed(cohort, key, consumer, failure.__cause__)
            return cohort.renderer.failed, True
        except BaseException as error:
            failed = contained(error)
            if is_locked(failed) or (connection.in_atomic_block and is_lost(connection)):
                raise  # the load has to start again
            self._log_failed(cohort, key, consumer, failed)
            return cohort.renderer.failed, False
        if view.body is not None and len(view.body) > self._max_bytes:
            about, names = self._about(cohort, key, consumer)
            logger.warning(_TOO_LARGE, *names, len(view.body), extra=about)
            return TOO_LARGE, serves_all
        return view, serves_all

    def _log_failed(
        self, cohort: Cohort, key: Hashable, consumer: object, error: BaseException | None
    ) -> None:
        about, names = self._about(cohort, key, consumer)
        logger.error(_FAILED, *names, exc_info=error, extra=about)

    def _about(
        self, cohort: Cohort, key: Hashable, consumer: object
    ) -> tuple[dict[str, object], Sequence[object]]:
        model, alias = cohort.statement.model, self._connection.alias
        about = fields(consumer=type(consumer), model=model, key=key, alias=alias)
        return about, [about[name] for name in ("model", "key", "consumer", "alias")]
