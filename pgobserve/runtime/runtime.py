"""The runtime of an event loop: its feeds, one for each database alias."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final
from weakref import WeakMethod, WeakSet

from pgobserve.runtime.feed import Feed
from pgobserve.workers.loop_tripwire import at_close

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgobserve.runtime.stages import Options


class Runtime:
    """The feeds of one event loop."""

    def __init__(self) -> None:
        self.feeds: dict[str, Feed] = {}
        self.process = os.getpid()

    def feed(self, alias: str, options: Callable[[str], Options]) -> Feed:
        """Return the feed of a database alias. The first call makes it."""
        if alias not in self.feeds:
            self.feeds[alias] = Feed(options(alias))
        return self.feeds[alias]

    async def aclose(self) -> None:
        """End all feeds. Their connections are closed when this returns."""
        for feed in self.feeds.values():
            await feed.aclose()

    def abandon(self) -> None:
        """Release what a closed event loop can no longer end."""
        _runtimes.discard(self)
        for feed in self.feeds.values():
            feed.abandon()


#: The runtimes of all event loops. A loop owns its runtime by an attribute, so that both end together.
_runtimes: WeakSet[Runtime] = WeakSet()

_ATTRIBUTE: Final = "_pgobserve_runtime"


def current() -> Runtime:
    """Return the runtime of the running event loop. It ends with the loop."""
    loop = asyncio.get_running_loop()
    runtime: Runtime | None = getattr(loop, _ATTRIBUTE, None)
    # After a fork the threads and connections belong to the parent process.
    if runtime is None or runtime.process != os.getpid():
        runtime = Runtime()
        setattr(loop, _ATTRIBUTE, runtime)
        _runtimes.add(runtime)
        at_close(loop, WeakMethod(runtime.abandon))
    return runtime


def runtimes() -> list[Runtime]:
    """Return the runtimes of all event loops of this process."""
    return [runtime for runtime in _runtimes if runtime.process == os.getpid()]
