"""The feeds of this event loop, made from the settings, and the tables that a subscription depends on."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from django.db import connections

from pgobserve import conf
from pgobserve.cohorts.subscription_context import context_of
from pgobserve.database.async_connection import parameters_of
from pgobserve.dependencies.relations import throughs_of
from pgobserve.exceptions import NotObserved
from pgobserve.install import refusal
from pgobserve.install.consumer_registry import evented_models
from pgobserve.install.unseen_tables import is_elsewhere
from pgobserve.logs import fields
from pgobserve.read.row_reader import RowReader
from pgobserve.runtime import runtime
from pgobserve.runtime.stages import Options
from pgobserve.sql.model_tables import title_of
from pgobserve.sql.relation_path import paths_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from django.db.models import Model

    from pgobserve.cohorts.cohort import Cohort
    from pgobserve.dependencies.relations import Through
    from pgobserve.generics import GenericAsyncAPIConsumer
    from pgobserve.hub.hub import TableDependencies
    from pgobserve.hub.subscriptions import Deliverable, Subscription
    from pgobserve.runtime.feed import Feed

logger = logging.getLogger(__name__)


def feed_of(alias: str) -> Feed:
    """Return the feed of a database alias in this event loop."""
    return runtime.current().feed(alias, _options)


def unsubscribe(watch: Subscription) -> None:
    """End a subscription. An unknown subscription is no error."""
    feed_of(context_of(watch).alias).unsubscribe(watch)


def read_again(item: Deliverable) -> None:
    """Read a row again for a client that has not received it yet."""
    feed_of(context_of(item).alias).read_again(item)


def _options(alias: str) -> Options:
    settings = conf.get()
    overrides = settings.CONNECTION.get(alias, {})
    transports = conf.transports()
    return Options(
        alias=alias,
        namespace=conf.namespace(alias),
        channel=conf.channel(alias),
        parameters=lambda: parameters_of(connections[alias], overrides),
        reader=partial(RowReader, alias),
        threads=settings.LOADER_THREADS,
        hook_timeout=settings.HOOK_TIMEOUT,
        statement_timeout=settings.LOADER_STATEMENT_TIMEOUT,
        outbox="outbox" in transports or bool(evented_models()),
        # LISTEN does not work behind a proxy that pools transactions.
        listens="notify" in transports or settings.OUTBOX_WAKE != "poll",
        retention=settings.OUTBOX_RETENTION,
    )


_logged: set[tuple[str, str]] = set()


def log_not_observed(error: NotObserved, alias: str) -> NotObserved:
    """Log a refusal once, with details for operators alone; return it."""
    sentence = str(error.detail)
    schema = conf.namespace(alias).schema
    if (sentence, schema) not in _logged:
        _logged.add((sentence, schema))
        logger.warning(
            "A subscription to %s was refused. %s (looked for in the namespace %s, channel %s, of "
            "the database %r)",
            *(error.label, sentence, schema, conf.channel(alias), alias),
            extra=fields(model=error.label, alias=alias),
        )
    return error


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
    names = dict.fromkeys((*subject.tables, *subject.full_refresh, *joined))
    missing = [
        table for table in names if not await feed.triggers.pass_for((table,), within=within)
    ]
    if missing and subject.full_refresh:

        def find_views() -> list[str]:
            with nullcontext() if within is None else within():
                return refusal.covered_views(missing, subject.full_refresh, source.alias)

        views = await feed.call(find_views)
        feed.triggers.exempt(views)
        missing = [table for table in missing if table not in views]
    if missing:
        raise await _refused(consumer, source, feed, missing, within)
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
                *(label, source.alias, refusal.run_install([label], source.alias)),
                extra=fields(consumer=type(consumer), model=label, alias=source.alias),
            )
    return replace(subject, paths=tuple(paths)) if len(paths) > len(subject.paths) else subject


async def _refused(
    consumer: GenericAsyncAPIConsumer,
    source: Cohort,
    feed: Feed,
    tables: Sequence[str],
    within: Callable[[], AbstractContextManager[object]] | None,
) -> NotObserved:
    """Return the refusal of a subscription to tables without triggers."""
    alias, paths = source.alias, paths_of(source.subject)
    elsewhere = [
        path for path in paths if path.table in tables and is_elsewhere(path.joins[-1].model, alias)
    ]
    others = {path.table for path in elsewhere}
    labels = [title_of(table) for table in tables if table not in others]

    def explain() -> str:
        with nullcontext() if within is None else within():
            return refusal.sentence(type(consumer).__name__, labels, elsewhere, alias)

    return log_not_observed(NotObserved(title_of(tables[0]), await feed.call(explain)), alias)
