"""Handlers of a mixin, which observe the model of the consumer that uses the mixin."""

from __future__ import annotations

from functools import update_wrapper
from typing import TYPE_CHECKING, Any

from django.db import connections, router

from pgobserve.consumers import APIConsumerMetaclass
from pgobserve.dependencies.row_dependencies import model_of_consumer
from pgobserve.event_handlers.model_events import ModelObserver
from pgobserve.event_handlers.observer_base import group_name
from pgobserve.sql.keys import as_json, key_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.models import Model

    from pgobserve.event_handlers.observer_base import Handler


class _GenericModelObserver:
    """
    A decorator for a mixin's handler: each class with a queryset gets a :class:`ModelObserver` of it.

    DCRF's name, which mixins of projects use.
    """

    def __init__(self, func: Handler, **kwargs: Any) -> None:
        self.func = func
        self._groups: Callable[..., Any] | None = None
        self._serializer: Callable[..., Any] | None = None

    def groups(self, func: Callable[..., Any]) -> _GenericModelObserver:
        """Get the groups of events and of subscriptions from ``func``."""
        self._groups = func
        return self

    def serializer(self, func: Callable[..., Any]) -> _GenericModelObserver:
        """Make messages with ``func``."""
        self._serializer = func
        return self

    def bind_to_model(
        self, model_cls: type[Model], name: str, many_to_many: bool = False
    ) -> ModelObserver:
        """Return the observer of a model."""
        made = ModelObserver(self.func, model_cls, partition=name, many_to_many=many_to_many)
        made._group_names_for_signal = made._group_names_for_consumer = self._groups
        made._serializer = self._serializer
        made.unbound = self
        return made


class RowHandler:
    """
    ``handle_instance_change``: a method that also has DCRF's ``subscribe(instance=…)``.

    Args:
        func: The method.
    """

    def __init__(self, func: Handler) -> None:
        self.func = func
        update_wrapper(self, func)

    def __call__(self, consumer: Any, message: dict[str, Any], **kwargs: Any) -> Any:
        """Call the method by its class, as in ``Base.handle_instance_change(self, message)``."""
        return self.func(consumer, message, **kwargs)

    def __get__(self, consumer: Any, owner: type) -> Any:
        return self if consumer is None else BoundRowHandler(self.func, consumer)


class BoundRowHandler:
    """The handler of one socket."""

    def __init__(self, func: Handler, consumer: Any) -> None:
        self._func = func
        self._consumer = consumer

    async def __call__(self, message: dict[str, Any], **kwargs: Any) -> Any:
        """Call the method."""
        return await self._func(self._consumer, message, **kwargs)

    async def subscribe(self, *args: Any, instance: Model, **kwargs: Any) -> list[str]:
        """
        Subscribe to a row. Request ids that ``_subscribe(request_id, groups)`` adds receive its changes.

        Returns:
            The name of the row's group.
        """
        name, consumer = self._group_of(instance), self._consumer
        key = key_of(instance, connections[router.db_for_write(type(instance))])
        field = consumer.lookup_field
        lookup = as_json(instance.pk) if field == "pk" else getattr(instance, field)
        kwargs = {consumer.lookup_url_kwarg or field: lookup, "request_id": name}
        await consumer.subscriptions.rows.start(
            *(type(instance), key, consumer._normal(lookup)),
            {**kwargs, "action": "update"},
            custom_delivery=True,
        )
        consumer.group_requests.setdefault(name, set())
        await consumer.join_groups([name])
        return [name]

    async def unsubscribe(self, *args: Any, instance: Model, **kwargs: Any) -> list[str]:
        """End the subscription to a row."""
        name = self._group_of(instance)
        self._consumer.subscriptions.rows.end_request(name)
        self._consumer.group_requests.pop(name, None)
        await self._consumer.remove_group(name)
        return [name]

    def _group_of(self, instance: Model) -> str:
        label = instance._meta.label_lower
        cls = type(self._consumer)
        return group_name(
            f"{cls.__module__}.{cls.__qualname__}-handle.instance.change-{label}-pk-{instance.pk}"
        )


class ObserverAPIConsumerMetaclass(APIConsumerMetaclass):
    """Binds handlers of mixins to the model of the class."""

    def __init__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> None:
        for attribute, given in _handlers(cls).items():
            setattr(cls, attribute, given)
        super().__init__(name, bases, body)


def _handlers(cls: Any) -> dict[str, Any]:
    """Return the attributes of a class that must be bound to it."""
    found: dict[str, Any] = {}
    given: Any
    model = model_of_consumer(cls)
    many = getattr(cls, "observer_many_to_many_relationships", False)
    for name in dir(cls):
        given = next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)
        unbound = (given.unbound or given) if isinstance(given, ModelObserver) else given
        if name == "handle_instance_change":
            # The rows' own subscriptions call it, whatever decorates it.
            if not isinstance(given, RowHandler):
                found[name] = RowHandler(getattr(unbound, "func", unbound))
        elif (
            isinstance(unbound, _GenericModelObserver)
            and model is not None
            and getattr(given, "model_cls", None) is not model
        ):
            partition = f"{cls.__module__}.{cls.__qualname__}.{name}"
            found[name] = unbound.bind_to_model(model, partition, many_to_many=many)
    return found
