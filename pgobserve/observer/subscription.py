"""
The subscriptions of one socket: how they begin, how many there may be, how they end.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from django.db import connections, router
from django.http import Http404

from pgobserve import conf
from pgobserve.errors import FeedUnavailable
from pgobserve.exceptions import FeedDown, NotObserved, TooManySubscriptions
from pgobserve.feed import runtime
from pgobserve.feed.hub import Subject
from pgobserve.feed.loader import FAILED
from pgobserve.feed.mailbox import UNKNOWN, Refusal, View, Watch
from pgobserve.feed.options import Options
from pgobserve.feed.tables import tables_of
from pgobserve.observer.checks import Guard
from pgobserve.observer.loading import load
from pgobserve.observer.outlet import Outlet
from pgobserve.observer.registry import evented_models
from pgobserve.observer.related import shows, throughs_of
from pgobserve.observer.resume import changed_since
from pgobserve.observer.source import Visibility

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from django.db.models import Model

    from pgobserve.feed.mailbox import Outcome
    from pgobserve.feed.snapshot import Snapshot
    from pgobserve.generics import GenericAsyncAPIConsumer
    from pgobserve.observer.related import Through

logger = logging.getLogger(__name__)

#: A row that is there and can't be shown.
UNSHOWN: Final = View("null", b"unshown")

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Subscription:
    """
    What the surface knows of a watch; its ``context``.

    Attributes:
        visibility: What the subscriber may see.
        guard: His permissions.
        request_id_text: His request id, as JSON.
        wants_token: Each frame gets a token.
        lookup: By which value he named the row.
        alias: The database alias whose feed serves it.
        by_itself: The consumer reads and shows the row by itself.
        hidden: Such a consumer has told that the row is gone, or out of sight.
    """

    visibility: Visibility
    guard: Guard
    request_id_text: str
    wants_token: bool
    lookup: str
    alias: str
    by_itself: bool
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Begun:
    """
    How a subscription began.

    Attributes:
        view: The row as it was.
        snapshot: What the client has seen once it has the reply: the one that the row was read in,
            or still its own token while a frame with what changed since is on its way. The socket
            may break between the two.
    """

    view: View
    snapshot: Snapshot


class Subscriptions:
    """
    The subscriptions of one socket.

    Args:
        consumer: The socket's consumer.
    """

    def __init__(self, consumer: GenericAsyncAPIConsumer) -> None:
        self._consumer = consumer
        self._outlet = Outlet(consumer)
        self._guard: Guard | None = None
        self._watches: dict[tuple[str, str], Watch] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._watches)

    def hold(self) -> None:
        """Send nothing of the feed for now."""
        self._outlet.mailbox.hold()

    def release(self) -> None:
        """Send again what was held."""
        self._outlet.mailbox.release()

    async def begin(
        self,
        model: type[Model],
        key: Hashable,
        lookup: Any,
        kwargs: Mapping[str, Any],
        *,
        token: Snapshot | None = None,
        wants_token: bool = False,
        by_itself: bool = False,
    ) -> Begun:
        """
        Subscribe to a row; returns when it was read.

        Args:
            model: The row's model.
            key: Its key.
            lookup: The JSON value by which the client named it.
            kwargs: What the hooks of the consumer are called with, ``request_id`` among it.
            token: What the client has seen so far: what changed since is sent next. None for
                a client that gets the row with the reply.
            wants_token: Every frame is to have a token.
            by_itself: The consumer reads and shows the row by itself, at each change.

        Raises:
            Http404: There is no such row, or it may not be seen.
            APIException: Too many subscriptions; not observed; the feed is down; refused.
        """
        name = (encode_name(lookup), encode_name(kwargs["request_id"]))
        self._check_limit(name)
        try:
            watch, begun = await self._begin(model, key, name, kwargs, wants_token, by_itself)
            if token is not None:
                begun = await self._catch_up(watch, begun, token)
        except FeedUnavailable as error:
            # Where the database is, and as whom we go there, is for the log alone.
            logger.warning("A subscription could not begin: %s", error)
            raise FeedDown from error
        if begun.view.body is None and token is None:
            self._drop(name, watch)
            raise Http404
        return begun

    def end(self, lookup: Any, request_id: Any = None) -> None:
        """End one subscription to a row, or without a request id all of them."""
        wanted = encode_name(lookup)
        names = (
            [(wanted, encode_name(request_id))]
            if request_id is not None
            else [name for name in self._watches if name[0] == wanted]
        )
        for name in names:
            if name in self._watches:
                self._drop(name, self._watches[name])

    def end_request(self, request_id: Any) -> None:
        """End all subscriptions, to whatever rows, that a client made by one request id."""
        wanted = encode_name(request_id)
        for name in [name for name in self._watches if name[1] == wanted]:
            self._drop(name, self._watches[name])

    @property
    def watches(self) -> list[Watch]:
        """The subscriptions that there are."""
        return [*self._watches.values()]

    async def aclose(self) -> None:
        """End all, those too that are still to begin; nothing of this socket is left."""
        self._closed = True
        watches, self._watches = self._watches, {}
        for watch in watches.values():
            feed_of(watch.context.alias).end(watch)
        await self._outlet.aclose()

    async def _begin(
        self,
        model: type[Model],
        key: Hashable,
        name: tuple[str, str],
        kwargs: Mapping[str, Any],
        wants_token: bool,
        by_itself: bool,
    ) -> tuple[Watch, Begun]:
        visibility = await self._see(model, kwargs, by_itself)
        alias = visibility.source.alias
        feed = feed_of(alias)
        subject = await self._subject(model, feed)
        if self._guard is None:
            make = Guard.none if by_itself else Guard
            self._guard = make(self._consumer)
        context = Subscription(
            visibility, self._guard, name[1], wants_token, name[0], alias, by_itself
        )
        first: asyncio.Future[tuple[Outcome, Snapshot]] = asyncio.get_running_loop().create_future()

        def begun(outcome: Outcome, snapshot: Snapshot) -> None:
            self._replace(name, watch)
            if not first.done():
                first.set_result((outcome, snapshot))

        watch = Watch(self._outlet.mailbox, key, kwargs["request_id"], context, begun)
        try:
            await feed.begin(watch, subject)
            outcome, snapshot = await asyncio.wait_for(first, runtime.PATIENCE)
        except TimeoutError as error:
            self._drop(name, watch)
            raise FeedUnavailable("The row could not be read in time; try again.") from error
        except BaseException:
            self._drop(name, watch)
            raise
        if isinstance(outcome, View):
            return watch, Begun(outcome, snapshot)
        if outcome is FAILED and not wants_token:
            # It can't be shown, but nobody asked to see it; it may well be shown after a change.
            return watch, Begun(UNSHOWN, snapshot)
        self._drop(name, watch)
        raise refused(outcome)

    def _throughs(self, model: type[Model]) -> tuple[Through, ...]:
        """Return the tables whose rows count as a part of the model's, if the consumer wants it."""
        wanted = getattr(self._consumer, "observer_many_to_many_relationships", False)
        return tuple(throughs_of(model)) if wanted else ()

    async def _subject(self, model: type[Model], feed: runtime.Feed) -> Subject:
        tables, wide = tables_of(model)
        if not await feed.is_observed((*tables, *wide)):
            raise NotObserved(model._meta.label)
        return Subject(tables, (*wide, *await self._through_tables(model, feed)))

    async def _through_tables(self, model: type[Model], feed: runtime.Feed) -> list[str]:
        """Return the tables between many and many; what is shown of them must be observed."""
        found: list[str] = []
        for through in self._throughs(model):
            table = through.model._meta.db_table
            if await feed.is_observed((table,)):
                found.append(table)
            elif await feed.call(partial(shows, self._consumer.serializer_class, through.name)):
                raise NotObserved(through.model._meta.label)
            else:
                logger.warning("%s", NotObserved(through.model._meta.label).detail)
        return list(dict.fromkeys(found))

    async def _see(
        self, model: type[Model], kwargs: Mapping[str, Any], by_itself: bool
    ) -> Visibility:
        """Compile the queryset, in a thread of the feed that will most likely read it."""
        feed = feed_of(router.db_for_write(model))
        ttl = conf.get().QUERYSET_TTL
        presence_of = model if by_itself else None
        return await feed.call(
            lambda: Visibility(
                self._consumer,
                kwargs,
                ttl,
                presence_of=presence_of,
                throughs=self._throughs(model),
            )
        )

    async def _catch_up(self, watch: Watch, begun: Begun, token: Snapshot) -> Begun:
        """Let the client have what changed since his token, if he is not known to have it."""
        source = watch.context.visibility.source
        # After the load, not before: a change between the two must count as one since the token.
        if begun.view.body is not None and not await feed_of(source.alias).call(
            lambda: changed_since(source, watch.key, token)
        ):
            return begun
        watch.shown = UNKNOWN
        if watch.active:
            self._outlet.mailbox.put_first(watch, begun.view, begun.snapshot)
        return Begun(begun.view, token)

    def _check_limit(self, name: tuple[str, str]) -> None:
        limit = conf.get().MAX_SUBSCRIPTIONS
        if name not in self._watches and len(self._watches) >= limit:
            raise TooManySubscriptions(limit)

    def _replace(self, name: tuple[str, str], watch: Watch) -> None:
        """Let a new subscription take the place of one with the same row and request id."""
        if self._closed:
            feed_of(watch.context.alias).end(watch)
            return
        before = self._watches.get(name)
        self._watches[name] = watch
        if before is not None:
            feed_of(before.context.alias).end(before)

    def _drop(self, name: tuple[str, str], watch: Watch) -> None:
        if self._watches.get(name) is watch:
            del self._watches[name]
        feed_of(watch.context.alias).end(watch)


def encode_name(value: Any) -> str:
    """Return JSON that is the same for the same value; a client may name things by any value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def refused(outcome: Refusal) -> Exception:
    """Return the exception that answers a refused request."""
    from rest_framework.exceptions import APIException

    error = APIException(detail=list(outcome.errors))
    error.status_code = outcome.status
    return error


def feed_of(alias: str) -> runtime.Feed:
    """Return the feed of a database alias in this event loop, made from the settings."""
    return runtime.current().feed(alias, _options)


def _options(alias: str) -> Options:
    settings = conf.get()
    overrides = settings.CONNECTION.get(alias, {})
    transports = conf.transports()
    return Options(
        alias=alias,
        channel=settings.CHANNEL,
        parameters=lambda: {**connections[alias].get_connection_params(), **overrides},
        load=lambda jobs: load(alias, jobs),
        threads=settings.LOADER_THREADS,
        outbox="outbox" in transports or bool(evented_models()),
        # Behind a proxy that pools transactions nobody can LISTEN.
        listens="notify" in transports or settings.OUTBOX_WAKE != "poll",
        retention=settings.OUTBOX_RETENTION,
    )
