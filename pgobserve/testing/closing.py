"""Ends feeds, before a test drops its database."""

from __future__ import annotations

from pgobserve.runtime import runtime


async def close_feeds() -> None:
    """
    End the feeds of the running event loop.

    A feed lingers for a few seconds after its last subscription, for pages that are reloaded. Tests that
    drop their database, or count threads or connections, end it at once. A later subscription starts a new
    feed.

    When this returns, the feeds' tasks and threads have ended and their database connections are closed. A
    thread that is stuck in the project's code is abandoned after two seconds.
    """
    await runtime.current().aclose()
