"""Waits until everything committed so far has been sent to one socket."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING

from pgobserve._consumer.inbox import together
from pgobserve.cohorts.subscription_context import context_of
from pgobserve.subscribe.feeds import feed_of

if TYPE_CHECKING:
    from pgobserve.deliver.send_queue import SendQueue
    from pgobserve.hub.list_subscription import ListSubscription
    from pgobserve.hub.row_subscription import RowSubscription
    from pgobserve.runtime.feed import Feed
    from pgobserve.subscribe.row_subscriptions import Subscriptions

    Places = dict[Feed, list[RowSubscription | ListSubscription]]


async def settle(subscriptions: Subscriptions) -> None:
    """
    Return when everything that was committed before this call has been sent to a socket.

    It does not wait for later subscriptions. A row that can't be shown counts as sent with its error frame.

    Raises:
        FeedUnavailable: A feed is being stopped.
    """
    places: Places = defaultdict(list)
    for watch in subscriptions.all_watches:
        places[feed_of(context_of(watch).alias)].append(watch)
    if not places:
        return
    await together(feed.fence.passed() for feed in places)
    while not await _sent(places, subscriptions.send_queue):
        pass


async def _sent(places: Places, send_queue: SendQueue) -> bool:
    """Wait for loads and their frames; return whether there are no more."""
    withdrawn = send_queue.withdrawn
    await together(feed.delivered(watches) for feed, watches in places.items())
    await _flushed(send_queue)
    # A frame that waited too long was withdrawn, and its row is being read again.
    again = send_queue.withdrawn != withdrawn
    for feed, watches in places.items():
        again = await feed.retried(watches) or again
    return not again


async def _flushed(send_queue: SendQueue) -> None:
    """Return when everything that waits in a queue now has been sent."""
    reached = asyncio.Event()
    send_queue.put_barrier(reached.set)
    await reached.wait()
