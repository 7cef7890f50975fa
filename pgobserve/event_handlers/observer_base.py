"""
The base of observers: a consumer's method, its groups and its serializer.

A decorator replaces the method with an observer. Accessed on an instance, it is bound to the consumer.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Iterator
from copy import deepcopy
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Self, overload

if TYPE_CHECKING:
    from collections.abc import Collection

    from django.db.models import Model

    from pgobserve.consumers import AsyncAPIConsumer
    from pgobserve.event_handlers.event_tables import EventTables

__all__ = ["BaseObserver", "BoundObserver"]

Handler = Callable[..., Awaitable[Any]]
Groups = Callable[..., Iterable[str]]


class BaseObserver:
    """A method of a consumer that is called for events; ``partition`` distinguishes otherwise equal ones."""

    def __init__(self, func: Handler, partition: str = "*") -> None:
        self.func = func
        self._serializer: Callable[..., Any] | None = None
        self._group_names_for_signal: Groups | None = None
        self._group_names_for_consumer: Groups | None = None
        # With the consumer's name: two consumers of a module may have methods of the same name.
        self._stable_observer_id = (
            f"{partition}-{type(self).__name__}-{func.__module__}.{func.__qualname__}"
        )
        update_wrapper(self, func)

    @property
    def message_type(self) -> str:
        """The method's name in the channel layer's form; handlers receive it."""
        return self.func.__name__.replace("_", ".")

    # Decorators

    def serializer(self, func: Callable[..., Any]) -> Self:
        """Make messages with ``func``; its ``self`` is the observer."""
        self._serializer = func
        return self

    def groups_for_signal(self, func: Groups) -> Self:
        """Get the groups of an event from ``func``; its ``self`` is the observer."""
        self._group_names_for_signal = func
        return self

    def groups_for_consumer(self, func: Groups) -> Self:
        """
        Get the groups to subscribe to from ``func``; its ``self`` is the observer.

        It receives the arguments of ``subscribe``, and ``consumer``.
        """
        self._group_names_for_consumer = func
        return self

    def groups(self, func: Groups) -> Self:
        """Get both from ``func``."""
        return self.groups_for_signal(func).groups_for_consumer(func)

    # Access and calls

    @overload
    def __get__(self, consumer: None, owner: type) -> Self: ...
    @overload
    def __get__(self, consumer: AsyncAPIConsumer, owner: type) -> BoundObserver: ...
    def __get__(self, consumer: AsyncAPIConsumer | None, owner: type) -> Self | BoundObserver:
        return self if consumer is None else BoundObserver(self, consumer)

    async def __call__(
        self, message: dict[str, Any], consumer: AsyncAPIConsumer | None = None, **kwargs: Any
    ) -> Any:
        """Call the method with a copy of a message."""
        content = deepcopy(message)
        body, message_type = content.pop("body", {}), content.pop("type", self.message_type)
        ids = [] if consumer is None else self._delivered_ids(consumer, content.get("group", ""))
        return await self.func(
            consumer,
            body,
            observer=self,
            message_type=message_type,
            subscribing_request_ids=ids,
            **content,
            **kwargs,
        )

    def _delivered_ids(self, consumer: AsyncAPIConsumer, group: str) -> list[Any]:
        """Return the request ids of a consumer that receive the event of a group."""
        raise NotImplementedError

    async def subscribe(
        self, consumer: AsyncAPIConsumer, *args: Any, request_id: Any = None, **kwargs: Any
    ) -> list[str]:
        """
        Subscribe a consumer, which ``self.method.subscribe(…)`` implies; return the names of its groups.

        ``groups_for_consumer`` receives the other arguments. The method receives the request id among
        ``subscribing_request_ids``.
        """
        raise NotImplementedError

    async def unsubscribe(
        self, consumer: AsyncAPIConsumer, *args: Any, request_id: Any = None, **kwargs: Any
    ) -> list[str]:
        """End the subscription with a request id; without one, all of them."""
        raise NotImplementedError

    # Groups

    def group_names(self, *args: Any, **kwargs: Any) -> Iterable[str]:
        """Yield the default group, which receives all events."""
        yield self._stable_observer_id

    def group_names_for_signal(self, *args: Any, **kwargs: Any) -> Iterator[str]:
        """Yield the names of an event's groups."""
        return self._names(self._group_names_for_signal, args, kwargs)

    def group_names_for_consumer(
        self, consumer: AsyncAPIConsumer, *args: Any, **kwargs: Any
    ) -> Iterator[str]:
        """Yield the names of the groups to subscribe to."""
        return self._names(self._group_names_for_consumer, args, {**kwargs, "consumer": consumer})

    def clean_group_name(self, name: str) -> str:
        """Return a name that channel layers accept: up to 100 letters, digits and a few signs."""
        return group_name(name)

    def _names(
        self, groups: Groups | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Iterator[str]:
        if groups is None:
            yield from map(self.clean_group_name, self.group_names(*args, **kwargs))
            return
        for group in groups(self, *args, **kwargs):
            yield self.clean_group_name(f"{self._stable_observer_id}-{group}")


def group_name(name: str) -> str:
    """Return a name that channel layers accept: up to 100 letters, digits and a few signs."""
    return f"DCRF-{hashlib.sha256(name.encode()).hexdigest()}"


class BoundObserver:
    """An observer that is bound to a consumer."""

    def __init__(self, observer: BaseObserver, consumer: AsyncAPIConsumer) -> None:
        self._observer = observer
        self._consumer = consumer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._observer, name)

    async def __call__(self, message: dict[str, Any], **kwargs: Any) -> Any:
        """Call the method with a message."""
        return await self._observer(message, **{"consumer": self._consumer, **kwargs})

    async def subscribe(self, *args: Any, request_id: Any = None, **kwargs: Any) -> list[str]:
        """Subscribe the consumer; see :meth:`BaseObserver.subscribe`."""
        consumer = kwargs.pop("consumer", self._consumer)
        return await self._observer.subscribe(consumer, *args, request_id=request_id, **kwargs)

    async def unsubscribe(self, *args: Any, request_id: Any = None, **kwargs: Any) -> list[str]:
        """Unsubscribe the consumer; see :meth:`BaseObserver.unsubscribe`."""
        consumer = kwargs.pop("consumer", self._consumer)
        return await self._observer.unsubscribe(consumer, *args, request_id=request_id, **kwargs)


class EventObserver(BaseObserver, ABC):
    """An observer that receives the events of a model."""

    model_cls: type[Model]

    @property
    @abstractmethod
    def sources(self) -> EventTables:
        """The tables whose changes are events of the model."""

    @abstractmethod
    def messages(
        self, old: Model | None, new: Model | None, wanted: Collection[str]
    ) -> Iterator[dict[str, Any]]:
        """Yield the messages of a change for the groups that are wanted."""

    @abstractmethod
    async def send_reset(self, consumer: AsyncAPIConsumer, group: str, reason: str) -> None:
        """Send a reset to a consumer: events of a group may be missing."""
