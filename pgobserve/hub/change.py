"""The value that travels from the listener to the hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgobserve.wire import Operation


@dataclass(frozen=True, slots=True)
class Change:
    """
    What one notification says: rows of a table changed.

    It is neither secret nor authentic; a forged one costs a read at most.

    Attributes:
        label: The model, ``app.model`` in lower case.
        operation: What was done; a hint, for the row is read again anyway.
        xid: The writing transaction's ``xid8``.
        keys: The rows' keys as JSON has them, or None: "read again what you watch in this table".
        schema: The table's schema where it is not the usual one, else None.
        routes: By column the values, old and new, that lead from its rows to the rows of another
            table that they belong to; None if the trigger does not tell any.
    """

    label: str
    operation: Operation
    xid: int
    keys: tuple[Any, ...] | None
    schema: str | None = None
    routes: Mapping[str, tuple[Any, ...]] | None = None
