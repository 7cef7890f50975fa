"""The subscriptions of one socket to lists: how they start, are replaced, and end."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from django.db import DEFAULT_DB_ALIAS, router

from pgobserve import conf
from pgobserve.cohorts.hook_context import HookContext
from pgobserve.cohorts.subscription_context import SubscriptionContext, context_of
from pgobserve.cohorts.visibility import Visibility
from pgobserve.errors import ConfigurationError, FeedUnavailable
from pgobserve.exceptions import FeedDown, NotWatchable
from pgobserve.hub.list_subscription import ListSubscription, Subscription
from pgobserve.hub.outcome import Refusal
from pgobserve.logs import fields
from pgobserve.runtime.feed import LIVE_TIMEOUT
from pgobserve.sql.relation_path import paths_of
from pgobserve.subscribe.feeds import feed_of, observed_subject, unsubscribe
from pgobserve.subscribe.subscribe_arguments import check_arguments, encode_name, exception_for
from pgobserve.workers.occupation import as_hook

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.db.models import Model

    from pgobserve.cohorts.cohort import Wanted
    from pgobserve.deliver.send_queue import SendQueue
    from pgobserve.generics import GenericAsyncAPIConsumer
    from pgobserve.hub.list_subscription import ListSnapshot

logger = logging.getLogger(__name__)


class Socket(Protocol):
    """The socket that lists are sent to, with all of its subscriptions."""

    @property
    def consumer(self) -> GenericAsyncAPIConsumer:
        """The socket's consumer."""

    @property
    def send_queue(self) -> SendQueue:
        """The socket's queue of frames."""

    @property
    def closed(self) -> bool:
        """Whether the socket is gone."""

    def check_limit(self, size: int, replaced: Subscription | None) -> None:
        """Refuse a subscription beyond the socket's limits."""


class ListSubscriptions:
    """
    The subscriptions of a socket to lists.

    Args:
        socket: The socket.
    """

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._watches: dict[str, ListSubscription] = {}

    def __len__(self) -> int:
        return len(self._watches)

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
        name = encode_name(kwargs["request_id"])
        self._socket.check_limit(size, self._watches.get(name))
        try:
            async with self._socket.consumer.attended():
                return await self._start(model, name, kwargs, size, wanted, have)
        except FeedUnavailable as error:
            # The database's address and role are for the log alone.
            about = fields(consumer=type(self._socket.consumer), model=model)
            logger.warning(
                "%s could not subscribe a client to its list of %s: %s",
                *(about["consumer"], about["model"] or "rows", error),
                extra=about,
            )
            raise FeedDown from error
        except ConfigurationError as error:
            about = fields(consumer=type(self._socket.consumer), model=model)
            logger.warning(
                "The list of %s (%s) can't be watched: %s",
                *(about["consumer"], about["model"] or "of an unknown model", error),
                extra=about,
            )
            raise NotWatchable from error

    @property
    def watches(self) -> list[ListSubscription]:
        """The subscriptions."""
        return [*self._watches.values()]

    @property
    def size(self) -> int:
        """Length of all their arguments as JSON."""
        return sum(context_of(watch).size for watch in self._watches.values())

    def end(self, request_id: Any) -> None:
        """End the subscription with a request id. None is no error."""
        name = encode_name(request_id)
        if name in self._watches:
            self._drop(name, self._watches[name])

    def end_all(self) -> None:
        """End all subscriptions."""
        for name, watch in list(self._watches.items()):
            self._drop(name, watch)

    async def _start(
        self,
        model: type[Model] | None,
        name: str,
        kwargs: Mapping[str, Any],
        size: int,
        wanted: Wanted,
        have: Mapping[str, str] | None,
    ) -> ListSnapshot:
        feed = feed_of(DEFAULT_DB_ALIAS if model is None else router.db_for_write(model))
        ttl, consumer = conf.get().QUERYSET_TTL, self._socket.consumer
        origin = HookContext.current()
        owner = type(consumer)

        def see() -> Visibility:
            return Visibility(consumer, kwargs, ttl, wanted=wanted, origin=origin)

        visibility = await feed.call(partial(as_hook, owner, "get_queryset", see), owner=owner)
        source = visibility.source
        feed = feed_of(source.alias)
        subject = await observed_subject(consumer, source, feed)
        context = SubscriptionContext(
            visibility,
            request_id_text=name,
            wants_etag=True,
            lookup="",
            alias=source.alias,
            size=size,
            action="subscribe_list",
            named_by=None if source.listing is None else source.listing.named_by,
            paths=tuple(path for path in paths_of(subject) if path not in source.subject.paths),
        )
        first: asyncio.Future[ListSnapshot | Refusal] = asyncio.get_running_loop().create_future()

        def on_started(listed: ListSnapshot | Refusal) -> None:
            if not isinstance(listed, Refusal):
                self._replace(name, watch)
            if not first.done():
                first.set_result(listed)

        watch = ListSubscription(self._socket.send_queue, kwargs["request_id"], context, on_started)
        watch.have = have
        try:
            await feed.subscribe_list(watch, subject, source, single=wanted == "count")
            listed = await asyncio.wait_for(first, LIVE_TIMEOUT)
        except TimeoutError as error:
            self._drop(name, watch)
            raise FeedUnavailable("The list could not be read in time; try again.") from error
        except BaseException:
            self._drop(name, watch)
            raise
        if isinstance(listed, Refusal):
            raise exception_for(listed)
        return listed

    def _replace(self, name: str, watch: ListSubscription) -> None:
        """Replace the subscription with the same request id, if any."""
        if self._socket.closed:
            unsubscribe(watch)
            return
        before = self._watches.get(name)
        self._watches[name] = watch
        if before is not None:
            unsubscribe(before)

    def _drop(self, name: str, watch: ListSubscription) -> None:
        if self._watches.get(name) is watch:
            del self._watches[name]
        unsubscribe(watch)
