"""The consumer classes and model observers that are alive, and the models that they observe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Collection

    from django.db.models import Model

    class Evented(Protocol):
        """An observer of events."""

        @property
        def evented_models(self) -> Collection[type[Model]]:
            """The models whose tables must write to the outbox."""


_consumers: WeakSet[type] = WeakSet()
_observers: WeakSet[Evented] = WeakSet()


def observe(consumer_class: type) -> None:
    """Remember a consumer class; its class method ``observed_models`` is asked when needed."""
    _consumers.add(consumer_class)


def observe_events(observer: Evented) -> None:
    """Remember an observer of events; its ``evented_models`` are asked for when needed."""
    _observers.add(observer)


def observed_models() -> list[type[Model]]:
    """Return the models that the consumers observe, with what those depend on."""
    models = {model for each in _consumers for model in each.observed_models()}  # type: ignore[attr-defined]
    return sorted(models | {*evented_models()}, key=lambda model: model._meta.label_lower)


def evented_models() -> list[type[Model]]:
    """Return the models whose tables must write to the outbox, because events of them are wanted."""
    models = {model for each in _observers for model in each.evented_models}
    return sorted(models, key=lambda model: model._meta.label_lower)
