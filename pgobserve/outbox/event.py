"""Events: the changes that a transaction made to rows, made from the outbox's records."""

from __future__ import annotations

import datetime
import logging
from collections import defaultdict
from dataclasses import dataclass
from itertools import chain, groupby, repeat
from typing import TYPE_CHECKING, Any

from pgobserve.logs import fields
from pgobserve.outbox import outbox_page
from pgobserve.outbox.cursor import GapReason
from pgobserve.outbox.fold import EventAction, RowChange, TableChange, fold
from pgobserve.outbox.row_images import Image, build
from pgobserve.sql.keys import to_key
from pgobserve.sql.model_tables import model_of

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Model

    from pgobserve.outbox.outbox_page import OutboxRecord

__all__ = ["Event", "EventAction", "GapReason", "Reset", "changes_in", "events_of", "folded"]

logger = logging.getLogger(__name__)


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
            events.append(Event(change.label, change.action, change.key, old, new, xid, change.at))
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
    if entry.keys is None:
        yield TableChange(entry.label, at)
        return
    keys = outbox_page.elements(entry.keys)
    for (text, key), old, new in zip(keys, _images(entry.old), _images(entry.new)):  # noqa: B905
        yield RowChange(entry.label, _key(entry.label, text, key), old, new, at)


def _images(text: str | None) -> Iterator[Image | None]:
    if text is None:
        yield from repeat(None)
        return
    for part, value in outbox_page.elements(text):
        yield None if value is None else Image(part, value)


def _key(label: str, text: str, value: Any) -> Hashable:
    model = model_of(label)
    try:
        return text if model is None else to_key(model, value)
    except ValueError:  # the key was of another type then
        return text
