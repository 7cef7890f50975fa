"""The feeds of this event loop, made from the settings."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from django.db import connections

from pgobserve import conf
from pgobserve.database.async_connection import parameters_of
from pgobserve.install.consumer_registry import evented_models
from pgobserve.load.list_batch import load_lists
from pgobserve.load.row_load import load
from pgobserve.logs import fields
from pgobserve.runtime import runtime
from pgobserve.runtime.feed_options import Options
from pgobserve.sql.reverse_lookup import resolve

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from pgobserve.exceptions import NotObserved
    from pgobserve.hub.hub import ReverseLookup
    from pgobserve.hub.load_requests import (
        ListLoadRequest,
        ListLoadResult,
        LoadRequest,
        LoadResult,
    )
    from pgobserve.sql.relation_path import RelationPath

logger = logging.getLogger(__name__)

#: Rows that changes elsewhere may concern and that are named one by one; beyond it all are read.
TRACED: int = 10_000


@dataclass(frozen=True, slots=True)
class _RowReader:
    """What the loader of a database alias reads."""

    alias: str

    def load(self, jobs: Sequence[LoadRequest]) -> Sequence[LoadResult]:
        return load(self.alias, jobs)

    def load_lists(self, jobs: Sequence[ListLoadRequest]) -> Sequence[ListLoadResult | None]:
        return load_lists(self.alias, jobs)

    def resolve(self, lookup: ReverseLookup) -> Sequence[Hashable] | None:
        return resolve(
            *(cast("RelationPath", lookup.path), lookup.values, connections[self.alias]),
            among=lookup.among,
            limit=TRACED,
        )

    def owner(self, watch: Any) -> type:
        return type(watch.context.visibility.consumer)

    def label(self, watch: Any) -> str:
        return watch.context.visibility.source.statement.model._meta.label  # type: ignore[no-any-return]


def feed_of(alias: str) -> runtime.Feed:
    """Return the feed of a database alias in this event loop, made from the settings."""
    return runtime.current().feed(alias, _options)


def _options(alias: str) -> Options:
    settings = conf.get()
    overrides = settings.CONNECTION.get(alias, {})
    transports = conf.transports()
    return Options(
        alias=alias,
        namespace=conf.namespace(alias),
        channel=conf.channel(alias),
        parameters=lambda: parameters_of(connections[alias], overrides),
        sources=_RowReader(alias),
        threads=settings.LOADER_THREADS,
        hook_timeout=settings.HOOK_TIMEOUT,
        statement_timeout=settings.LOADER_STATEMENT_TIMEOUT,
        outbox="outbox" in transports or bool(evented_models()),
        # Behind a proxy that pools transactions nobody can LISTEN.
        listens="notify" in transports or settings.OUTBOX_WAKE != "poll",
        retention=settings.OUTBOX_RETENTION,
    )


_told: set[tuple[str, str]] = set()


def tell_not_observed(error: NotObserved, alias: str) -> NotObserved:
    """Log a refusal once, with what only those who run the server should know."""
    sentence = str(error.detail)
    schema = conf.namespace(alias).schema
    if (sentence, schema) not in _told:
        _told.add((sentence, schema))
        logger.warning(
            "A subscription to %s was refused. %s (looked for in the namespace %s, channel %s, of "
            "the database %r)",
            *(error.label, sentence, schema, conf.channel(alias), alias),
            extra=fields(model=error.label, alias=alias),
        )
    return error
