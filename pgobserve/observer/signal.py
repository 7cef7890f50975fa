"""
Observers of Django's signals: what a signal says is sent through the channel layer.

They have nothing to do with PostgreSQL. The process that sends the signal and the one that has the
socket find each other by the channel layer; without one configured, nobody can subscribe and
signals are not listened to.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from copy import deepcopy
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, overload

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer

if TYPE_CHECKING:
    from django.dispatch import Signal

    from pgobserve.consumers import AsyncAPIConsumer

__all__ = ["Observer", "observer"]

logger = logging.getLogger(__name__)

Handler = Callable[..., Awaitable[Any]]
Groups = Callable[..., Iterable[str]]

#: Stands in the request ids of a group for a subscription that was made without one.
_UNNAMED = object()


class Observer:
    """
    What a method becomes that is decorated with :func:`observer`.

    Attributes:
        func: The method: called for each subscribed consumer.
        signal: The signal.
    """

    def __init__(
        self,
        func: Handler,
        signal: Signal,
        kwargs: dict[str, Any] | None = None,
        partition: str = "*",
    ) -> None:
        self.func = func
        self.signal = signal
        self._serializer: Callable[..., Any] | None = None
        self._groups_for_signal: Groups | None = None
        self._groups_for_consumer: Groups | None = None
        # The class's name is part of it: two consumers of a module may each have such a method.
        self._stable_observer_id = (
            f"{partition}-{type(self).__name__}-{func.__module__}.{func.__qualname__}"
        )
        update_wrapper(self, func)
        signal.connect(self.handle, **(kwargs or {}))

    # Decorators

    def serializer(self, func: Callable[..., Any]) -> Observer:
        """
        Let ``func(self, signal, sender=…, **kwargs)`` say what is sent; ``self`` is the observer.

        It runs once for each signal, where the signal is sent.
        """
        self._serializer = func
        return self

    def groups_for_signal(self, func: Groups) -> Observer:
        """Let ``func(self, message=…, sender=…, **kwargs)`` yield the groups that a signal is for."""
        self._groups_for_signal = func
        return self

    def groups_for_consumer(self, func: Groups) -> Observer:
        """Let ``func(self, *args, consumer=…, **kwargs)`` yield the groups to subscribe to."""
        self._groups_for_consumer = func
        return self

    def groups(self, func: Groups) -> Observer:
        """Let ``func`` yield both."""
        return self.groups_for_signal(func).groups_for_consumer(func)

    # Where the signal is sent

    def handle(self, signal: Signal, *args: Any, **kwargs: Any) -> None:
        """Receive the signal; what goes wrong is logged, and never the sender's problem."""
        layer = get_channel_layer()
        if layer is None:
            return
        try:
            message = self.serialize(signal, *args, **kwargs)
            groups = list(self.group_names_for_signal(*args, message=message, **kwargs))
            _run(self._send(layer, groups, message))
        except Exception:
            logger.exception("The observer %s could not send.", self._stable_observer_id)

    def serialize(self, signal: Signal, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the message for a signal, as the channel layer wants it."""
        body = {} if self._serializer is None else self._serializer(self, signal, *args, **kwargs)
        return {"type": self.func.__name__.replace("_", "."), "body": body}

    async def _send(self, layer: Any, groups: list[str], message: dict[str, Any]) -> None:
        for group in groups:
            await layer.group_send(group, {**deepcopy(message), "group": group})

    # Where the socket is

    @overload
    def __get__(self, consumer: None, owner: type) -> Observer: ...
    @overload
    def __get__(self, consumer: AsyncAPIConsumer, owner: type) -> BoundObserver: ...
    def __get__(self, consumer: AsyncAPIConsumer | None, owner: type) -> Observer | BoundObserver:
        return self if consumer is None else BoundObserver(self, consumer)

    async def __call__(
        self, message: dict[str, Any], consumer: AsyncAPIConsumer | None = None, **kwargs: Any
    ) -> Any:
        """Call the method with a message of the channel layer."""
        content = deepcopy(message)
        body, message_type = content.pop("body", {}), content.pop("type")
        group = content.get("group", "")
        ids = [] if consumer is None else self._request_ids(consumer).get(group, [])
        return await self.func(
            consumer,
            body,
            observer=self,
            message_type=message_type,
            subscribing_request_ids=[each for each in ids if each is not _UNNAMED],
            **content,
            **kwargs,
        )

    async def subscribe(
        self, consumer: AsyncAPIConsumer, *args: Any, request_id: Any = None, **kwargs: Any
    ) -> list[str]:
        """
        Subscribe a consumer.

        Args:
            consumer: Given by itself in ``self.method.subscribe(…)``.
            *args: For ``groups_for_consumer``.
            request_id: Given to the method as one of ``subscribing_request_ids``.
            **kwargs: For ``groups_for_consumer``.

        Returns:
            The groups of the channel layer.
        """
        groups = list(self.group_names_for_consumer(*args, consumer=consumer, **kwargs))
        name = _UNNAMED if request_id is None else request_id
        for group in groups:
            await consumer.add_group(group)
            # A list, since a request id may be anything that JSON can say.
            ids = self._request_ids(consumer).setdefault(group, [])
            if name not in ids:
                ids.append(name)
        return groups

    async def unsubscribe(
        self, consumer: AsyncAPIConsumer, *args: Any, request_id: Any = None, **kwargs: Any
    ) -> list[str]:
        """Undo what ``subscribe`` did with that request id, or everything without one."""
        groups = list(self.group_names_for_consumer(*args, consumer=consumer, **kwargs))
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

    # Groups

    def group_names_for_signal(self, *args: Any, **kwargs: Any) -> Iterator[str]:
        """Yield the channel-layer groups that a signal is for."""
        return self._names(self._groups_for_signal, args, kwargs)

    def group_names_for_consumer(self, *args: Any, **kwargs: Any) -> Iterator[str]:
        """Yield the channel-layer groups to subscribe to."""
        return self._names(self._groups_for_consumer, args, kwargs)

    def _names(
        self, groups: Groups | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Iterator[str]:
        if groups is None:
            yield _group_name(self._stable_observer_id)
            return
        for group in groups(self, *args, **kwargs):
            yield _group_name(f"{self._stable_observer_id}-{group}")


class BoundObserver:
    """An observer as it is found on a consumer: the consumer need not be given."""

    def __init__(self, observer: Observer, consumer: AsyncAPIConsumer) -> None:
        self._observer = observer
        self._consumer = consumer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._observer, name)

    async def __call__(self, message: dict[str, Any], **kwargs: Any) -> Any:
        """Call the method with a message of the channel layer."""
        return await self._observer(message, consumer=self._consumer, **kwargs)

    async def subscribe(self, *args: Any, request_id: Any = None, **kwargs: Any) -> list[str]:
        """Subscribe the consumer; see :meth:`Observer.subscribe`."""
        consumer = kwargs.pop("consumer", self._consumer)
        return await self._observer.subscribe(consumer, *args, request_id=request_id, **kwargs)

    async def unsubscribe(self, *args: Any, request_id: Any = None, **kwargs: Any) -> list[str]:
        """Unsubscribe the consumer; see :meth:`Observer.unsubscribe`."""
        consumer = kwargs.pop("consumer", self._consumer)
        return await self._observer.unsubscribe(consumer, *args, request_id=request_id, **kwargs)


def observer(signal: Signal, **kwargs: Any) -> Callable[[Handler], Observer]:
    """
    Let a method of a consumer be called when a Django signal is sent, in whatever process.

    Args:
        signal: The signal.
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


_sending: set[asyncio.Task[None]] = set()


def _run(work: Any) -> None:
    """Run ``work`` to its end, or beside the event loop where this is called in one."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        async_to_sync(_awaited)(work)
        return
    task = loop.create_task(work)
    _sending.add(task)
    task.add_done_callback(_sent)


async def _awaited(work: Any) -> None:
    await work


def _sent(task: asyncio.Task[None]) -> None:
    _sending.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("A signal's message could not be sent.", exc_info=error)


def _group_name(name: str) -> str:
    # Channel layers allow 100 letters, digits and a few signs.
    return f"DCRF-{hashlib.sha256(name.encode()).hexdigest()}"
