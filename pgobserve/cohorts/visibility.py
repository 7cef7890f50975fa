"""What one subscription may see, and how long that stays valid: stale visibility is a leak."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.db import connections

from pgobserve.cohorts.cohort_builder import build, cohort_of_class, version_cohort
from pgobserve.cohorts.hook_context import HookContext
from pgobserve.database.session import QueryRecorder, applied, held, isolate_all, session_of
from pgobserve.database.tracked_session import SessionSettings
from pgobserve.dependencies import row_dependencies
from pgobserve.render.own_hooks import has_own, is_fixed

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

    from pgobserve.cohorts.cohort import Cohort, Wanted
    from pgobserve.dependencies.relations import Through
    from pgobserve.generics import GenericAsyncAPIConsumer
    from pgobserve.sql.keys import Model


def is_plain(consumer: GenericAsyncAPIConsumer) -> bool:
    """Return whether all sockets of the consumer's class see the same rows in the same way."""
    return (
        not has_own(
            consumer,
            "get_queryset",
            "filter_queryset",
            "get_serializer_class",
            "get_serializer_context",
            "database_session",
        )
        and is_fixed(consumer)
        and not row_dependencies.makes_serializers(consumer)
        and not consumer.filter_backends
    )


class Visibility:
    """
    What one subscription may see.

    Args:
        kwargs: The arguments of its ``get_queryset`` and other hooks.
        ttl: Seconds for which a compiled queryset is kept.
        origin: The context of the request, in which the hooks run.
        version_of: Read only the versions of this model's rows: the consumer reads and shows them
            itself.
        throughs: Through tables whose rows count as parts of such a row.
        wanted: What a list subscription receives.

    Attributes:
        source: The cohort of the last build.
        on_rebuild: Called after each later build, because the consumer's permissions may have changed,
            too.
        context: The context as the hooks left it; serializers and object permissions run in it.
        volatile: Whether each batch rebuilds: the hooks ran a query, or compiled differently twice in
            a row, for example because they read the clock.
    """

    __slots__ = (
        *("_audience", "_built", "_ttl", "_wanted", "consumer", "context", "kwargs", "on_rebuild"),
        *("origin", "source", "volatile"),
    )

    def __init__(
        self,
        consumer: GenericAsyncAPIConsumer,
        kwargs: Mapping[str, Any],
        ttl: float,
        *,
        version_of: Model | None = None,
        throughs: Sequence[Through] = (),
        wanted: Wanted = None,
        origin: HookContext | None = None,
    ) -> None:
        self.origin = self.context = origin or HookContext.current()
        self.consumer = consumer
        self.kwargs = kwargs
        self._wanted = wanted
        self._ttl = ttl
        self._audience: Hashable = None
        self.on_rebuild: Callable[[], None] | None = None
        self._built: float | None = None
        self.volatile = False
        if version_of is None:
            self.source: Cohort = self._build_first()
        else:
            self.source = version_cohort(type(consumer), version_of, throughs)
            self.source.settings = self._settings()

    def kept(self) -> Cohort | None:
        """Return the cohort if it is known without running hooks, otherwise None."""
        # No hook builds a version query, and hooks with a database session of their own run at each read.
        if self._built is None or self.source.owner is not None:
            return self.source
        if self.volatile or time.monotonic() - self._built >= self._ttl:
            return None
        return self.source

    def now(self) -> Cohort:
        """Return the current cohort; may run hooks, so call it in a thread."""
        kept = self.kept()
        if kept is not None:
            return kept
        with self._in_session() as settings:
            try:
                self._rebuild(settings)
            finally:
                isolate_all()
        return self.source

    @property
    def audience(self) -> Hashable:
        """The socket and its arguments: subscriptions of equal audiences see a row alike."""
        if self._audience is None:
            kwargs = {name: value for name, value in self.kwargs.items() if name != "request_id"}
            self._audience = (self.consumer, repr(sorted(kwargs.items())))
        return self._audience

    def _build_first(self) -> Cohort:
        self._built = time.monotonic()
        if is_plain(self.consumer):
            return cohort_of_class(self.consumer, self.kwargs, self._wanted, self.origin)
        first, first_queried = self._build_alone()
        second, second_queried = self._build_alone()
        self.volatile = first_queried or second_queried or second is not first
        return second

    def _rebuild(self, settings: SessionSettings | None) -> None:
        # Taken before the hooks run: what they read may be this old.
        built = time.monotonic()
        if is_plain(self.consumer):
            cohort = cohort_of_class(self.consumer, self.kwargs, self._wanted, self.origin)
            queried = False
        else:
            cohort, queried = self._build(settings)
        if self.on_rebuild is not None:
            self.on_rebuild()
        self.volatile = self.volatile or queried
        self.source, self._built = cohort, built

    def _build_alone(self) -> tuple[Cohort, bool]:
        """Build, and restore the database session."""
        with self._in_session() as settings:
            try:
                return self._build(settings)
            finally:
                isolate_all()

    def _build(self, settings: SessionSettings | None) -> tuple[Cohort, bool]:
        """Build; return whether the hooks ran a query, on any alias."""
        recorder = QueryRecorder()
        with recorder.counting():
            cohort, self.context = build(
                *(self.consumer, self.kwargs, self._wanted, self.origin),
                settings=settings,
                owner=self,
                recorder=recorder,
            )
        return cohort, recorder.queries > 0

    def _settings(self) -> SessionSettings | None:
        settings = self.origin.run(lambda: self.consumer.database_session(**self.kwargs))
        return SessionSettings.of(settings) if settings else None

    @contextmanager
    def _in_session(self) -> Iterator[SessionSettings | None]:
        """Apply the consumer's settings to a session whose state is known."""
        connection = connections[self.consumer._write_alias()]
        # From here on, changes by hooks are tracked.
        session_of(connection)
        settings = self._settings()
        isolate_all()
        if settings is None:
            yield None
        else:
            with applied(connection, settings):
                yield settings

    @contextmanager
    def prepared(self) -> Iterator[Cohort]:
        """Rebuild, and keep the database session as the hooks change it until the end."""
        with self._in_session() as settings:
            try:
                self._rebuild(settings)
            except BaseException:
                isolate_all()
                raise
            with held():
                yield self.source
