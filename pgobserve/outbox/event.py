"""Events: the changes that a transaction made to rows, folded into one for each row, from the outbox's records."""

from __future__ import annotations

import datetime
import logging
from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, groupby, repeat
from typing import TYPE_CHECKING, Any

from pgobserve.logs import fields
from pgobserve.outbox import outbox_page
from pgobserve.outbox.cursor import GapReason
from pgobserve.outbox.row_images import Image, build
from pgobserve.sql.model_tables import model_of

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Model

    from pgobserve.outbox.outbox_page import OutboxRecord

logger = logging.getLogger(__name__)


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
    Return the net changes of one transaction, in their order: at most one for each row.

    Create and update are a create; create and delete are nothing; update and delete are a delete, with
    the row before the transaction; delete and create are an update. An update to equal values is
    nothing. A row takes the place of its last change. A :class:`TableChange` replaces all earlier changes
    of its table.
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


__all__ = ["Event", "EventAction", "GapReason", "Reset", "changes_in", "events_of", "folded"]


@dataclass(frozen=True, slots=True)
class Event:
    """
    The change that a transaction made to a row.

    Attributes:
        label: The model, ``app.model`` in lower case.
        action: ``"create"``, ``"update"`` or ``"delete"``.
        key: The row's primary key.
        old: The row before, as a model instance; None if it was created.
        new: The row after; None if it was deleted.
        xid: The transaction.
        at: When the transaction wrote the row last.
    """

    label: str
    action: EventAction
    key: Hashable
    old: Model | None
    new: Model | None
    xid: int
    at: datetime.datetime

    @property
    def instance(self) -> Model:
        """The row after the change; of a deleted row, the last state."""
        instance = self.old if self.new is None else self.new
        assert instance is not None  # noqa: S101 (there is always one of the two)
        return instance

    @property
    def changed(self) -> frozenset[str]:
        """Names of the known fields that changed; all of them if the row was created or deleted."""
        old, new = (
            (self.instance if each is None else each).__dict__ for each in (self.old, self.new)
        )
        names = (
            {field.attname for field in self.instance._meta.concrete_fields}
            & old.keys()
            & new.keys()
        )
        alone = self.old is None or self.new is None
        return frozenset(name for name in names if alone or old[name] != new[name])


@dataclass(frozen=True, slots=True)
class Reset:
    """
    Changes may be missing here: start again from the rows as they are.

    Attributes:
        label: The model; None for all.
        why: The reason.
        xid: The transaction that caused it, if any.
    """

    label: str | None
    why: GapReason
    xid: int | None = None


def folded(entries: Iterable[OutboxRecord]) -> Iterator[tuple[int, RowChange | TableChange]]:
    """Yield transactions, each with one change of a row, in commit order for each row."""
    for xid, rows in groupby(entries, lambda entry: entry.xid):
        yield from zip(repeat(xid), fold(chain.from_iterable(map(changes_in, rows))))


def events_of(
    entries: Iterable[OutboxRecord], labels: Collection[str], connection: BaseDatabaseWrapper
) -> list[Event | Reset]:
    """
    Return the events of records of some labels; those of a transaction follow each other.

    Queries the database to read the row images.
    """
    changes = list(folded(entry for entry in entries if entry.label in labels))
    instances = _instances([change for _, change in changes], connection)
    events: list[Event | Reset] = []
    for xid, change in changes:
        if isinstance(change, TableChange):
            events.append(Reset(change.label, GapReason.WHOLE_TABLE, xid))
        elif (change.label, change.old or change.new) in instances:
            old, new = (
                image and instances[(change.label, image)] for image in (change.old, change.new)
            )
            key = (old if new is None else new).pk
            events.append(Event(change.label, change.action, key, old, new, xid, change.at))
    return events


def _instances(
    changes: Sequence[RowChange | TableChange], connection: BaseDatabaseWrapper
) -> dict[tuple[str, Any], Model]:
    wanted: dict[str, dict[Image, None]] = defaultdict(dict)
    for change in changes:
        if isinstance(change, RowChange):
            wanted[change.label].update(dict.fromkeys(filter(None, (change.old, change.new))))
    instances: dict[tuple[str, Any], Model] = {}
    for label, images in wanted.items():
        model = model_of(label)
        if model is None:
            logger.warning(
                "Changes of %s in database %r are skipped: the project no longer has this model.",
                *(label, connection.alias),
                extra=fields(model=label, alias=connection.alias),
            )
            continue
        for image, instance in zip(images, build(model, [*images], connection), strict=True):
            instances[(label, image)] = instance
    return instances


def changes_in(entry: OutboxRecord) -> Iterator[RowChange | TableChange]:
    """Yield the changes of a record, row by row, with row images."""
    at = entry.at.astimezone(datetime.UTC)
    keys = None if entry.keys is None else outbox_page.keys(entry.keys)
    if keys is None:
        yield TableChange(entry.label, at)
        return
    for key, old, new in zip(keys, _images(entry.old), _images(entry.new)):  # noqa: B905
        yield RowChange(entry.label, key, old, new, at)


def _images(text: str | None) -> Iterator[Image | None]:
    if text is None:
        yield from repeat(None)
        return
    for part, value in outbox_page.elements(text):
        yield None if value is None else Image(part, value)
