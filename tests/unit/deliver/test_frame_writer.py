"""Frames of rows: encoded once for all clients that receive the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pgobserve.deliver import frames
from pgobserve.deliver.frame_writer import FrameWriter
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.hub.outcome import NOTHING, UNKNOWN, View
from pgobserve.hub.subscriptions import ListSubscription
from tests.unit.test_fault_socket import _Context

if TYPE_CHECKING:
    import pytest


class Client:
    """A client with one list."""

    def __init__(self, request_id: str = "1") -> None:
        self.frames: list[dict[str, Any]] = []
        consumer = GenericAsyncAPIConsumer()
        consumer.base_send = self._receive
        context = _Context()
        context.request_id_text = request_id
        self.writer = FrameWriter(consumer, print)
        self.list = ListSubscription(self.writer.send_queue, 1, context, lambda _: None)

    async def _receive(self, message: Any) -> None:
        self.frames.append(json.loads(message["text"]))


async def test_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that receive the same rows one after the other share all but the request id."""
    keys: list[Any] = []
    encoded = frames.encoded
    monkeypatch.setattr(frames, "encoded", lambda key: keys.append(key) or encoded(key))
    views = {key: View.of(f'{{"id":{key}}}') for key in (1, 2)}
    clients = [Client("1"), Client('"b"')]
    for client in clients:
        for key, view in views.items():
            client.list.put(key, UNKNOWN, view)

    assert keys == [1, 2]
    one, other = (client.frames for client in clients)
    assert [frame.pop("request_id") for frame in one + other] == [1, 1, "b", "b"]
    assert one == other
    assert [(f["data"], f["key"], f["etag"]) for f in one] == [
        ({"id": key}, str(key), view.etag) for key, view in views.items()
    ]


async def test_one_view_in_different_frames() -> None:
    """A view that is another row elsewhere, or leads there from another state, has its own frame."""
    client, view = Client(), View.of("{}")
    for key, had in ((1, NOTHING), (1, UNKNOWN), (2, UNKNOWN), (1, UNKNOWN), (None, UNKNOWN)):
        client.list.put(key, had, view)

    assert [(f["action"], f.get("key"), "etag" in f) for f in client.frames] == [
        ("create", "1", True),
        ("update", "1", True),
        ("update", "2", True),
        ("update", "1", True),
        ("update", None, False),
    ]
