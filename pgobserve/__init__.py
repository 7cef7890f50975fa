"""A live change feed for Django: PostgreSQL triggers tell, Channels consumers push."""

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
    Yield what becomes of rows, for a worker that must miss nothing.

    Each event is yielded at least once, in commit order for each row, and the changes that one
    transaction made to a row are one event. Where some may be missing there is a :class:`Reset`: the
    worker begins again from the rows as they are.

    Args:
        labels: Labels of models whose transport is the outbox, ``"shop.Order"``.
        cursor: A name under which is kept what has been handled, so that the next process goes on
            there. Of several processes with one name one works, and the others wait. Without a name
            it begins now.
        using: The database alias.

    Raises:
        ConfigurationError: There is no such model, or no such alias.
        TriggerError: When it is iterated: a model's changes are not written to the outbox.
    """
    # Django imports this package before its models can be imported.
    from pgobserve.event_handlers import worker_stream

    return worker_stream.events(*labels, cursor=cursor, using=using)


def __getattr__(name: str) -> Any:
    if name in ("Event", "Reset"):
        from pgobserve.event_handlers import worker_stream

        return getattr(worker_stream, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
