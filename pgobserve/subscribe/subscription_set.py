"""What a socket's subscriptions to rows and to lists have in common: limits, names, starts and ends."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from django.db import DEFAULT_DB_ALIAS, router
from rest_framework.exceptions import APIException, ValidationError

from pgobserve import conf
from pgobserve._json import is_deeper
from pgobserve.cohorts.hook_context import HookContext
from pgobserve.cohorts.subscription_context import context_of
from pgobserve.cohorts.visibility import Visibility
from pgobserve.errors import FeedUnavailable
from pgobserve.exceptions import (
    ArgumentsTooLong,
    FeedDown,
    QueryTooLong,
    TooManyArguments,
    TooManySubscriptions,
)
from pgobserve.hub.subscriptions import ListSubscription, RowSubscription
from pgobserve.runtime.feed import LIVE_TIMEOUT
from pgobserve.subscribe.feeds import feed_of, unsubscribe
from pgobserve.workers.occupation import as_hook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Hashable, Mapping

    from django.db.models import Model

    from pgobserve.deliver.send_queue import SendQueue
    from pgobserve.generics import GenericAsyncAPIConsumer
    from pgobserve.hub.hub import Hub
    from pgobserve.hub.outcome import Refusal
    from pgobserve.hub.subscriptions import Subscription
    from pgobserve.runtime.feed import Feed

logger = logging.getLogger(__name__)
AnySubscription = TypeVar("AnySubscription", bound=RowSubscription | ListSubscription)
First = TypeVar("First")

#: Maximum length of a client's query as JSON, and of all arguments of a subscription together.
MAX_QUERY: Final = 8192
MAX_ARGUMENTS: Final = 16_384

#: Maximum nesting of lists and objects in them.
MAX_LEVELS: Final = 20


@dataclass(slots=True, eq=False)
class Socket:
    """
    A socket, and all of its subscriptions.

    Attributes:
        closed: Whether the socket is gone.
    """

    consumer: GenericAsyncAPIConsumer
    send_queue: SendQueue
    closed: bool = False
    sets: list[SubscriptionSet[Any]] = field(default_factory=list)

    def check_limit(self, size: int, replaced: Subscription | None) -> None:
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
        if replaced is None and sum(map(len, self.sets)) >= settings.MAX_SUBSCRIPTIONS:
            raise TooManySubscriptions(settings.MAX_SUBSCRIPTIONS)
        kept = sum(each.size for each in self.sets)
        if replaced is not None:
            kept -= context_of(replaced).size
        if kept + size > settings.MAX_ARGUMENT_BYTES:
            raise TooManyArguments(settings.MAX_ARGUMENT_BYTES)


class SubscriptionSet(Generic[AnySubscription]):
    """The subscriptions of a socket to rows, or to lists, by name."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._named: dict[Hashable, AnySubscription] = {}
        socket.sets.append(self)

    def __len__(self) -> int:
        return len(self._named)

    @property
    def all(self) -> list[AnySubscription]:
        """The subscriptions."""
        return [*self._named.values()]

    @property
    def size(self) -> int:
        """Length of all their arguments as JSON."""
        return sum(context_of(each).size for each in self._named.values())

    def end_all(self) -> None:
        """End all subscriptions."""
        for name, each in list(self._named.items()):
            self._drop(name, each)

    @asynccontextmanager
    async def _starting(self, what: str, about: Mapping[str, object]) -> AsyncIterator[None]:
        """Start a subscription to something in the block, which ends when the client leaves."""
        try:
            async with self._socket.consumer.attended():
                yield
        except FeedUnavailable as error:
            # The database's address and role are for the log alone.
            logger.warning(
                "%s could not subscribe a client to %s: %s",
                *(about["consumer"], what, error),
                extra=about,
            )
            raise FeedDown from error

    async def _see(
        self, model: type[Model] | None, kwargs: Mapping[str, Any], **options: Any
    ) -> Visibility:
        """Compile the queryset in a thread of the feed that will most likely read it."""
        feed = feed_of(DEFAULT_DB_ALIAS if model is None else router.db_for_write(model))
        consumer, ttl, origin = (
            self._socket.consumer,
            conf.get().QUERYSET_TTL,
            HookContext.current(),
        )
        owner = type(consumer)
        see = partial(Visibility, consumer, kwargs, ttl, origin=origin, **options)
        return await feed.call(partial(as_hook, owner, "get_queryset", see), owner=owner)

    async def _first(
        self,
        name: Hashable,
        subscription: AnySubscription,
        feed: Feed,
        add: Callable[[Hub], object],
        first: asyncio.Future[First],
    ) -> First:
        """Add the subscription to the hub, and return the first outcome; drop the subscription if there is none in time."""
        try:
            async with feed.subscribing() as hub:
                add(hub)
            return await asyncio.wait_for(first, LIVE_TIMEOUT)
        except TimeoutError as error:
            self._drop(name, subscription)
            what = "list" if isinstance(subscription, ListSubscription) else "row"
            raise FeedUnavailable(f"The {what} could not be read in time; try again.") from error
        except BaseException:
            self._drop(name, subscription)
            raise

    def _replace(self, name: Hashable, subscription: AnySubscription) -> None:
        """Replace the subscription with the same name, if any."""
        if self._socket.closed:
            unsubscribe(subscription)
            return
        before = self._named.get(name)
        self._named[name] = subscription
        if before is not None:
            unsubscribe(before)

    def _drop(self, name: Hashable, subscription: AnySubscription) -> None:
        if self._named.get(name) is subscription:
            del self._named[name]
        unsubscribe(subscription)


def encode_name(value: Any) -> str:
    """Return canonical JSON of a value; clients may use any JSON value as a name."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def check_arguments(kwargs: Mapping[str, Any]) -> int:
    """
    Return the length of a request's arguments as JSON.

    A long query delays the rows of other subscribers at each change: a search for twenty thousand words
    takes seconds. Arguments are kept as long as the subscription lives.

    Raises:
        QueryTooLong: The query is too long.
        ArgumentsTooLong: All arguments together are too long.
        ValidationError: They are nested too deeply.
    """
    if is_deeper(kwargs, MAX_LEVELS):
        raise ValidationError([f"Arguments may have {MAX_LEVELS} levels of lists and objects."])
    if len(encode_name(kwargs.get("query"))) > MAX_QUERY:
        raise QueryTooLong(MAX_QUERY)
    # Objects added by the project count by their type's name.
    size = len(json.dumps(kwargs, default=lambda value: type(value).__name__))
    if size > MAX_ARGUMENTS:
        raise ArgumentsTooLong(MAX_ARGUMENTS)
    return size


def exception_for(refusal: Refusal) -> Exception:
    """Return the exception that answers a refused request."""
    error = APIException(detail=list(refusal.errors))
    error.status_code = refusal.status
    return error
