"""
Ten thousand rows at once, in one process: as the first frames of a list, and by DRF's list view.

``python -m benchmarks.reading.snapshots ROUNDS``; prints JSON: for each way and serializer the median
seconds, and the bytes that were allocated at most at a time.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import sys
import time
import tracemalloc
from functools import partial
from typing import TYPE_CHECKING, Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.reading.settings")
django.setup()

from asgiref.sync import sync_to_async  # noqa: E402
from rest_framework.generics import ListAPIView  # noqa: E402
from rest_framework.test import APIRequestFactory  # noqa: E402

from benchmarks.reading.consumers import AllBooksConsumer, NestedBooksConsumer  # noqa: E402
from benchmarks.reading.databases import COMMON  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CONSUMERS: dict[str, Any] = {"flat": AllBooksConsumer, "nested": NestedBooksConsumer}
ROWS = 10_000


async def listed(consumer: Any) -> int:
    """Subscribe once; return the bytes of the frames."""
    frames: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b""}
    task = asyncio.create_task(consumer.as_asgi()(scope, messages.get, frames.put))
    messages.put_nowait({"type": "websocket.connect"})
    await frames.get()
    text = json.dumps({"action": "subscribe_list", "request_id": 1})
    messages.put_nowait({"type": "websocket.receive", "text": text})
    size = 0
    while True:
        text = (await frames.get())["text"]
        size += len(text.encode())
        if not text.endswith('"more":true}'):
            break
    messages.put_nowait({"type": "websocket.disconnect", "code": 1000})
    await task
    return size


def viewed(consumer: Any) -> int:
    """Ask DRF's view of the same queryset and serializer; return the bytes of the answer."""
    books = consumer.queryset.exclude(author_id=COMMON)
    view = ListAPIView.as_view(queryset=books, serializer_class=consumer.serializer_class)
    response = view(APIRequestFactory().get("/", HTTP_ACCEPT="application/json")).render()
    return len(response.content)


async def measure(work: Callable[[], Awaitable[int]], rounds: int) -> dict[str, float]:
    """Return the median seconds, the peak of memory in bytes, and the bytes of the answer."""
    size, times = await work(), []
    for _ in range(rounds):
        gc.collect()
        began = time.perf_counter()
        await work()
        times.append(time.perf_counter() - began)
    gc.collect()
    tracemalloc.start()
    await work()
    tracemalloc.clear_traces()
    gc.collect()
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    await work()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"seconds": statistics.median(times), "peak": peak - before, "size": size}


async def main() -> None:
    """Measure all."""
    rounds = int(sys.argv[1])
    found = {}
    for name, consumer in CONSUMERS.items():
        in_one = type("InOneFrame", (consumer,), {"max_rows": ROWS})
        found[name] = {
            "view": await measure(partial(sync_to_async(viewed), consumer), rounds),
            "pages": await measure(partial(listed, consumer), rounds),
            "one frame": await measure(partial(listed, in_one), rounds),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main())
