"""The lines of ``tail``: changes of rows or tables, printed for people or as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.utils import timezone

from pgobserve.outbox import outbox_page
from pgobserve.outbox.event import EventAction, changes_in
from pgobserve.outbox.fold import RowChange
from pgobserve.sql.model_tables import model_of
from pgobserve.wire import Operation

if TYPE_CHECKING:
    import datetime
    from collections.abc import Collection, Iterator

    from pgobserve.cli.console import Console
    from pgobserve.outbox.outbox_page import OutboxRecord
    from pgobserve.outbox.row_images import Image
    from pgobserve.wire import Change

STYLES = {"create": "SUCCESS", "update": "WARNING", "delete": "ERROR", "reset": "NOTICE"}

#: A notification names the statement only, not what became of each row.
ACTIONS = {
    Operation.INSERT: EventAction.CREATE,
    Operation.UPDATE: EventAction.UPDATE,
    Operation.DELETE: EventAction.DELETE,
}


@dataclass(frozen=True, slots=True)
class TailLine:
    """
    A change of a row, or of a table.

    Attributes:
        at: The time.
        xid: The transaction.
        label: The table's label.
        action: ``create``, ``update``, ``delete`` or ``reset``.
        key: The row's key as JSON; None means any row.
        old: The row before, if known.
        new: The row after, if known.
        why: The reason of a reset.
    """

    at: datetime.datetime
    xid: int | None
    label: str | None
    action: str
    key: Any = None
    old: Image | None = None
    new: Image | None = None
    why: str | None = None

    @property
    def changed(self) -> list[str] | None:
        """Names of the columns that differ; None if unknown."""
        if self.old is None and self.new is None:
            return None
        old, new = (image.values if image else {} for image in (self.old, self.new))
        names = [*new, *(name for name in old if name not in new)]
        if not old or not new:
            return names
        return [name for name in names if old.get(name) != new.get(name)]


def of_change(change: Change) -> Iterator[TailLine]:
    """Yield the lines of a notification."""
    action = ACTIONS.get(change.operation, "reset")
    why = "whole table" if change.keys is None else None
    for key in change.keys if change.keys is not None else (None,):
        yield TailLine(timezone.now(), change.xid, change.label, action, key, why=why)


def of_record(record: OutboxRecord) -> Iterator[TailLine]:
    """Yield the lines of a row of the outbox."""
    at, xid, label = record.at, record.xid, record.label
    keys = None if record.keys is None else outbox_page.keys(record.keys)
    for number, change in enumerate(changes_in(record)):
        if isinstance(change, RowChange) and keys is not None:
            key, old, new = keys[number], change.old, change.new
            yield TailLine(at, xid, label, change.action, key, old, new)
        else:
            yield TailLine(at, xid, label, "reset", why="whole table")


class Printer:
    """Prints lines. The labels determine the initial width of their column."""

    def __init__(
        self, console: Console, labels: Collection[str], *, rows: bool, as_json: bool
    ) -> None:
        self._console = console
        self._rows = rows
        self._as_json = as_json
        self._width = max((len(label) for label in labels), default=16)
        self._key_width = 6

    def print(self, line: TailLine) -> None:
        """Print a line and flush it."""
        if self._as_json:
            self._console.out.write(self._json(line))
        else:
            self._console.write(self._text(line), STYLES[line.action])
        self._console.out.flush()

    def _json(self, line: TailLine) -> str:
        values: dict[str, Any] = {
            "at": line.at.isoformat(),
            "xid": line.xid,
            "label": line.label,
            "action": line.action,
            "key": line.key,
            "changed": line.changed,
        }
        if line.why is not None:
            values["why"] = line.why
        text = json.dumps(values, default=str)
        if not self._rows:
            return text
        # The server's own text: numbers keep their digits.
        old, new = (image.text if image else "null" for image in (line.old, line.new))
        return f'{text[:-1]}, "old": {old}, "new": {new}}}'

    def _text(self, line: TailLine) -> str:
        model = model_of(line.label) if line.label else None
        title = model._meta.label if model else line.label or "*"
        key = "*" if line.key is None else json.dumps(line.key, default=str, ensure_ascii=False)
        self._width = max(self._width, len(title))
        self._key_width = max(self._key_width, len(key))
        cells = [
            timezone.localtime(line.at).strftime("%H:%M:%S.%f")[:-3],
            f"{line.xid or '':>8}",
            line.action.ljust(6),
            title.ljust(self._width),
            key.ljust(self._key_width),
            self._details(line),
        ]
        return "  ".join(cells).rstrip()

    def _details(self, line: TailLine) -> str:
        if line.why is not None:
            return line.why
        changed = line.changed
        if changed is None or not self._rows:
            return "" if line.action != EventAction.UPDATE else ", ".join(changed or ())
        return ", ".join(f"{name}: {_values(line, name)}" for name in changed)


def _values(line: TailLine, name: str) -> str:
    sides = [side for side in (line.old, line.new) if side is not None]
    return " → ".join(
        json.dumps(side.values.get(name), default=str, ensure_ascii=False) for side in sides
    )
