"""
Writes down each event that it handles, one line for each, until it is killed.

A ``worker`` handles those of a named cursor; a ``follower`` hears those of a server's process.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import django

if TYPE_CHECKING:
    from collections.abc import Sequence


def state(instance: Any) -> list[Any] | None:
    """Return what is in a row, for comparing."""
    return None if instance is None else [instance.name, instance.rank]


def written(event: Any) -> bytes:
    """Return the line of an event."""
    import pgobserve

    if isinstance(event, pgobserve.Reset):
        line: dict[str, Any] = {"reset": event.why}
    else:
        old, new = state(event.old), state(event.new)
        line = {"key": event.key, "xid": event.xid, "old": old, "new": new}
    return json.dumps({**line, "pid": os.getpid()}).encode() + b"\n"


async def worker(file: IO[bytes]) -> None:
    """Handle events for ever."""
    import pgobserve

    async for event in pgobserve.events("project.Item", cursor="chain"):
        # To handle an event takes a while, in which anything may happen.
        await asyncio.sleep(0.002)
        file.write(written(event))


async def follower(file: IO[bytes]) -> None:
    """Follow events for ever."""
    from pgobserve.subscribe.feeds import feed_of

    def hear(events: Sequence[Any]) -> None:
        for event in events:
            file.write(written(event))

    await feed_of("default").subscribe_events(["project.item"], hear)
    file.write(json.dumps({"begun": True, "pid": os.getpid()}).encode() + b"\n")
    await asyncio.Event().wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    django.setup()
    # Each line is one write to the end of the file, so that two processes can share it.
    with Path(sys.argv[2]).open("ab", buffering=0) as log:
        asyncio.run({"worker": worker, "follower": follower}[sys.argv[1]](log))
