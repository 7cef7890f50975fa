"""The way of a change through the house, as the architecture page has it."""

from __future__ import annotations

import asyncio
import re
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from rest_framework.serializers import Serializer

import pgobserve
from pgobserve.hub.hub import Hub
from pgobserve.runtime import runtime
from pgobserve.sql import keyed_query
from pgobserve.workers.thread_pool import ThreadPool
from tests.integration.deliver.conftest import run_sql
from tests.integration.deliver.test_instance import UPDATE, ItemConsumer

PACKAGE = Path(pgobserve.__file__).parent
PAGE = PACKAGE.parent / "docs/explanation/architecture.md"

#: Where the change is handed on. The calls that lead there are its way.
LANDMARKS = {
    Hub.publish.__code__,
    ThreadPool.run.__code__,
    keyed_query.fetch_many.__code__,
    Serializer.to_representation.__code__,
    # The test's server takes frames by a queue.
    asyncio.Queue.put.__code__,
}

#: A newcomer reads so many functions in so many files to follow a change. These numbers only go down.
MAX_CALLS = 25
MAX_FILES = 12

Step = tuple[str, str]


class Tracer:
    """Records the calls of the package that lead to a landmark, in their order."""

    def __init__(self, landmarks: set[Any]) -> None:
        self.steps: dict[Step, None] = {}
        self._landmarks = landmarks

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code in self._landmarks:
            stack = []
            while frame is not None:
                code = frame.f_code
                if code.co_filename.startswith(str(PACKAGE)) and not code.co_name.startswith("<"):
                    file = Path(code.co_filename).relative_to(PACKAGE)
                    stack.append((str(file), code.co_name))
                frame = frame.f_back
            self.steps |= dict.fromkeys(reversed(stack))


def documented() -> list[Step]:
    """Return the calls in the table of the architecture page."""
    return re.findall(r"^\| `([\w/]+\.py)` \| `(\w+)` \|", PAGE.read_text(), re.M)


@pytest.mark.parametrize("transport", ["notify"])
async def test_way(connect: Any, item: Any, transport: str, settings: Any) -> None:
    """A raw UPDATE passes the documented functions, in their order."""
    settings.PGOBSERVE = {"TRANSPORT": transport, "LOADER_THREADS": 1}
    socket = await connect(ItemConsumer)
    await socket.subscribe(item.pk, 7)
    await run_sql(UPDATE, "warm", item.pk)
    await socket.receive()
    tracer = Tracer(LANDMARKS)
    loader = runtime.current().feeds["default"].loader
    assert loader is not None
    await loader.call(lambda: sys.setprofile(tracer))
    sys.setprofile(tracer)
    try:
        await run_sql(UPDATE, "two", item.pk)
        await socket.receive()
    finally:
        sys.setprofile(None)
        await loader.call(lambda: sys.setprofile(None))
    steps = [*tracer.steps]

    assert steps == documented()
    assert len(steps) <= MAX_CALLS
    assert len({file for file, _ in steps}) <= MAX_FILES
    folders = [folder for folder, _ in groupby(Path(file).parent for file, _ in steps)]
    assert len(folders) == len({*folders}), "the way leads back into a folder that it has left"
