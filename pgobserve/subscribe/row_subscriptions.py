"""The subscriptions of one socket: how they start, their limits, how they end."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from django.db import router
from django.http import Http404

from pgobserve import conf
from pgobserve.cohorts.hook_context import HookContext
from pgobserve.cohorts.subscription_context import SubscriptionContext, context_of
from pgobserve.cohorts.visibility import Visibility
from pgobserve.deliver.frame_writer import FrameWriter
from pgobserve.errors import FeedUnavailable
from pgobserve.exceptions import FeedDown, TooManyArguments, TooManySubscriptions
from pgobserve.hub.identity import digest_from
from pgobserve.hub.load_requests import FAILED, TOO_LARGE
from pgobserve.hub.outcome import NOTHING, UNKNOWN, UNREAD, View
from pgobserve.hub.row_subscription import RowSubscription
from pgobserve.logs import fields
from pgobserve.render.row_names import lookup_of
from pgobserve.runtime.feed import LIVE_TIMEOUT
from pgobserve.subscribe.feeds import (
    feed_of,
    observed_subject,
    observed_throughs,
    read_again,
    unsubscribe,
)
from pgobserve.subscribe.list_subscriptions import ListSubscriptions
from pgobserve.subscribe.subscribe_arguments import check_arguments, encode_name, exception_for
from pgobserve.workers.occupation import as_hook

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from django.db.models import Model

    from pgobserve.deliver.send_queue import SendQueue
    from pgobserve.generics import GenericAsyncAPIConsumer
    from pgobserve.hub.list_subscription import ListSubscription
    from pgobserve.hub.outcome import Outcome

logger = logging.getLogger(__name__)

#: A row that exists and can't be shown.
UNSHOWN: Final = View("null", b"unshown")


class Subscriptions:
    """
    The subscriptions of one socket.

    Args:
        consumer: The socket's consumer.
    """

    def __init__(self, consumer: GenericAsyncAPIConsumer) -> None:
        self.consumer = consumer
        self._outlet = FrameWriter(consumer, read_again)
        self._watches: dict[tuple[str, str], RowSubscription] = {}
        self._closed = False
        self.lists = ListSubscriptions(self)

    def __len__(self) -> int:
        return len(self._watches) + len(self.lists)

    @property
    def send_queue(self) -> SendQueue:
        """The socket's queue of frames."""
        return self._outlet.send_queue

    async def send(self, text: str) -> None:
        """Send a frame that is already JSON."""
        await self._outlet.send(text)

    @property
    def closed(self) -> bool:
        """Whether the socket is gone."""
        return self._closed

    async def settle(self) -> None:
        """Wait for the frame that is being sent, so that the next one follows it."""
        await self._outlet.settle()

    def hold(self) -> None:
        """Send no frames of the feed until :meth:`release`."""
        self._outlet.send_queue.hold()

    def release(self) -> None:
        """Undo one :meth:`hold`."""
        self._outlet.send_queue.release()

    async def start(
        self,
        model: type[Model],
        key: Hashable,
        lookup: Any,
        kwargs: Mapping[str, Any],
        *,
        etag: str | None = None,
        wants_etag: bool = False,
        custom_delivery: bool = False,
    ) -> View:
        """
        Subscribe to a row; returns when it has been read.

        Args:
            model: The row's model.
            key: The row's key.
            lookup: The JSON value by which the client named the row.
            kwargs: The arguments of the consumer's hooks, including ``request_id``.
            etag: The state that a returning client holds. The row is sent next if it differs. Empty
                for a client that knows the row to be absent. None for a client that receives the row
                with the reply, or not at all.
            wants_etag: Whether each frame that shows the row has an etag.
            custom_delivery: Whether the consumer's own methods read and show the row at each change, and
                compare its etag.

        Raises:
            Http404: The row does not exist, or the client may not see it.
            APIException: Too many subscriptions; not observed; the feed is down; refused.
        """
        size = check_arguments(kwargs)
        name = (encode_name(lookup), encode_name(kwargs["request_id"]))
        self.check_limit(size, self._watches.get(name))
        try:
            async with self.consumer.attended():
                watch, view = await self._start(
                    *(model, key, name, kwargs, size, wants_etag, custom_delivery)
                )
        except FeedUnavailable as error:
            # The database's address and role are for the log alone.
            about = fields(consumer=type(self.consumer), model=model, key=key)
            logger.warning(
                "%s could not subscribe a client to %s %s: %s",
                *(about["consumer"], about["model"], key, error),
                extra=about,
            )
            raise FeedDown from error
        if etag is None and view.body is None:
            self._drop(name, watch)
            raise Http404
        there = view.body is not None
        if etag is not None and (view.etag != etag or (custom_delivery and there)):
            context_of(watch).held = etag
            watch.shown = UNKNOWN if custom_delivery else digest_from(etag)
            if not etag:
                watch.shown = NOTHING
            if watch.active:
                self._outlet.send_queue.put_first(watch, view)
        return view

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
        """End all subscriptions to rows that a client started with a request id."""
        wanted = encode_name(request_id)
        for name in [name for name in self._watches if name[1] == wanted]:
            self._drop(name, self._watches[name])

    @property
    def watches(self) -> list[RowSubscription]:
        """The subscriptions to rows."""
        return [*self._watches.values()]

    @property
    def all_watches(self) -> list[RowSubscription | ListSubscription]:
        """The subscriptions to rows and to lists."""
        return [*self._watches.values(), *self.lists.watches]

    async def aclose(self) -> None:
        """End all subscriptions, including those that are about to start."""
        self._closed = True
        watches, self._watches = self._watches, {}
        for watch in watches.values():
            unsubscribe(watch)
        self.lists.end_all()
        await self._outlet.aclose()

    async def _start(
        self,
        model: type[Model],
        key: Hashable,
        name: tuple[str, str],
        kwargs: Mapping[str, Any],
        size: int,
        wants_etag: bool,
        custom_delivery: bool,
    ) -> tuple[RowSubscription, View]:
        visibility = await self._see(model, kwargs, custom_delivery)
        alias = visibility.source.alias
        feed = feed_of(alias)
        subject = await observed_subject(self.consumer, visibility.source, feed)
        context = SubscriptionContext(
            visibility,
            request_id_text=name[1],
            wants_etag=wants_etag,
            lookup=name[0],
            alias=alias,
            size=size,
            custom_delivery=custom_delivery,
            named_by=lookup_of(self.consumer, model),
        )
        first: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def on_started(outcome: Outcome) -> None:
            self._replace(name, watch)
            if not first.done():
                first.set_result(outcome)

        watch = RowSubscription(
            self._outlet.send_queue, key, kwargs["request_id"], context, on_started
        )
        try:
            await feed.subscribe(watch, subject)
            outcome = await asyncio.wait_for(first, LIVE_TIMEOUT)
        except TimeoutError as error:
            self._drop(name, watch)
            raise FeedUnavailable("The row could not be read in time; try again.") from error
        except BaseException:
            self._drop(name, watch)
            raise
        if isinstance(outcome, View):
            return watch, outcome
        if outcome in (FAILED, UNREAD, TOO_LARGE) and not wants_etag:
            # The client did not request the row itself, which may be readable after a change.
            return watch, UNSHOWN
        self._drop(name, watch)
        raise exception_for(outcome)

    async def _see(
        self, model: type[Model], kwargs: Mapping[str, Any], custom_delivery: bool
    ) -> Visibility:
        """Compile the queryset in a thread of the feed that will most likely read it."""
        feed = feed_of(router.db_for_write(model))
        ttl = conf.get().QUERYSET_TTL
        version_of = model if custom_delivery else None
        origin = HookContext.current()
        owner = type(self.consumer)

        def see() -> Visibility:
            return Visibility(
                self.consumer,
                kwargs,
                ttl,
                version_of=version_of,
                throughs=observed_throughs(self.consumer, model),
                origin=origin,
            )

        return await feed.call(partial(as_hook, owner, "get_queryset", see), owner=owner)

    def check_limit(self, size: int, replaced: RowSubscription | ListSubscription | None) -> None:
        """
        Refuse a subscription beyond the socket's limits.

        Args:
            size: Length of its arguments as JSON.
            replaced: The subscription that it replaces.

        Raises:
            TooManySubscriptions: The socket has the maximum number of subscriptions.
            TooManyArguments: Their arguments together would be too long.
        """
        settings = conf.get()
        if replaced is None and len(self) >= settings.MAX_SUBSCRIPTIONS:
            raise TooManySubscriptions(settings.MAX_SUBSCRIPTIONS)
        kept = sum(context_of(watch).size for watch in self._watches.values()) + self.lists.size
        if replaced is not None:
            kept -= context_of(replaced).size
        if kept + size > settings.MAX_ARGUMENT_BYTES:
            raise TooManyArguments(settings.MAX_ARGUMENT_BYTES)

    def _replace(self, name: tuple[str, str], watch: RowSubscription) -> None:
        """Replace the subscription with the same row and request id, if any."""
        if self._closed:
            unsubscribe(watch)
            return
        before = self._watches.get(name)
        self._watches[name] = watch
        if before is not None:
            unsubscribe(before)

    def _drop(self, name: tuple[str, str], watch: RowSubscription) -> None:
        if self._watches.get(name) is watch:
            del self._watches[name]
        unsubscribe(watch)
