"""Waits until everything committed so far has been sent to one socket."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING

from pgobserve._consumer.inbox import together
from pgobserve.cohorts.subscription_context import context_of
from pgobserve.hub.backlog import Backlog, untold
from pgobserve.subscribe.feeds import feed_of

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable

    from pgobserve.deliver.send_queue import SendQueue
    from pgobserve.hub.hub import Hub
    from pgobserve.hub.subscriptions import Subscription
    from pgobserve.runtime.feed import Feed
    from pgobserve.subscribe.socket_subscriptions import Subscriptions

    Places = dict[Feed, list[Subscription]]


async def settle(subscriptions: Subscriptions) -> None:
    """
    Return when everything that was committed before this call has been sent to a socket.

    It does not wait for later subscriptions. A row that can't be shown counts as sent with its error frame.

    Raises:
        FeedUnavailable: A feed is being stopped.
    """
    places: Places = defaultdict(list)
    for each in subscriptions.all:
        places[feed_of(context_of(each).alias)].append(each)
    if not places:
        return
    await together(feed.fence.passed() for feed in places)
    while not await _sent(places, subscriptions.send_queue):
        pass


async def _sent(places: Places, send_queue: SendQueue) -> bool:
    """Wait for loads and their frames; return whether there are no more."""
    withdrawn = send_queue.withdrawn
    await together(_delivered(feed.hub, subscribed) for feed, subscribed in places.items())
    flushed = asyncio.Event()
    send_queue.put_barrier(flushed.set)
    await flushed.wait()
    # A frame that waited too long was withdrawn, and its row is being read again.
    again = send_queue.withdrawn != withdrawn
    for feed, subscribed in places.items():
        again = await _retried(feed, subscribed) or again
    return not again


async def _delivered(hub: Hub, subscribed: Collection[Subscription]) -> None:
    """
    Return when the loads outstanding now for some subscriptions have been delivered.

    Delivered rows are in the subscriptions' send queues. Failed loads are retried, and waited for.
    """
    backlog = Backlog(hub, subscribed)
    while (thing := backlog.waits_for()) is not None:
        await _progress_of(thing, hub)


async def _retried(feed: Feed, subscribed: Collection[Subscription]) -> bool:
    """Wait for the retry of a load that failed without any frame; return whether there was one."""
    failing = [] if feed.loader is None else feed.loader.failing
    waiting = untold(failing, feed.hub, subscribed) if failing else ()
    if waiting:
        await _progress_of(waiting[0], feed.hub)
    return bool(waiting)


async def _progress_of(thing: Hashable, hub: Hub) -> None:
    progress = asyncio.Event()
    callback = progress.set
    hub.watch_progress(thing, callback)
    try:
        await progress.wait()
    finally:
        hub.forget_progress(thing, callback)
