"""
Observers of Django's signals, which send messages through the channel layer.

They do not use PostgreSQL. The channel layer connects the process that sends the signal with the process
that has the socket; without a channel layer, consumers can't subscribe and signals are ignored.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer

from pgobserve.event_handlers.observer_base import BaseObserver
from pgobserve.logs import fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.dispatch import Signal

    from pgobserve.consumers import AsyncAPIConsumer
    from pgobserve.event_handlers.observer_base import Handler

__all__ = ["Observer", "observer"]

logger = logging.getLogger(__name__)

#: The event loop itself keeps no task alive.
_sending: set[asyncio.Task[None]] = set()


class Observer(BaseObserver):
    """A method that is decorated with :func:`observer`, called for each subscribed consumer."""

    def __init__(
        self,
        func: Handler,
        signal: Signal,
        kwargs: dict[str, Any] | None = None,
        partition: str = "*",
    ) -> None:
        super().__init__(func, partition)
        self.signal = signal
        signal.connect(self.handle, **(kwargs or {}))

    # In the process that sends the signal

    def handle(self, signal: Signal, *args: Any, **kwargs: Any) -> None:
        """Receive the signal; errors are logged and never reach the sender."""
        layer = get_channel_layer()
        if layer is None:
            return
        with self._errors_logged():
            message = self.serialize(signal, *args, **kwargs)
            groups = list(self.group_names_for_signal(*args, message=message, **kwargs))
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                async_to_sync(self._send)(layer, groups, message)
                return
            task = loop.create_task(self._send(layer, groups, message))
            _sending.add(task)
            task.add_done_callback(_sending.discard)

    def serialize(self, signal: Signal, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the channel-layer message for a signal."""
        body = {} if self._serializer is None else self._serializer(self, signal, *args, **kwargs)
        return {"type": self.message_type, "body": body}

    async def _send(self, layer: Any, groups: list[str], message: dict[str, Any]) -> None:
        with self._errors_logged():
            for group in groups:
                await layer.group_send(group, {**deepcopy(message), "group": group})

    @contextmanager
    def _errors_logged(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            name = self.func.__qualname__
            about = fields(consumer=name.rpartition(".")[0])
            logger.exception("The observer %s could not send its message.", name, extra=about)

    # In the process that has the socket

    async def subscribe(
        self, consumer: AsyncAPIConsumer, *args: Any, request_id: Any = None, **kwargs: Any
    ) -> list[str]:
        """Subscribe a consumer through the channel layer; see :meth:`BaseObserver.subscribe`."""
        groups = list(self.group_names_for_consumer(consumer, *args, **kwargs))
        for group in groups:
            await consumer.add_group(group)
            # A list, because a request id may be any JSON.
            ids = self._request_ids(consumer).setdefault(group, [])
            if request_id not in ids:
                ids.append(request_id)
        return groups

    async def unsubscribe(
        self, consumer: AsyncAPIConsumer, *args: Any, request_id: Any = None, **kwargs: Any
    ) -> list[str]:
        """End the subscription with a request id; without one, all of them."""
        groups = list(self.group_names_for_consumer(consumer, *args, **kwargs))
        for group in groups:
            subscribed = self._request_ids(consumer)
            left = [
                each
                for each in subscribed.get(group, [])
                if request_id is not None and each != request_id
            ]
            if left:
                subscribed[group] = left
            else:
                subscribed.pop(group, None)
                await consumer.remove_group(group)
        return groups

    def _request_ids(self, consumer: AsyncAPIConsumer) -> dict[str, list[Any]]:
        per_observer: dict[str, dict[str, list[Any]]] = consumer.__dict__.setdefault(
            "_observer_group_to_request_id", {}
        )
        return per_observer.setdefault(self._stable_observer_id, {})

    def _delivered_ids(self, consumer: AsyncAPIConsumer, group: str) -> list[Any]:
        ids = self._request_ids(consumer).get(group, [])
        return [each for each in ids if each is not None]


def observer(signal: Signal, **kwargs: Any) -> Callable[[Handler], Observer]:
    """
    Call a method of a consumer when any process sends a Django signal.

    Args:
        **kwargs: For ``signal.connect``, such as ``sender``.

    Example:
        >>> class Logins(AsyncAPIConsumer):
        ...     @observer(user_logged_in)
        ...     async def on_login(self, message, subscribing_request_ids=[], **kwargs):
        ...         for request_id in subscribing_request_ids:
        ...             await self.reply("login", data=message, request_id=request_id)
        ...
        ...     @on_login.serializer
        ...     def on_login(self, signal, user, **kwargs):
        ...         return {"user": user.pk}
        ...
        ...     @action()
        ...     async def watch_logins(self, request_id, **kwargs):
        ...         await self.on_login.subscribe(request_id=request_id)
    """

    def decorate(func: Handler) -> Observer:
        return Observer(func, signal, kwargs)

    return decorate
