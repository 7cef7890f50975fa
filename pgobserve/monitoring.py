"""The state of this process's feeds, for health checks and metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgobserve.runtime.runtime import runtimes

if TYPE_CHECKING:
    from pgobserve.listen.intake import ListenerState
    from pgobserve.load.load_log import LoaderState
    from pgobserve.outbox.outbox_pages import ReaderState


@dataclass(frozen=True, slots=True)
class FeedState:
    """
    The state of a feed.

    Attributes:
        alias: The database alias.
        subscriptions: The number of subscriptions.
        waiting: Changed rows that have not been read yet.
        listener: The LISTEN connection: live or not, since when, gaps healed, queue usage; None without
            a listener.
        reader: The outbox reader: live or not, since when, resets; None without an outbox.
        loader: Rows read, and consecutive failures.
        unobserved: Watched tables that had lost their triggers at the last check.
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
        """Whether changes arrive now, from the listener and from the outbox."""
        ways = (self.listener, self.reader)
        return all(way.live for way in ways if way is not None)


def feeds() -> list[FeedState]:
    """
    Return the state of each feed in this process, of all event loops; may be called in any thread.

    A process without subscriptions has no feed.

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
