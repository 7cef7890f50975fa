"""One kind of consumer: what decides which rows a user sees, and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.mixins import ListModelMixin
from pgobserve.observer.generics import ObserverModelInstanceMixin, ObserverModelListMixin
from tests.integration.oracle import serializers
from tests.integration.oracle.models import Note

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS: dict[str, Kind] = {}


@dataclass(frozen=True)
class Kind:
    """
    One kind of consumer.

    Attributes:
        name: In parameters and failures.
        consumer: The class.
        judges: Permissions decide row by row, which ``list`` does not ask: what a list may show is
            what ``retrieve`` shows.
        mixes: Its rows are read by several queries, which see several states under load.
        tenant: A middleware sets a context variable for its sockets.
        asks: What a client may send along; one is drawn for each socket.
    """

    name: str
    consumer: type[GenericAsyncAPIConsumer]
    judges: bool = False
    mixes: bool = False
    tenant: bool = False
    asks: tuple[dict[str, Any], ...] = field(default=({},))

    @property
    def model(self) -> Any:
        """The model of its rows."""
        return self.consumer.watched  # type: ignore[attr-defined]


def kind(name: str, **options: Any) -> Callable[[Any], Any]:
    """Register a consumer class as one kind."""

    def register(consumer: Any) -> Any:
        KINDS[name] = Kind(name, consumer, **options)
        return consumer

    return register


class Base(
    ObserverModelListMixin, ObserverModelInstanceMixin, ListModelMixin, GenericAsyncAPIConsumer
):
    """Notes, as their serializer shows them."""

    watched: Any = Note
    queryset = Note.objects.order_by("id")
    serializer_class = serializers.NoteSerializer

    @property
    def user(self) -> Any:
        return self.scope["user"]
