"""Reasons why a frame can't be sent, and whose cancellation a task sees."""

from __future__ import annotations

import asyncio
import sys

from pgobserve.exceptions import FrameTooLarge


def is_being_cancelled() -> bool:
    """Return whether a ``CancelledError`` cancels the current task, not something it awaited."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def is_gone(error: BaseException) -> bool:
    """Return whether sending failed because the client is gone."""
    # Daphne lets Autobahn's error through, which is no OSError. Importing Autobahn takes a third of a second;
    # if it can raise the error at all, Daphne has imported it.
    autobahn = sys.modules.get("autobahn.exception")
    return isinstance(error, OSError) or (
        autobahn is not None and isinstance(error, autobahn.Disconnected)
    )


def is_too_large(error: BaseException) -> bool:
    """Return whether sending failed because the frame is too large for the server."""
    autobahn = sys.modules.get("autobahn.exception")
    return isinstance(error, FrameTooLarge) or (
        autobahn is not None and isinstance(error, autobahn.PayloadExceededError)
    )


def is_sendable(text: str, limit: int) -> bool:
    """Return whether a frame has at most ``limit`` bytes."""
    if text.isascii() or len(text) > limit:
        return len(text) <= limit
    # A character has at most four bytes. A lone surrogate fails later, when it is sent.
    return len(text) * 4 <= limit or len(text.encode(errors="surrogatepass")) <= limit
