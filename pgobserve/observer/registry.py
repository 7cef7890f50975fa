"""The consumer classes that are alive, and the models that they observe."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from django.db.models import Model

_consumers: WeakSet[type] = WeakSet()


def observe(consumer_class: type) -> None:
    """Remember a consumer class; its class method ``observed_models`` is asked when needed."""
    _consumers.add(consumer_class)


def observed_models() -> list[type[Model]]:
    """Return the models that the consumers observe, with what those depend on."""
    models = {model for each in _consumers for model in each.observed_models()}  # type: ignore[attr-defined]
    return sorted(models, key=lambda model: model._meta.label_lower)
