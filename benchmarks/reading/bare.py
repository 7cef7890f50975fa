"""
The yardstick: an ASGI application that does this one thing and nothing else.

LISTEN, one prepared SELECT for the keys of a notification, one ``dumps`` for each row, one ``send``
for each socket. No Django, no thread, no permission, no reconnection, no serializer; it forgets
what happens while it does not look, and one socket that does not read stops it for all.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import defaultdict
from typing import Any

import psycopg
from psycopg.rows import dict_row

SELECT = "SELECT id, name, rank, price, changed FROM reading_item WHERE id = ANY(%s)"

watching: defaultdict[int, dict[Any, str]] = defaultdict(dict)


def connect() -> Any:
    """Return a connection to come."""
    parameters = json.loads(os.environ["BENCHMARK_DATABASE"])
    return psycopg.AsyncConnection.connect(**parameters, autocommit=True, row_factory=dict_row)


async def serve() -> None:
    """Deliver each change to all who watch its rows."""
    listening, reading = await connect(), await connect()
    await listening.execute("LISTEN pgobserve")
    async for notification in listening.notifies():
        keys = [key for key in json.loads(notification.payload)["k"] if key in watching]
        for row in await (await reading.execute(SELECT, [keys], prepare=True)).fetchall():
            row["price"], row["changed"] = str(row["price"]), row["changed"].isoformat()
            data = json.dumps(row, separators=(",", ":"))
            for send, request_id in watching[row["id"]].items():
                await send(
                    {"type": "websocket.send", "text": frame("update", 200, data, request_id)}
                )


def frame(action: str, status: int, data: str, request_id: str) -> str:
    """Put a frame together; the body was encoded once."""
    return (
        f'{{"errors":[],"data":{data},"action":"{action}","response_status":{status},'
        f'"request_id":{request_id}}}'
    )


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Serve one socket, or start when the server starts."""
    if scope["type"] == "lifespan":
        await receive()
        task = asyncio.create_task(serve())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        task.cancel()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await receive()
    await send({"type": "websocket.accept"})
    keys: list[int] = []
    while (message := await receive())["type"] == "websocket.receive":
        content = json.loads(message["text"])
        request_id = json.dumps(content["request_id"])
        keys.append(content["pk"])
        watching[content["pk"]][send] = request_id
        text = frame("subscribe_instance", 201, "null", request_id)
        await send({"type": "websocket.send", "text": text})
    for key in keys:
        watching[key].pop(send, None)
