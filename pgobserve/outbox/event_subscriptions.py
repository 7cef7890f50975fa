"""The subscriptions of a process to outbox events, and how far it has read."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from pgobserve.logs import fields
from pgobserve.outbox.cursor import Progress

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from pgobserve.hub.snapshot import Snapshot
    from pgobserve.outbox.cursor import Cursor
    from pgobserve.outbox.event import Event, Reset

    Callback = Callable[[Sequence[Event | Reset]], Awaitable[object] | None]

logger = logging.getLogger(__name__)


class EventSubscription:
    """
    A subscription to the events of some tables.

    Attributes:
        since: The snapshot that it starts at; it receives nothing that is visible there.
        started: Set when ``since`` is known.
        closed: It receives nothing any more.
    """

    __slots__ = ("callback", "closed", "labels", "on_close", "since", "started")

    def __init__(
        self,
        labels: Collection[str],
        callback: Callback,
        on_close: Callable[[EventSubscription], None],
    ) -> None:
        self.labels = frozenset(labels)
        self.callback = callback
        self.on_close = on_close
        self.since: Snapshot | None = None
        self.started = asyncio.Event()
        self.closed = False

    def close(self) -> None:
        """End the subscription."""
        if not self.closed:
            self.closed = True
            self.on_close(self)


class EventSubscriptions:
    """
    The subscriptions of a feed; they outlive a reader that fails.

    Attributes:
        progress: What has been delivered to all of them.
    """

    def __init__(self) -> None:
        self.progress = Progress()
        self._subscriptions: dict[EventSubscription, None] = {}

    def __len__(self) -> int:
        return len(self._subscriptions)

    @property
    def cursor(self) -> Cursor | None:
        """What has been delivered; None before the first read."""
        return self.progress.cursor

    def add(self, subscription: EventSubscription) -> None:
        """Add a subscription; the next read starts it."""
        self._subscriptions[subscription] = None

    def discard(self, subscription: EventSubscription) -> None:
        """Remove a subscription."""
        self._subscriptions.pop(subscription, None)

    def start(self) -> list[EventSubscription]:
        """Start the new subscriptions at the cursor; return all that have started."""
        # In the middle of several pages, others have received a part of what is visible at their end.
        if self.cursor is not None and self.cursor.place is None:
            for each in self._subscriptions:
                if each.since is None:
                    each.since = self.cursor.seen
                    each.started.set()
        return [each for each in self._subscriptions if each.since is not None]

    async def deliver(
        self, subscriptions: Sequence[EventSubscription], events: Sequence[Event | Reset]
    ) -> None:
        """
        Deliver to each subscription the events of its tables; a callback that fails stops no other.

        Waits for subscribers with a full backlog, so that memory stays bounded.
        """
        for each in subscriptions:
            own = [event for event in events if event.label is None or event.label in each.labels]
            if own and not each.closed:
                try:
                    if (catching_up := each.callback(own)) is not None:
                        await catching_up
                except Exception:
                    labels, xid = ", ".join(sorted(each.labels)), own[0].xid
                    logger.exception(
                        "A subscriber to events of %s failed on transaction %s; it receives the "
                        "next ones.",
                        *(labels, xid),
                        extra=fields(model=labels, transaction=xid),
                    )
