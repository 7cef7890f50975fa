"""What all loads have in common: which cohort each subscription of a row belongs to now."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from django.db import connections

from pgobserve.cohorts.cohort_renderer import CohortRenderer
from pgobserve.cohorts.subscription_context import context_of
from pgobserve.database.connection_watchdog import Unreachable, attempt, is_locked
from pgobserve.hub.list_state import ListRow
from pgobserve.hub.outcome import UNREAD
from pgobserve.logs import fields
from pgobserve.workers.occupation import contained, occupation

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from django.db.models import Model

    from pgobserve.cohorts.cohort import Cohort
    from pgobserve.hub.hub import TableDependencies
    from pgobserve.hub.load_requests import LoadRequest
    from pgobserve.hub.outcome import Refusal
    from pgobserve.hub.snapshot import Snapshot
    from pgobserve.hub.subscriptions import Subscription

    #: Subscriptions of a row by cohort.
    Groups = dict[Cohort, list[Subscription]]

logger = logging.getLogger(__name__)

#: Unreadable rows that one load looks for. Where there are more, the others fail together.
MAX_UNREADABLE: Final = 50


def log_unreadable(
    model: type[Model],
    keys: Sequence[Hashable],
    consumers: Iterable[str],
    alias: str,
    error: BaseException,
) -> None:
    """Log that rows can't be read; usually it is one."""
    about = fields(consumer=", ".join(sorted(consumers)), model=model, key=keys[0], alias=alias)
    others = f" and {len(keys) - 1} others" if len(keys) > 1 else ""
    logger.error(
        "Reading %s %s%s for %s failed in database %r; its subscribers receive an error.",
        *(about["model"], about["key"], others, about["consumer"], alias),
        exc_info=error,
        extra=about,
    )


class Load:
    """
    The state of one load, in a loader thread.

    Where a queryset raises for a subscription, its subscriber receives an error; the others are served.
    """

    def __init__(self, alias: str) -> None:
        self._connection = connections[alias]
        self._occupation = occupation()
        self._renderer = CohortRenderer(self._connection)
        self._failed: dict[Subscription, Refusal] = {}
        # Subscriptions that belong to another list by now, and its tables and identity.
        self._moved: dict[Subscription, tuple[TableDependencies, Hashable]] = {}
        self._snapshot: Snapshot | None = None

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
            if is_locked(error):
                raise
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
