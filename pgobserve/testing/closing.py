"""End the feeds that a test started, before its database goes away."""

from __future__ import annotations

from pgobserve.runtime import runtime


async def close_feeds() -> None:
    """
    End the feeds of the running event loop.

    A feed lingers for a few seconds after its last subscription, so that a page that is loaded
    again finds it running. A test that drops its database, or that counts threads or connections,
    ends it at once. A subscription made afterwards starts a new feed.

    When this returns the feeds' tasks and threads have ended and their database connections are
    closed. A thread that is stuck in the project's own code is left behind after two seconds.
    """
    await runtime.current().aclose()
