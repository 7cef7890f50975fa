"""How the feeds of this process are: for health checks, metrics and people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgobserve.runtime.runtime import runtimes

if TYPE_CHECKING:
    from pgobserve.listen.listener import ListenerState
    from pgobserve.load.loader import LoaderState
    from pgobserve.outbox.outbox_pages import ReaderState


@dataclass(frozen=True, slots=True)
class FeedState:
    """
    The state of one feed.

    Attributes:
        alias: The database alias.
        subscriptions: How many there are.
        waiting: Rows that changed and are still to be read.
        listener: The LISTEN connection: live or not, since when, gaps healed, queue usage; None
            where nothing is listened to.
        reader: The reader of the outbox: live or not, since when, resets; None where there is none.
        loader: What was read, and failures in a row.
        unobserved: Watched tables that have lost their triggers, at the last look.
    """

    alias: str
    subscriptions: int
    waiting: int
    listener: ListenerState | None
    reader: ReaderState | None
    loader: LoaderState
    unobserved: tuple[str, ...]

    @property
    def live(self) -> bool:
        """Whether changes arrive now, on all the ways that they may come."""
        ways = (self.listener, self.reader)
        return all(way.live for way in ways if way is not None)


def feeds() -> list[FeedState]:
    """
    Return the state of each feed that runs in this process, of whatever event loop.

    May be called from any thread. A process nobody has subscribed in has none.

    Example:
        >>> all(feed.live for feed in feeds())
        True
    """
    return [
        FeedState(
            feed.options.alias,
            len(feed.hub),
            feed.hub.dirty,
            feed.listener.state if feed.listener is not None else None,
            feed.reader.state if feed.reader is not None and feed.reads_outbox else None,
            feed.loader.state,
            tuple(sorted(feed.trigger_monitor.missing)),
        )
        for runtime in runtimes()
        for feed in list(runtime.feeds.values())
        if feed.loader is not None and feed.running
    ]
