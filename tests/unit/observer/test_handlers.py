"""Handlers of mixins, called without a socket."""

from __future__ import annotations

from typing import Any

from pgobserve.observer.generics import ObserverModelInstanceMixin


class Base(ObserverModelInstanceMixin):
    async def handle_instance_change(self, message: dict[str, Any], **kwargs: Any) -> Any:
        """Return what it was called with."""
        return self, message, kwargs


async def test_called_by_its_class() -> None:
    """A subclass may call the method of its base by the class, as it may call any method."""
    consumer: Any = object()

    called = await Base.handle_instance_change(consumer, {"pk": 1}, extra=2)

    assert called == (consumer, {"pk": 1}, {"extra": 2})
