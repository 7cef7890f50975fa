"""Events for workers: ``async for event in pgobserve.events("shop.Order")``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import DEFAULT_DB_ALIAS, connections

from pgobserve import conf
from pgobserve.database.async_connection import parameters_of
from pgobserve.errors import ConfigurationError
from pgobserve.outbox.event import Event, Reset
from pgobserve.outbox.event_stream import EventStream
from pgobserve.triggers.registry import canonical, find

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["Event", "Reset", "events"]


def events(
    *labels: str, cursor: str | None = None, using: str = DEFAULT_DB_ALIAS
) -> AsyncGenerator[Event | Reset, None]:
    """See :func:`pgobserve.events`."""
    if not labels:
        raise ConfigurationError("events() must be given labels of models, e.g. 'shop.Order'.")
    if using not in connections:
        raise ConfigurationError(
            f"There is no database alias {using!r}. DATABASES has: {', '.join(connections)}."
        )
    models = [canonical(find(label)) for label in labels]
    settings = conf.get()
    overrides = settings.CONNECTION.get(using, {})
    return EventStream(
        alias=using,
        parameters=lambda: parameters_of(connections[using], overrides),
        tables={model._meta.label_lower: model._meta.db_table for model in models},
        namespace=conf.namespace(using),
        channel=conf.channel(using),
        name=cursor,
        poll=settings.OUTBOX_WAKE == "poll",
        retention=settings.OUTBOX_RETENTION,
    ).events()
