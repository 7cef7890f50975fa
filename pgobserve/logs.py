"""The ``extra`` fields of the package's log records."""

from __future__ import annotations

from typing import Any, Final

#: The attributes of each record; ``None`` if the line names no such thing.
FIELDS: Final = ("consumer", "model", "key", "alias", "transaction")


def fields(
    *,
    consumer: type | str | None = None,
    model: Any = None,
    key: object = None,
    alias: str | None = None,
    transaction: int | None = None,
) -> dict[str, object]:
    """
    Return the ``extra`` of a log line, always with all fields, so that a formatter can name them.

    ``consumer`` and ``model`` are classes or names; ``key`` names a row or a subscription.
    """
    return {
        "consumer": consumer.__qualname__ if isinstance(consumer, type) else consumer,
        "model": model if model is None or isinstance(model, str) else model._meta.label,
        "key": None if key is None else str(key),
        "alias": alias,
        "transaction": transaction,
    }
