"""What the dispatcher needs to know of an observer of events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from pgobserve.event_handlers.observer_base import BaseObserver

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from django.db.models import Model

    from pgobserve.consumers import AsyncAPIConsumer
    from pgobserve.event_handlers.event_tables import EventTables


class EventObserver(BaseObserver, ABC):
    """
    An observer that receives the events of a model.

    Attributes:
        model_cls: The model.
    """

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
