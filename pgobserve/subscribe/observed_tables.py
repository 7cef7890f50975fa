"""The tables that a subscription depends on; all of them must have triggers."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from django.db import connections

from pgobserve.dependencies.relations import throughs_of
from pgobserve.exceptions import NotObserved
from pgobserve.logs import fields
from pgobserve.sql.model_tables import title_of
from pgobserve.subscribe.feeds import log_not_observed

if TYPE_CHECKING:
    from django.db.models import Model

    from pgobserve.cohorts.cohort import Cohort
    from pgobserve.dependencies.relations import Through
    from pgobserve.generics import GenericAsyncAPIConsumer
    from pgobserve.hub.hub import TableDependencies
    from pgobserve.runtime.feed import Feed

logger = logging.getLogger(__name__)


def observed_throughs(consumer: GenericAsyncAPIConsumer, model: type[Model]) -> tuple[Through, ...]:
    """Return the many-to-many tables of a model that a consumer observes."""
    observed = getattr(consumer, "observer_many_to_many_relationships", False)
    return tuple(throughs_of(model)) if observed else ()


async def observed_subject(
    consumer: GenericAsyncAPIConsumer, source: Cohort, feed: Feed
) -> TableDependencies:
    """
    Return which changes concern a cohort's rows.

    Raises:
        NotObserved: One of the tables has no trigger.
    """
    model, subject = source.statement.model, source.subject
    joined = (path.table for path in subject.paths)
    within = None
    if source.session is not None:
        # In a thread of the loader, which owns the connection.
        within = lambda: source.prepared(connections[source.alias])  # noqa: E731
    for table in dict.fromkeys((*subject.tables, *subject.full_refresh, *joined)):
        if not await feed.triggers.pass_for((table,), within=within):
            raise log_not_observed(NotObserved(title_of(table)), source.alias)
    paths = [*subject.paths]
    for through in observed_throughs(consumer, model):
        path = through.path_from(model)
        if path.table in {each.table for each in paths}:
            continue
        if await feed.triggers.pass_for((path.table,), within=within):
            paths.append(path)
        else:  # the rows do not show it, or it would have been refused above
            label = through.model._meta.label
            logger.warning(
                "%s observes %s only in part, in database %r. %s",
                type(consumer).__qualname__,
                *(label, source.alias, NotObserved(label).detail),
                extra=fields(consumer=type(consumer), model=label, alias=source.alias),
            )
    return replace(subject, paths=tuple(paths)) if len(paths) > len(subject.paths) else subject
