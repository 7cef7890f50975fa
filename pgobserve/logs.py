"""What a log line of the package is about, as fields of its record."""

from __future__ import annotations

from typing import Any, Final

#: The attributes that every record of the package has; ``None`` where the line names no such thing.
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
    Return the ``extra`` of a log line.

    All fields are always there, so that a formatter may name them.

    Args:
        consumer: The consumer's class, or that of an observer; or its name.
        model: The model, or its label.
        key: The row's key, or what else a subscription is named by.
        alias: The database alias.
        transaction: PostgreSQL's id of the transaction.
    """
    return {
        "consumer": consumer.__qualname__ if isinstance(consumer, type) else consumer,
        "model": model if model is None or isinstance(model, str) else model._meta.label,
        "key": None if key is None else str(key),
        "alias": alias,
        "transaction": transaction,
    }
