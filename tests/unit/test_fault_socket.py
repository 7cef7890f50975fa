"""Sends that fail because the client is gone, as each server says it."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from autobahn.exception import Disconnected
from uvicorn.protocols.utils import ClientDisconnected as UvicornDisconnected

from pgobserve._consumer.json_socket import JsonSocket
from pgobserve.cohorts.subscription_context import SubscriptionContext
from pgobserve.deliver.frame_writer import FrameWriter
from pgobserve.exceptions import ClientDisconnected
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.hub.outcome import View
from pgobserve.hub.subscriptions import RowSubscription
from pgobserve.logs import fields


class _Context(SubscriptionContext):
    """The context of a subscription without a queryset."""

    def __init__(self) -> None:
        self.custom_delivery = self.wants_etag = False
        self.request_id_text, self.named_by = "1", None

    def about(self, key: object = None) -> dict[str, object]:
        return fields(key=key)


GONE = [Disconnected("Attempt to send on a closed protocol"), UvicornDisconnected(), OSError()]


@pytest.mark.parametrize("error", GONE, ids=lambda error: type(error).__module__)
async def test_reply_to_a_client_that_is_gone(error: Exception) -> None:
    """A reply that meets a closed socket is one error, whatever the server."""

    async def send(_: Any) -> None:
        raise error

    socket = JsonSocket()
    socket.base_send = send
    with pytest.raises(ClientDisconnected):
        await socket.send_json({})


@pytest.mark.parametrize("error", GONE, ids=lambda error: type(error).__module__)
async def test_event_for_a_client_that_is_gone(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """An event that meets a closed socket is the last one, and no error."""
    sends = []

    async def send(message: Any) -> None:
        sends.append(message)
        raise error

    consumer = GenericAsyncAPIConsumer()
    consumer.base_send = send
    send_queue = FrameWriter(consumer, print).send_queue
    for key in (1, 2):
        watch = RowSubscription(send_queue, key, 1, _Context(), lambda *_: None)
        watch.on_started = None
        with caplog.at_level(logging.ERROR):
            send_queue.put(watch, View.of("{}"))

    assert len(sends) == 1
    assert not caplog.records


@pytest.mark.parametrize("gone", [False, True])
async def test_other_errors_once_the_client_has_left(
    gone: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """What a server raises for an event is an error, unless the client is known to have left."""
    consumer = GenericAsyncAPIConsumer()
    consumer._gone = gone
    sends = []

    async def send(message: Any) -> None:
        sends.append(message)
        raise RuntimeError("Unexpected ASGI message")

    consumer.server_send = send
    send_queue = FrameWriter(consumer, print).send_queue
    for key in (1, 2):
        watch = RowSubscription(send_queue, key, 1, _Context(), lambda *_: None)
        watch.on_started = None
        send_queue.put(watch, View.of("{}"))

    assert len(sends) == (1 if gone else 2)
    assert len(caplog.records) == (0 if gone else 2)
