"""
The yardstick for lists: one list for all sockets, and nothing else.

LISTEN, one prepared SELECT for the keys of a notification, one ``dumps`` for each row, one ``send``
for each socket and row. It knows of no row that enters or leaves, and of nothing that happens
between the list that it sends first and the next change.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from benchmarks.reading.bare import connect, frame

COLUMNS = "SELECT id, title, pages, price, author_id AS author FROM reading_book"
LIST = f"{COLUMNS} WHERE id <= 1000 ORDER BY id"
ROWS = f"{COLUMNS} WHERE id <= 1000 AND id = ANY(%s)"

watching: dict[Any, str] = {}
reading: Any = None


async def serve() -> None:
    """Deliver each change to all."""
    listening = await connect()
    await listening.execute("LISTEN pgobserve")
    async for notification in listening.notifies():
        keys = json.loads(notification.payload)["k"]
        for row in await (await reading.execute(ROWS, [keys], prepare=True)).fetchall():
            data = dumped(row)
            for send, request_id in list(watching.items()):
                await send(
                    {"type": "websocket.send", "text": frame("update", 200, data, request_id)}
                )


def dumped(row: Any) -> str:
    """Return a row as JSON."""
    row["price"] = str(row["price"])
    return json.dumps(row, separators=(",", ":"))


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Serve one socket, or start when the server starts."""
    global reading
    if scope["type"] == "lifespan":
        await receive()
        reading = await connect()
        task = asyncio.create_task(serve())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        task.cancel()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        request_id = json.dumps(json.loads(message["text"])["request_id"])
        rows = await (await reading.execute(LIST, prepare=True)).fetchall()
        data = f'{{"results":[{",".join(map(dumped, rows))}]}}'
        watching[send] = request_id
        text = frame("subscribe_list", 201, data, request_id)
        await send({"type": "websocket.send", "text": text})
    watching.pop(send, None)
