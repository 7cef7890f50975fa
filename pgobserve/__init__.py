"""A live change feed for Django: from PostgreSQL triggers to Channels consumers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from pgobserve.event_handlers.worker_stream import Event as Event
    from pgobserve.event_handlers.worker_stream import Reset as Reset

__version__ = "0.1.0"


def events(
    *labels: str, cursor: str | None = None, using: str = "default"
) -> AsyncGenerator[Event | Reset, None]:
    """
    Yield the changes of rows, for a worker that must miss none.

    Each event is yielded at least once, in commit order for each row. The changes that a transaction made to
    a row are one event. A :class:`Reset` means that events may be missing: the worker starts again from the
    rows as they are.

    Args:
        labels: Labels of models whose transport is the outbox, ``"shop.Order"``.
        cursor: A name for the position, which the database keeps, so that the next process continues there.
            Among several processes with the same name one works, and the others wait. Without a name,
            events start now.
        using: The database alias.

    Raises:
        ConfigurationError: There is no such model, or no such alias.
        TriggerError: At the first event: a model's changes are not written to the outbox.
    """
    # Imported here, because Django imports this package before models can be imported.
    from pgobserve.event_handlers import worker_stream

    return worker_stream.events(*labels, cursor=cursor, using=using)


def __getattr__(name: str) -> Any:
    if name in ("Event", "Reset"):
        from pgobserve.event_handlers import worker_stream

        return getattr(worker_stream, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
