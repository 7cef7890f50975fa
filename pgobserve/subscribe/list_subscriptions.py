"""The subscriptions of one socket to lists: how they start, are replaced, and end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from pgobserve.cohorts.subscription_context import SubscriptionContext
from pgobserve.errors import ConfigurationError
from pgobserve.exceptions import NotWatchable
from pgobserve.hub.outcome import Refusal
from pgobserve.hub.subscriptions import ListSubscription
from pgobserve.logs import fields
from pgobserve.sql.relation_path import paths_of
from pgobserve.subscribe.feeds import feed_of, observed_subject
from pgobserve.subscribe.subscription_set import (
    SubscriptionSet,
    check_arguments,
    encode_name,
    exception_for,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.db.models import Model

    from pgobserve.cohorts.cohort import Wanted
    from pgobserve.hub.hub import Hub
    from pgobserve.hub.subscriptions import ListSnapshot

logger = logging.getLogger(__name__)


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
