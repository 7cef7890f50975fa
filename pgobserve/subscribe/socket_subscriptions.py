"""The subscriptions of one socket to rows and to lists."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from django.http import Http404

from pgobserve.cohorts.subscription_context import SubscriptionContext, context_of
from pgobserve.deliver.frame_writer import FrameWriter
from pgobserve.errors import ConfigurationError
from pgobserve.exceptions import NotWatchable
from pgobserve.hub.identity import digest_from
from pgobserve.hub.load_requests import FAILED, TOO_LARGE
from pgobserve.hub.outcome import NOTHING, UNKNOWN, UNREAD, Refusal, View
from pgobserve.hub.subscriptions import ListSubscription, RowSubscription
from pgobserve.logs import fields
from pgobserve.render.rendering import lookup_of
from pgobserve.sql.relation_path import paths_of
from pgobserve.subscribe.feeds import feed_of, observed_subject, observed_throughs, read_again
from pgobserve.subscribe.subscription_set import (
    Socket,
    SubscriptionSet,
    check_arguments,
    encode_name,
    exception_for,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from django.db.models import Model

    from pgobserve.cohorts.cohort import Wanted
    from pgobserve.deliver.send_queue import SendQueue
    from pgobserve.generics import GenericAsyncAPIConsumer
    from pgobserve.hub.hub import Hub
    from pgobserve.hub.outcome import Outcome
    from pgobserve.hub.subscriptions import ListSnapshot

logger = logging.getLogger(__name__)

#: A row that exists and can't be shown.
UNSHOWN: Final = View("null", b"unshown")


class RowSubscriptions(SubscriptionSet[RowSubscription]):
    """The subscriptions of a socket to rows, by the client's name of the row and request id."""

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
        self._socket.check_limit(size, self._named.get(name))
        about = fields(consumer=type(self._socket.consumer), model=model, key=key)
        async with self._starting(f"{about['model']} {key}", about):
            subscription, view = await self._start(
                *(model, key, name, kwargs, size, wants_etag, custom_delivery)
            )
        if etag is None and view.body is None:
            self._drop(name, subscription)
            raise Http404
        there = view.body is not None
        if etag is not None and (view.etag != etag or (custom_delivery and there)):
            context_of(subscription).held = etag
            subscription.shown = UNKNOWN if custom_delivery else digest_from(etag)
            if not etag:
                subscription.shown = NOTHING
            if subscription.active:
                self._socket.send_queue.put_first(subscription, view)
        return view

    def end(self, lookup: Any, request_id: Any = None) -> None:
        """End one subscription to a row, or without a request id all of them."""
        wanted = encode_name(lookup)
        request = None if request_id is None else encode_name(request_id)
        self._end(lambda name: name[0] == wanted and request in (None, name[1]))

    def end_request(self, request_id: Any) -> None:
        """End all subscriptions to rows that a client started with a request id."""
        wanted = encode_name(request_id)
        self._end(lambda name: name[1] == wanted)

    def _end(self, ends: Callable[[Any], bool]) -> None:
        for name in [name for name in self._named if ends(name)]:
            self._drop(name, self._named[name])

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
        consumer = self._socket.consumer
        visibility = await self._see(
            *(model, kwargs),
            version_of=model if custom_delivery else None,
            throughs=observed_throughs(consumer, model),
        )
        alias = visibility.source.alias
        feed = feed_of(alias)
        subject = await observed_subject(consumer, visibility.source, feed)
        context = SubscriptionContext(
            visibility,
            request_id_text=name[1],
            wants_etag=wants_etag,
            lookup=name[0],
            alias=alias,
            size=size,
            custom_delivery=custom_delivery,
            named_by=lookup_of(consumer, model),
        )
        first: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def on_started(outcome: Outcome) -> None:
            self._replace(name, subscription)
            if not first.done():
                first.set_result(outcome)

        subscription = RowSubscription(
            self._socket.send_queue, key, kwargs["request_id"], context, on_started
        )
        outcome = await self._first(
            *(name, subscription, feed, lambda hub: hub.add(subscription, subject), first)
        )
        if isinstance(outcome, View):
            return subscription, outcome
        if outcome in (FAILED, UNREAD, TOO_LARGE) and not wants_etag:
            # The client did not request the row itself, which may be readable after a change.
            return subscription, UNSHOWN
        self._drop(name, subscription)
        raise exception_for(outcome)


class ListSubscriptions(SubscriptionSet[ListSubscription]):
    """The subscriptions of a socket to lists, by request id."""

    async def start(
        self,
        model: type[Model] | None,
        kwargs: Mapping[str, Any],
        *,
        wanted: Wanted,
        have: Mapping[str, str] | None = None,
    ) -> ListSnapshot:
        """
        Subscribe to a list; returns when it has been read.

        Args:
            model: The model that the consumer's class declares, if any.
            kwargs: The arguments of the consumer's hooks, including ``request_id``.
            wanted: Rows, their keys or their number.
            have: The etags that a returning client holds, by key.

        Raises:
            APIException: Too many subscriptions or rows; not observed; the feed is down; refused.
        """
        size = check_arguments(kwargs)
        self._socket.check_limit(size, self._named.get(encode_name(kwargs["request_id"])))
        about = fields(consumer=type(self._socket.consumer), model=model)
        try:
            async with self._starting(f"its list of {about['model'] or 'rows'}", about):
                return await self._start(model, kwargs, size, wanted, have)
        except ConfigurationError as error:
            logger.warning(
                "The list of %s (%s) can't be watched: %s",
                *(about["consumer"], about["model"] or "of an unknown model", error),
                extra=about,
            )
            raise NotWatchable from error

    def end(self, request_id: Any) -> None:
        """End the subscription with a request id. None is no error."""
        name = encode_name(request_id)
        if name in self._named:
            self._drop(name, self._named[name])

    async def _start(
        self,
        model: type[Model] | None,
        kwargs: Mapping[str, Any],
        size: int,
        wanted: Wanted,
        have: Mapping[str, str] | None,
    ) -> ListSnapshot:
        visibility = await self._see(model, kwargs, wanted=wanted)
        cohort, name = visibility.source, encode_name(kwargs["request_id"])
        feed = feed_of(cohort.alias)
        subject = await observed_subject(self._socket.consumer, cohort, feed)
        context = SubscriptionContext(
            visibility,
            request_id_text=name,
            wants_etag=True,
            lookup="",
            alias=cohort.alias,
            size=size,
            action="subscribe_list",
            named_by=None if cohort.listing is None else cohort.listing.named_by,
            paths=tuple(path for path in paths_of(subject) if path not in cohort.subject.paths),
        )
        first: asyncio.Future[ListSnapshot | Refusal] = asyncio.get_running_loop().create_future()

        def on_started(listed: ListSnapshot | Refusal) -> None:
            if not isinstance(listed, Refusal):
                self._replace(name, subscription)
            if not first.done():
                first.set_result(listed)

        subscription = ListSubscription(
            self._socket.send_queue, kwargs["request_id"], context, on_started
        )
        subscription.have = have

        def add(hub: Hub) -> None:
            hub.add_list(subscription, subject, cohort, single=wanted == "count")

        listed = await self._first(name, subscription, feed, add, first)
        if isinstance(listed, Refusal):
            raise exception_for(listed)
        return listed


class Subscriptions:
    """The subscriptions of one socket, and what sends their frames."""

    def __init__(self, consumer: GenericAsyncAPIConsumer) -> None:
        self.writer = FrameWriter(consumer, read_again)
        self._socket = Socket(consumer, self.writer.send_queue)
        self.rows = RowSubscriptions(self._socket)
        self.lists = ListSubscriptions(self._socket)

    def __len__(self) -> int:
        return len(self.rows) + len(self.lists)

    @property
    def send_queue(self) -> SendQueue:
        """The socket's queue of frames."""
        return self.writer.send_queue

    @property
    def all(self) -> list[RowSubscription | ListSubscription]:
        """The subscriptions to rows and to lists."""
        return [*self.rows.all, *self.lists.all]

    async def aclose(self) -> None:
        """End all subscriptions, including those that are about to start."""
        self._socket.closed = True
        self.rows.end_all()
        self.lists.end_all()
        await self.writer.aclose()
