"""Folds the changes of a transaction into one for each row. Pure: row images are only compared."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable


class EventAction(StrEnum):
    """What happened to a row."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class RowChange:
    """A change of a row, by a statement or a transaction; None stands for no row before, or after."""

    label: str
    key: Hashable
    old: Any
    new: Any
    at: Any = None

    @property
    def action(self) -> EventAction:
        """What happened to the row."""
        if self.old is None:
            return EventAction.CREATE
        return EventAction.DELETE if self.new is None else EventAction.UPDATE


@dataclass(frozen=True, slots=True)
class TableChange:
    """A change of unknown rows of a table."""

    label: str
    at: Any = None


def fold(changes: Iterable[RowChange | TableChange]) -> list[RowChange | TableChange]:
    """
    Return the net changes of one transaction: at most one for each row.

    Create and update are a create; create and delete are nothing; update and delete are a delete, with
    the row before the transaction; delete and create are an update. An update to equal values is
    nothing. A row takes the place of its last change. A :class:`TableChange` replaces all earlier changes
    of its table.

    Args:
        changes: The changes in the order in which they were made.
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
    """Stands for a whole table; equal to no key."""


_TABLE = _Table()
