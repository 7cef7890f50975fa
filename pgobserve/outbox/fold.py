"""
What a transaction did to a row in the end, whatever it did in between.

Pure: images are opaque, and equal ones mean that the row is as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable


class EventAction(StrEnum):
    """What became of a row."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class RowChange:
    """
    What one statement did to one row, or what a transaction did to it.

    Attributes:
        label: The table.
        key: The row's key.
        old: The row before, or None if it was not there.
        new: The row after, or None if it is not there any more.
        at: When.
    """

    label: str
    key: Hashable
    old: Any
    new: Any
    at: Any = None

    @property
    def action(self) -> EventAction:
        """What became of the row."""
        if self.old is None:
            return EventAction.CREATE
        return EventAction.DELETE if self.new is None else EventAction.UPDATE


@dataclass(frozen=True, slots=True)
class TableChange:
    """
    Any row of a table may have changed, and it is not told which.

    Attributes:
        label: The table.
        at: When.
    """

    label: str
    at: Any = None


def fold(changes: Iterable[RowChange | TableChange]) -> list[RowChange | TableChange]:
    """
    Return what is left of the changes of one transaction: at most one for each row.

    Created and updated is created; created and deleted is nothing; updated and deleted is deleted,
    with the row as it was before the transaction; deleted and created is updated. What is as it was
    before is nothing. A row comes where it was changed last. Of a table that may have changed
    altogether nothing is told from before that.

    Args:
        changes: In the order in which they were made.
    """
    folded: dict[tuple[str, Hashable], RowChange | TableChange] = {}
    for change in changes:
        if isinstance(change, TableChange):
            for name in [name for name in folded if name[0] == change.label]:
                del folded[name]
            folded[(change.label, _TABLE)] = change
            continue
        name = (change.label, change.key)
        before = folded.pop(name, None)
        old = before.old if isinstance(before, RowChange) else change.old
        folded[name] = RowChange(change.label, change.key, old, change.new, change.at)
    return [
        change
        for change in folded.values()
        if isinstance(change, TableChange) or change.old != change.new
    ]


class _Table:
    """The name of what concerns a whole table; equal to no key."""


_TABLE = _Table()
