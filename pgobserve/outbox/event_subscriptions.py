"""The subscriptions of a process to outbox events, and how far it has read."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgobserve.logs import fields
from pgobserve.outbox.cursor import Progress

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pgobserve.hub.snapshot import Snapshot
    from pgobserve.outbox.cursor import Cursor
    from pgobserve.outbox.event import Event, Reset

    Callback = Callable[[Sequence[Event | Reset]], Awaitable[object] | None]

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class EventSubscription:
    """A subscription to the events of some tables that are not visible in ``since``, once that is known."""

    labels: frozenset[str]
    callback: Callback
    on_close: Callable[[EventSubscription], None]
    since: Snapshot | None = None
    started: asyncio.Event = field(default_factory=asyncio.Event)
    closed: bool = False

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.on_close(self)


class EventSubscriptions:
    """The subscriptions of a feed, and what all have received; they outlive a reader that fails."""

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
